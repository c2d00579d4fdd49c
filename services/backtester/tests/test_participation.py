"""How much of the market a fill was: by hand, and as the engine that prices by size counts it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from backtester.data import CandleData, load_candles
from backtester.options import BacktestOptions
from backtester.participation import largest_participation
from backtester.result import to_record
from backtester.run import BacktestRequest, run_backtest
from shared.domain.trade_records import TradeRecord
from shared.testing.builders import START


@pytest.fixture
def data(write_csv: Callable[..., Path]) -> CandleData:
    path = write_csv([100.0] * 60)
    lines = path.read_text().splitlines()
    volumes = [10, 40, 20, *(5 * (number % 7) for number in range(57))]
    rows = [f"{line.rpartition(',')[0]},{volume}" for line, volume in zip(lines[1:], volumes, strict=True)]
    path.write_text("\n".join([lines[0], *rows]) + "\n")
    return load_candles(path, "BTC/USDT", "1m")


def fill(minute: int, quantity: int, reason: str = "") -> TradeRecord:
    moment = START + timedelta(minutes=minute)
    return TradeRecord(moment, "BTC/USDT", "BUY", Decimal(100), Decimal(quantity), reason=reason)


def test_a_fill_is_measured_by_the_candles_that_had_closed(data: CandleData) -> None:
    assert largest_participation([fill(3, 2)], data) == 0.1
    assert largest_participation([fill(3, 2, "stop_loss")], data) == 2 / 25  # its own candle had not closed
    expected = 3 / np.median(data.volume[20:40])
    assert largest_participation([fill(40, 3), fill(45, 1)], data) == pytest.approx(expected)


def test_a_market_without_volume_is_the_most_there_is(data: CandleData) -> None:
    silent = replace(data, volume=np.zeros(data.rows))
    assert largest_participation([fill(30, 1)], silent) == 100
    assert largest_participation([], data) is None


def test_it_is_what_the_engine_that_prices_by_size_reports() -> None:
    options = BacktestOptions(
        slippage_bps=Decimal(0),
        half_spread_bps=Decimal(1),
        impact_bps=Decimal(10),
        sizing="quote:5000",  # type: ignore[arg-type]
    )
    request = BacktestRequest(strategy="rsi", data="simulated:3", symbol="BTC/USDT", timeframe="5m", options=options)
    result = run_backtest(request)
    assert result.candles is not None
    assert result.trades
    assert largest_participation([to_record(trade) for trade in result.trades], result.candles) == pytest.approx(
        result.participation_max
    )

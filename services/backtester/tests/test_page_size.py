"""A year of minutes with a trade every few of them still makes a page of at most five megabytes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from backtester.charts.page import PAGE_BYTES_MAX, export_html
from backtester.metrics import DetailedMetrics, compute_detailed_metrics
from backtester.result import BacktestResult
from shared.candle_files import CandleFile
from shared.domain.performance import EquityCurve
from shared.domain.trade_records import TradeRecord

pytestmark = pytest.mark.thorough

START = datetime(2024, 1, 1, tzinfo=UTC)
MINUTES = 525_600


def year_of_minutes() -> CandleFile:
    rng = np.random.default_rng(42)
    points = np.exp(np.cumsum(rng.normal(0, 0.0008, MINUTES)) + np.log(50_000.0)).round(2)
    opens = np.concatenate((points[:1], points[:-1]))
    return CandleFile(
        path=Path("year"),
        symbol="BTC/USDT",
        timeframe="1m",
        sha256="",
        open_time_ms=1_704_067_200_000 + 60_000 * np.arange(MINUTES),
        open=opens,
        high=np.maximum(opens, points),
        low=np.minimum(opens, points),
        close=points,
        volume=np.ones(MINUTES),
    )


@pytest.mark.parametrize("fills", [24_000, 50_000])
def test_a_year_of_minutes_fits_five_megabytes(fills: int) -> None:
    data, each = year_of_minutes(), MINUTES // fills
    trades = [
        TradeRecord(
            START + timedelta(minutes=each * place),
            "BTC/USDT",
            "SELL" if place % 2 else "BUY",
            Decimal(str(data.open[each * place])),
            Decimal("0.01234567"),
            Decimal("0.61728394"),
            reason=f"golden cross: EMA(9) {data.close[place]} > EMA(21) {data.close[place + 1]}",
        )
        for place in range(fills)
    ]
    curve = EquityCurve(data.open_time_ms + 60_000, 10_000 + data.close - data.close[0])
    metrics: DetailedMetrics = compute_detailed_metrics(trades, 10_000, 10_000, curve)
    balances = (Decimal(10_000), Decimal(10_000), Decimal(0))
    result = BacktestResult("ema", "BTC/USDT", fills, *balances, 0.0, list(trades), metrics, equity=curve, candles=data)
    page = export_html(result)
    assert len(page.encode()) <= PAGE_BYTES_MAX
    assert len(page) > 2_500_000  # the charts' program and the numbers are in it

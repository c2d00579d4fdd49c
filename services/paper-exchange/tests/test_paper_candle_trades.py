"""The trades of a candle make that candle again, whoever adds them up."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paper_exchange.market.numbers import SCALE, number_text, units_text
from paper_exchange.market.tape import CandleTape
from paper_exchange.testing import simulated_file
from shared.candle_columns import CandleColumns
from shared.testing.examples import examples

pytestmark = pytest.mark.thorough

START = 1_709_510_400_000


@st.composite
def tapes(draw: st.DrawFn) -> CandleTape:
    decimals = draw(st.integers(0, 8))
    rows = draw(st.lists(st.tuples(*[st.integers(1, 10**9)] * 4, st.integers(0, 10**12)), min_size=1, max_size=5))
    prices = np.array([[*sorted(row[:4])] for row in rows], dtype=np.float64) / 10**decimals
    swap = draw(st.booleans())
    first, last = (prices[:, 2], prices[:, 1]) if swap else (prices[:, 1], prices[:, 2])
    volume = np.array([row[4] for row in rows], dtype=np.float64) / SCALE
    times = START + np.arange(len(rows), dtype=np.int64) * 60_000
    tape = CandleTape("X/Y", 60_000, CandleColumns(times, first, prices[:, 3], prices[:, 0], last, volume))
    while tape.next_open_ms() is not None:
        tape.close_one()
    return tape


@settings(max_examples=examples(40))
@given(tapes())
def test_trades_give_back_first_highest_lowest_last_price_and_volume(tape: CandleTape) -> None:
    for row, kline in enumerate(tape.klines(0, tape.closed)):
        trades = tape.trades(row)
        assert len(trades) == kline.trades
        if not trades:
            assert (kline.volume, kline.first_id, kline.last_id) == (0, -1, -1)
            continue
        volume = sum(Decimal(units_text(trade.quantity, tape.scale)) for trade in trades)
        assert volume == Decimal(number_text(kline.volume))
        assert [kline.first_id + n for n in range(kline.trades)] == [trade.id for trade in trades]
        assert all(kline.open_ms <= trade.at_ms < kline.close_ms for trade in trades)
        prices = [trade.price / SCALE for trade in trades]
        assert kline.low <= min(prices) <= max(prices) <= kline.high
        assert prices[-1] == kline.close
        if len(trades) == 7:
            assert (prices[0], max(prices), min(prices)) == (kline.open, kline.high, kline.low)


@settings(max_examples=examples(40))
@given(tapes())
def test_a_candle_grows_into_what_it_will_have_been(tape: CandleTape) -> None:
    row = tape.closed - 1
    whole = tape.klines(row, row + 1)[0]
    tape.closed -= 1
    stages = [tape.forming(progress) for progress in range(1, 8)]
    for early, late in pairwise(stages):
        assert early.low >= late.low
        assert early.high <= late.high
        assert early.volume <= late.volume
        assert early.trades <= late.trades
    assert stages[-1].volume == whole.volume
    assert stages[-1].close == (whole.close if whole.trades else whole.open)
    assert stages[-1].taker_base == whole.taker_base


def test_trade_ids_follow_one_another_over_candles_without_trades() -> None:
    file = simulated_file(rows=30)
    volume = file.volume.copy()
    volume[10:13] = 0.0
    tape = CandleTape(
        file.symbol, 60_000, CandleColumns(file.open_time_ms, file.open, file.high, file.low, file.close, volume)
    )
    ids = [trade.id for row in range(30) for trade in tape.trades(row)]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert len(ids) == 27 * 7


def test_a_number_with_more_than_eight_decimals_is_not_rounded() -> None:
    assert number_text(0.123456789012) == "0.123456789012"
    assert number_text(65000.5) == "65000.50000000"
    assert units_text(1234, 100) == "12.34000000"


def test_a_volume_too_large_for_eight_decimals_is_still_told_whole() -> None:
    file = simulated_file(rows=3)
    volume = np.array([3.5e13, 1.0, 0.0])
    tape = CandleTape(
        "PEPE/USDT", 60_000, CandleColumns(file.open_time_ms, file.open, file.high, file.low, file.close, volume)
    )
    assert sum(Decimal(units_text(trade.quantity, tape.scale)) for trade in tape.trades(0)) == Decimal("3.5e13")
    assert [len(tape.trades(row)) > 0 for row in range(3)] == [True, True, False]

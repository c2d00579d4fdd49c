"""What a page's charts are made of: thinned lines, drawn candles, packed prices, excursions, groups."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtester.charts.packing import pack_closes, press
from backtester.charts.thinning import draw_candles, thin
from backtester.charts.trips import PairColumns, by_holding_time, by_hour, by_size, excursions
from backtester.data import CandleData
from shared.candle_files import CandleFile
from shared.domain.performance import EquityCurve, FloatArray, IntArray
from shared.domain.trade_records import TradePair
from shared.testing.examples import examples

START = datetime(2025, 3, 3, tzinfo=UTC)
START_MS = 1_740_960_000_000


def candles_of(close: FloatArray, times: IntArray | None = None) -> CandleData:
    opens = np.concatenate((close[:1], close[:-1]))
    return CandleFile(
        path=Path("none"),
        symbol="BTC/USDT",
        timeframe="1m",
        sha256="",
        open_time_ms=START_MS + 60_000 * (np.arange(len(close)) if times is None else times),
        open=opens,
        high=np.maximum(opens, close) + 1.0,
        low=np.minimum(opens, close) - 1.0,
        close=close,
        volume=np.ones(len(close)),
    )


def pair(entry: int, exit_: int, bought: float, sold: float, quantity: str = "1") -> TradePair:
    held = timedelta(minutes=exit_ - entry)
    return TradePair(
        entry_time=START + timedelta(minutes=entry),
        exit_time=START + timedelta(minutes=exit_),
        entry_price=Decimal(str(bought)),
        exit_price=Decimal(str(sold)),
        quantity=Decimal(quantity),
        pnl=(Decimal(str(sold)) - Decimal(str(bought))) * Decimal(quantity),
        pnl_pct=100 * (sold / bought - 1),
        holding_period=held,
        symbol="BTC/USDT",
        strategy="x",
        fees=Decimal(0),
    )


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(1, 30))
def test_a_thinned_line_keeps_its_ends_peaks_and_troughs(values: list[float], groups: int) -> None:
    curve = EquityCurve(np.arange(len(values), dtype=np.int64), np.array(values))
    thinned = thin(curve, groups)
    assert len(thinned.value) <= 2 * groups + 2
    assert (np.diff(thinned.time_ms) > 0).all()
    assert (thinned.value[0], thinned.value[-1]) == (values[0], values[-1])
    assert (thinned.value.max(), thinned.value.min()) == (max(values), min(values))
    assert (curve.value[thinned.time_ms] == thinned.value).all()


def test_the_example_of_thinning_holds() -> None:
    curve = EquityCurve(np.arange(9, dtype=np.int64), np.arange(1.0, 10.0))
    assert thin(curve, 3).value.tolist() == [1, 3, 4, 6, 7, 9]


def test_drawn_candles_are_those_of_a_longer_timeframe_on_its_grid() -> None:
    close = 100 + np.cumsum(np.random.default_rng(1).normal(size=1_440))
    data = candles_of(close)
    drawn = draw_candles(data, 300)
    assert (drawn.step_ms, len(drawn.time_ms)) == (300_000, 288)
    assert (drawn.time_ms % 300_000 == 0).all()
    assert drawn.high.tolist() == data.high.reshape(-1, 5).max(axis=1).tolist()
    assert drawn.low.tolist() == data.low.reshape(-1, 5).min(axis=1).tolist()
    assert drawn.close.tolist() == close[4::5].tolist()
    assert drawn.open.tolist() == data.open[::5].tolist()


def test_a_hole_is_not_drawn_and_a_short_file_is_drawn_as_it_is() -> None:
    close = np.arange(1.0, 21.0)
    times = np.concatenate((np.arange(10), np.arange(100_000, 100_010)))
    assert len(draw_candles(candles_of(close, times), 300).time_ms) == 2
    assert draw_candles(candles_of(close), 300).close.tolist() == close.tolist()


def read_packed(text: str) -> tuple[IntArray, FloatArray]:
    """Read packed closes as the page's own program does."""
    content = gzip.decompress(base64.b64decode(text))
    length = int.from_bytes(content[:4], "little")
    facts = json.loads(content[4 : 4 + length])
    planes = np.frombuffer(content[4 + length :], dtype=np.uint8).reshape(4, -1).astype(np.int64)
    folded = sum(planes[weight] << (8 * weight) for weight in range(4))
    steps = (folded >> 1) ^ -(folded & 1)
    rows = np.arange(facts["rows"])
    for first, skipped in facts["holes"]:
        rows[first:] += skipped
    return facts["start"] + facts["step"] * rows, (facts["first"] + np.cumsum(steps)) / 10 ** facts["decimals"]


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10_000_000), st.integers(1, 3)), min_size=1, max_size=50), st.integers(0, 8))
def test_packed_closes_come_back_exactly(rows: list[tuple[int, int]], decimals: int) -> None:
    close = np.array([ticks for ticks, _ in rows]) / 10**decimals
    times = np.cumsum([jump for _, jump in rows])
    data = candles_of(close, times)
    packed = pack_closes(data)
    assert packed is not None
    found_times, found = read_packed(press(packed.facts, packed.planes))
    assert found_times.tolist() == data.open_time_ms.tolist()
    assert found.tolist() == close.tolist()


def test_prices_without_a_tick_are_not_packed() -> None:
    assert pack_closes(candles_of(np.array([1 / 3, 2 / 7]))) is None


def test_the_worst_and_best_move_of_a_trip_by_hand() -> None:
    data = candles_of(np.array([100.0, 103, 97, 102, 110]))
    moves = excursions(PairColumns.of([pair(0, 3, 100, 102), pair(4, 4, 100, 99)]), data)
    # candles 0..2 range from 96 to 104; the second was stopped within its own candle
    assert moves.adverse.tolist() == pytest.approx([4, 1])
    assert moves.favourable.tolist() == pytest.approx([4, 0])


def test_the_candle_of_a_stop_counts_with_the_stops_price() -> None:
    data = candles_of(np.array([100.0, 100, 90, 120]))
    stopped = PairColumns.of([pair(0, 3, 100, 95)])
    inside = excursions(stopped, data, ended_inside=np.array([True]))
    assert inside.adverse.tolist() == pytest.approx([5])
    assert excursions(stopped, data).adverse.tolist() == pytest.approx([11])


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 30)), min_size=1, max_size=20), st.integers(0, 99))
def test_excursions_are_those_of_a_look_at_every_candle(spans: list[tuple[int, int]], seed: int) -> None:
    data = candles_of(100 + np.cumsum(np.random.default_rng(seed).normal(size=30)))
    pairs = [pair(min(span), max(span), 100, 101) for span in spans]
    moves = excursions(PairColumns.of(pairs), data)
    for place, (first, last) in enumerate((min(span), max(span)) for span in spans):
        assert moves.adverse[place] == pytest.approx(100 - min([100.0, 101.0, *data.low[first:last]]))
        assert moves.favourable[place] == pytest.approx(max([100.0, 101.0, *data.high[first:last]]) - 100)


def test_groups_hold_every_trip_once() -> None:
    rng = np.random.default_rng(3)
    pairs = [
        pair(int(entry), int(entry + held), 100, float(sold), str(quantity))
        for entry, held, sold, quantity in zip(
            rng.integers(0, 5_000, 200),
            rng.integers(0, 60_000, 200),
            100 + rng.normal(size=200).round(2),
            range(1, 201),
            strict=True,
        )
    ]
    columns = PairColumns.of(pairs)
    for groups in (by_hour(columns), by_holding_time(columns), by_size(columns)):
        assert sum(group.trips for group in groups) == 200
        assert sum(group.wins for group in groups) == sum(one.pnl > 0 for one in pairs)
        assert sum(group.pnl for group in groups) == pytest.approx(float(sum(one.pnl for one in pairs)))


def test_groups_by_hand() -> None:
    columns = PairColumns.of([pair(61, 64, 100, 101), pair(62, 62 + 1_440, 100, 99)])
    assert [(group.name, group.trips, group.pnl) for group in by_hour(columns) if group.trips] == [("01", 2, 0.0)]
    named = [(group.name, group.wins) for group in by_holding_time(columns)]
    assert (named[0], named[-1]) == (("< 5 min", 1), ("1-3 d", 0))
    assert [group.trips for group in by_size(columns)] == [2]
    assert by_size(PairColumns.of([])) == by_holding_time(PairColumns.of([])) == []

"""Holes are named exactly once."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from data_collector.feeds.port import CandleGap, StreamKey
from data_collector.gaps import GapTracker, find_gap
from data_collector.testing import SCRIPT_START, build_candle

BTC = StreamKey("BTC/USDT", "1m")


def at(number: int):
    return SCRIPT_START + timedelta(minutes=number)


def test_a_hole_reaches_from_the_first_missing_candle_to_the_next_one_there() -> None:
    assert find_gap(BTC, at(0), at(3)) == CandleGap(BTC, at(1), at(3), 2)


def test_neighbours_duplicates_and_older_candles_are_no_hole() -> None:
    assert find_gap(BTC, at(5), at(6)) is None
    assert find_gap(BTC, at(5), at(5)) is None
    assert find_gap(BTC, at(5), at(1)) is None


def test_a_tracker_resumes_from_stored_open_times() -> None:
    gaps, moved = GapTracker({BTC: at(2)}).advance([build_candle(2), build_candle(1), build_candle(5)])
    assert gaps == [CandleGap(BTC, at(3), at(5), 2)]
    assert moved == {BTC: at(5)}


def test_streams_do_not_mix_and_a_first_candle_is_no_hole() -> None:
    gaps, moved = GapTracker({}).advance([build_candle(0), build_candle(7, "ETH/USDT"), build_candle(1)])
    assert gaps == []
    assert moved == {BTC: at(1), StreamKey("ETH/USDT", "1m"): at(7)}


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40))
def test_holes_and_candles_together_cover_every_minute_once(numbers: list[int]) -> None:
    ordered = sorted(set(numbers))
    gaps, _ = GapTracker({}).advance([build_candle(number) for number in ordered])
    missing = [
        (gap.start_time - SCRIPT_START) // timedelta(minutes=1) + offset
        for gap in gaps
        for offset in range(gap.candles_missing)
    ]
    assert sorted([*ordered, *missing]) == list(range(ordered[0], ordered[-1] + 1))

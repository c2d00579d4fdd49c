"""At which business times the portfolio goes on record, and when a day ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_manager.fold import Folded, PortfolioFold
from portfolio_manager.portfolio import PortfolioTracker
from portfolio_manager.snapshots import SnapshotSchedule
from shared.models import Candle
from shared.testing.builders import BTC, ETH, START, candle, fill

D = Decimal
MINUTE = timedelta(minutes=1)
DAY = 1440


def fold_of(interval: timedelta = MINUTE, balance: int = 10_000) -> PortfolioFold:
    return PortfolioFold(PortfolioTracker(balance), SnapshotSchedule(interval, None))


def times_of(folded: Folded) -> list[datetime]:
    return [snapshot.snapshot_at for snapshot in folded.snapshots]


def test_every_boundary_of_the_interval_is_met_by_its_close_time() -> None:
    folded = fold_of(5 * MINUTE).advance([candle(n) for n in range(20)], [])

    assert times_of(folded) == [START + n * 5 * MINUTE for n in (1, 2, 3, 4)]


def test_a_boundary_inside_a_gap_is_recorded_with_the_marks_before_it() -> None:
    fold = fold_of(5 * MINUTE)
    fold.tracker.apply_fill(fill("BUY", 1, 100))

    folded = fold.advance([candle(3, 110), candle(11, 500)], [])

    assert [(each.snapshot_at, each.totals.total_value) for each in folded.snapshots] == [(START + 10 * MINUTE, 10_010)]


def test_many_missed_boundaries_leave_the_last_one() -> None:
    folded = fold_of().advance([candle(0), candle(100)], [])

    assert times_of(folded) == [START + MINUTE, START + 100 * MINUTE, START + 101 * MINUTE]


def test_fills_booked_at_a_close_time_are_in_its_snapshot() -> None:
    folded = fold_of().advance([candle(0), candle(1, 100, 103)], [fill("BUY", 2, 100, sequence=2)])

    assert [each.totals.total_value for each in folded.snapshots] == [10_000, 10_006]


def test_a_day_ends_once_at_midnight_with_the_worth_at_it() -> None:
    fold = fold_of()
    fold.tracker.apply_fill(fill("BUY", 1, 100))

    first = fold.advance([candle(n, 100, 107 if n == DAY - 1 else 100) for n in range(DAY - 2, DAY + 3)], [])
    second = fold.advance([candle(n, 90) for n in range(DAY + 3, 2 * DAY)], [])

    assert [(end.value, end.value_before) for end in first.day_ends] == [(10_007, 10_000)]
    assert [(end.value, end.value_before) for end in second.day_ends] == [(9_990, 10_007)]


def test_a_midnight_without_a_candle_ends_the_day_with_the_worth_before_it() -> None:
    fold = fold_of()
    fold.tracker.apply_fill(fill("BUY", 1, 100))

    folded = fold.advance([candle(DAY - 3, 105), candle(DAY + 7, 50)], [])

    assert [end.value for end in folded.day_ends] == [10_005]


def test_the_first_candle_ever_ends_no_day() -> None:
    assert fold_of().advance([candle(DAY - 1), candle(DAY)], []).day_ends == []


def test_a_late_candle_of_yesterday_ends_no_day_again() -> None:
    fold = fold_of()
    fold.advance([candle(n) for n in range(DAY - 2, DAY + 2)], [])

    folded = fold.advance([candle(DAY - 5, 7, symbol=ETH), candle(DAY + 2), candle(DAY + 3)], [])

    assert folded.day_ends == []
    assert times_of(folded) == [START + (DAY + 3) * MINUTE, START + (DAY + 4) * MINUTE]


@given(
    numbers=st.lists(st.integers(0, 4 * DAY), unique=True, min_size=1, max_size=60).map(sorted),
    cuts=st.lists(st.integers(1, 59), max_size=6),
    minutes=st.sampled_from([1, 7, 60, 1440]),
)
def test_pieces_give_the_snapshots_and_days_of_the_whole(
    numbers: Sequence[int], cuts: Sequence[int], minutes: int
) -> None:
    candles: list[Candle] = [candle(n, 100 + n % 50) for n in numbers]
    fills = [fill("BUY", 1, 100, sequence=n + 1) for n in numbers[::3]]
    whole = fold_of(minutes * MINUTE).advance(candles, fills)

    snapshots, ends = [], []
    handled: datetime | None = None
    tracker, day_value = PortfolioTracker(10_000), None
    edges = [0, *sorted(cut for cut in set(cuts) if cut < len(candles)), len(candles)]
    for first, last in pairwise(edges):
        part = candles[first:last]
        own = [
            each for each in fills if (handled is None or each.as_of > handled) and each.as_of <= part[-1].close_time
        ]
        fold = PortfolioFold(tracker, SnapshotSchedule(minutes * MINUTE, handled), day_value)  # a restart
        folded = fold.advance(part, own)
        snapshots += folded.snapshots
        ends += folded.day_ends
        handled, day_value = part[-1].close_time, fold.day_value

    assert snapshots == whole.snapshots
    assert ends == whole.day_ends


@pytest.mark.parametrize("interval", [timedelta(seconds=1), timedelta(days=1), timedelta(days=7)])
def test_boundaries_are_counted_from_1970(interval: timedelta) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    schedule = SnapshotSchedule(interval, None)

    assert schedule.due_at(epoch + 12_345 * interval)
    assert not schedule.due_at(epoch + 12_345 * interval + timedelta(milliseconds=1))


def test_marks_of_one_close_time_value_all_symbols() -> None:
    fold = fold_of()
    fold.tracker.apply_fill(fill("BUY", 1, 100))
    fold.tracker.apply_fill(fill("BUY", 1, 10, sequence=2, instance=fill("BUY", 1).instance._replace(symbol=ETH)))

    folded = fold.advance([candle(5, 110, symbol=BTC), candle(5, 15, symbol=ETH)], [])

    assert folded.snapshots[0].totals.total_value == 10_015

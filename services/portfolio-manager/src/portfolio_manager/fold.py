"""Close times, fills and marks into snapshots and ends of days: pure, so that a restart can be compared with none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, time
from decimal import Decimal
from typing import NamedTuple

from portfolio_manager.portfolio import PortfolioTotals, PortfolioTracker
from portfolio_manager.snapshots import SnapshotSchedule, days_ended
from shared.models import Candle, Fill, Position

MIDNIGHT = time(0)


class Snapshot(NamedTuple):
    """The portfolio at an instant of business time."""

    snapshot_at: datetime
    totals: PortfolioTotals


class DayEnd(NamedTuple):
    """What the summary of a day tells; `value_before` is that of the day's start."""

    positions: list[Position]
    value: Decimal
    value_before: Decimal


class Folded(NamedTuple):
    """What a run of close times brought about."""

    snapshots: list[Snapshot]
    day_ends: list[DayEnd]


class PortfolioFold:
    """A tracker moved through business time; `day_value` is its worth at the last 00:00 UTC, None before the first."""

    def __init__(self, tracker: PortfolioTracker, schedule: SnapshotSchedule, day_value: Decimal | None = None) -> None:
        self.tracker = tracker
        self.day_value = day_value
        self._schedule = schedule

    def advance(self, candles: Sequence[Candle], fills: Sequence[Fill]) -> Folded:
        """Apply candles in order of their close times, and the fills booked up to each; the rest at the end."""
        folded = Folded([], [])
        place = 0
        for as_of, group in _close_times(candles):
            before = self._schedule.handled_until
            is_late = before is not None and as_of <= before
            is_new_day = days_ended(before, as_of)
            missed = None if is_late else self._schedule.due_before(as_of)
            if missed is not None:
                folded.snapshots.append(Snapshot(missed, self.tracker.totals()))
            if is_new_day and as_of.time() != MIDNIGHT:  # nobody saw 00:00: the last worth holds
                folded.day_ends.append(self._end_day())
                is_new_day = False
            while place < len(fills) and fills[place].as_of <= as_of:
                self.tracker.apply_fill(fills[place])
                place += 1
            for candle in group:
                self.tracker.mark(candle.symbol, candle.close, as_of)
            if is_late:
                continue
            if self._schedule.due_at(as_of):
                folded.snapshots.append(Snapshot(as_of, self.tracker.totals()))
            if is_new_day:
                folded.day_ends.append(self._end_day())
            self._schedule.handled(as_of)
        for fill in fills[place:]:
            self.tracker.apply_fill(fill)
        return folded

    def _end_day(self) -> DayEnd:
        value = self.tracker.total_value
        before = self.tracker.initial_balance if self.day_value is None else self.day_value
        self.day_value = value
        return DayEnd(self.tracker.positions, value, before)


def _close_times(candles: Sequence[Candle]) -> Iterator[tuple[datetime, list[Candle]]]:
    """Yield each close time with the candles that follow one another at it."""
    as_of: datetime | None = None
    group: list[Candle] = []
    for candle in candles:
        close_time = candle.close_time
        if as_of is None or close_time == as_of:
            group.append(candle)
        else:
            yield as_of, group
            group = [candle]
        as_of = close_time
    if as_of is not None:
        yield as_of, group

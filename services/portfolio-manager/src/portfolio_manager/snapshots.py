"""At which business times the portfolio is put on record: pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from shared.models import from_milliseconds, to_milliseconds


class SnapshotSchedule:
    """Boundaries every `interval` of business time since 1970, each met once."""

    def __init__(self, interval: timedelta, handled_until: datetime | None) -> None:
        self._interval_ms = max(1, int(interval / timedelta(milliseconds=1)))
        self.handled_until = handled_until
        self._handled_ms = None if handled_until is None else to_milliseconds(handled_until)
        self._asked: tuple[datetime, int] | None = None

    def due_before(self, as_of: datetime) -> datetime | None:
        """Return the last boundary that passed without a close time of its own, strictly before `as_of`."""
        if self._handled_ms is None:
            return None
        boundary_ms = self._milliseconds(as_of) - 1
        boundary_ms -= boundary_ms % self._interval_ms
        return from_milliseconds(boundary_ms) if boundary_ms > self._handled_ms else None

    def due_at(self, as_of: datetime) -> bool:
        """Return whether `as_of` is itself a boundary."""
        return self._milliseconds(as_of) % self._interval_ms == 0

    def handled(self, as_of: datetime) -> None:
        """Move on to `as_of`."""
        self.handled_until, self._handled_ms = as_of, self._milliseconds(as_of)

    def _milliseconds(self, as_of: datetime) -> int:
        """Return a close time in milliseconds, reckoned once for all questions about it."""
        if self._asked is None or self._asked[0] is not as_of:
            self._asked = (as_of, to_milliseconds(as_of))
        return self._asked[1]


def days_ended(before: datetime | None, as_of: datetime) -> bool:
    """Return whether 00:00 UTC lies in (before, as_of]: a day has ended and its summary is due."""
    return before is not None and as_of.date() > before.date()

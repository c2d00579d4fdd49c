"""The intervals of the protocol and where their candles begin."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from shared.models import TIMEFRAME_SECONDS, from_milliseconds, to_milliseconds

DAY_MS: Final = 86_400_000
_WEEK_MS: Final = 7 * DAY_MS
_FIRST_MONDAY_MS: Final = 4 * DAY_MS  # 1970-01-05
MONTH: Final = "1M"
_LENGTHS_MS: Final = {
    "1s": 1000,
    **{name: seconds * 1000 for name, seconds in TIMEFRAME_SECONDS.items()},
    "3d": 3 * DAY_MS,
    "1w": _WEEK_MS,
}
INTERVALS: Final = (*_LENGTHS_MS, MONTH)


def length_ms(interval: str) -> int:
    """Return an interval's length; a month's is the shortest one's, as only comparisons ask for it."""
    return 28 * DAY_MS if interval == MONTH else _LENGTHS_MS[interval]


def bucket(interval: str, open_ms: int) -> tuple[int, int]:
    """Return [open, close) in milliseconds of the candle of `interval` that holds `open_ms`.

    Weeks begin on Mondays, months on the first, everything else counts from 1970, all in UTC.
    """
    if interval == MONTH:
        moment = from_milliseconds(open_ms)
        first = datetime(moment.year, moment.month, 1, tzinfo=UTC)
        after = datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=UTC)
        return to_milliseconds(first), to_milliseconds(after)
    length = _LENGTHS_MS[interval]
    offset = _FIRST_MONDAY_MS if interval == "1w" else 0
    start = (open_ms - offset) // length * length + offset
    return start, start + length

"""The intervals of the protocol and where their candles begin."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from shared.models import TIMEFRAME_SECONDS, from_milliseconds, to_milliseconds

DAY_MS: Final = 86_400_000
STREAM_ZONE: Final = "+08:00"  # the only zone that streams know
_WEEK_MS: Final = 7 * DAY_MS
_FIRST_MONDAY_MS: Final = 4 * DAY_MS  # 1970-01-05
_MONTH: Final = "1M"
_LENGTHS_MS: Final = {
    "1s": 1000,
    **{name: seconds * 1000 for name, seconds in TIMEFRAME_SECONDS.items()},
    "3d": 3 * DAY_MS,
    "1w": _WEEK_MS,
}
INTERVALS: Final = (*_LENGTHS_MS, _MONTH)


def in_zone(interval: str, zone: str) -> str:
    """Return the name of an interval whose days begin at another zone's midnight. Example: 1d@+08:00."""
    return f"{interval}@{zone}"


def plain(name: str) -> str:
    """Return an interval's name without its zone."""
    return name.partition("@")[0]


def length_ms(name: str) -> int:
    """Return an interval's length; a month's is the shortest one's, as only comparisons ask for it."""
    interval = plain(name)
    return 28 * DAY_MS if interval == _MONTH else _LENGTHS_MS[interval]


def zone_ms(zone: str) -> int:
    """Return the milliseconds by which a zone is east of UTC. Example: -3:30 -> -12600000."""
    hours, _, minutes = zone.lstrip("+-").partition(":")
    offset = (int(hours) * 60 + int(minutes or 0)) * 60_000
    return -offset if zone.startswith("-") else offset


def bucket(name: str, open_ms: int) -> tuple[int, int]:
    """Return [open, close) in milliseconds of the candle of an interval that holds `open_ms`.

    Weeks begin on Mondays, months on the first, everything else counts from 1970, in UTC or in the name's zone.
    """
    interval, _, zone = name.partition("@")
    if zone:
        east_ms = zone_ms(zone)
        start, end = bucket(interval, open_ms + east_ms)
        return start - east_ms, end - east_ms
    if interval == _MONTH:
        moment = from_milliseconds(open_ms)
        first = datetime(moment.year, moment.month, 1, tzinfo=UTC)
        after = datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=UTC)
        return to_milliseconds(first), to_milliseconds(after)
    length = _LENGTHS_MS[interval]
    offset = _FIRST_MONDAY_MS if interval == "1w" else 0
    start = (open_ms - offset) // length * length + offset
    return start, start + length

"""The past that a live run begins with: how much of it is fed before anybody speaks, and where it ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from shared.models import TIMEFRAME_DELTA, from_milliseconds, to_milliseconds
from shared.strategy import BaseStrategy, History

LIVE_FROM_CURSOR = "collector/live_from"  # by stream: the open time (ms) of its last candle of history
LOADING = -1  # instead of a time, while the history is being loaded

type Stream = tuple[str, str]


def live_from_cursor(stream: Stream) -> str:
    """Return the name of the cursor that says where a stream's history ends."""
    return f"{LIVE_FROM_CURSOR}/{stream[0]}/{stream[1]}"


def live_from_value(last_open_time: datetime | None) -> int:
    """Return what that cursor holds; None is a stream that began without any history."""
    return 0 if last_open_time is None else to_milliseconds(last_open_time)


def read_live_from(cursors: Mapping[str, str], stream: Stream) -> datetime | None:
    """Return the open time of the last candle of history; None while it is loaded.

    A stream without the cursor is not a live one: it has no history, and everything in it is the present.
    """
    value = int(cursors.get(live_from_cursor(stream), 0))
    return None if value == LOADING else from_milliseconds(value)


def needed_history(strategy: BaseStrategy, now: datetime) -> History:
    """Return what a strategy must be fed before it may speak at `now`; one that cannot say needs its warm-up."""
    try:
        return strategy.history(now)
    except Exception:  # noqa: BLE001 - one plug-in's boundary: it is put aside when it is fed, not here
        return History()


def history_candles(strategies: Iterable[tuple[Stream, BaseStrategy]], now: datetime) -> dict[Stream, int]:
    """Return how many closed candles before `now` each stream must hold for all its strategies to speak at once.

    Example: macd and an ema_crossover of 21 on one stream -> 363, what macd asks for.
    """
    found: dict[Stream, int] = {}
    for stream, strategy in strategies:
        width = TIMEFRAME_DELTA[stream[1]]
        start = needed_history(strategy, now).start(now, stream[1])
        found[stream] = max(found.get(stream, 0), -(-(now - start) // width))
    return found

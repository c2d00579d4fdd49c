"""The newest candles that this process has stored itself, kept as they would be read back.

In one process every service reads the same candles a moment after the collector has written them: taken from here
they need not be made from text again for each. The shelf is a copy and never more than that: it answers only where it
holds everything that the table holds, and a stream leaves it while a transaction is changing it, so that one that
fails leaves nothing behind.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shared.models import Candle

CANDLES_MAX = 20_000  # about 15 MB
type Stream = tuple[str, str]


@dataclass(slots=True)
class CandleRun:
    """All stored candles of one stream that open after `after` (None: all there are), oldest first."""

    after: datetime | None
    candles: list[Candle] = field(default_factory=list)

    @property
    def last_open_time(self) -> datetime | None:
        """Return where the run ends; where it begins while it is empty."""
        return self.candles[-1].open_time if self.candles else self.after

    def drop(self, count: int) -> None:
        """Forget the oldest `count` candles."""
        if count:
            self.after = self.candles[count - 1].open_time
            del self.candles[:count]


class CandleShelf:
    """One run for each stream that was written lately; at most `candles_max` candles in all."""

    def __init__(self, candles_max: int = CANDLES_MAX) -> None:
        self._candles_max = candles_max
        self._runs: dict[Stream, CandleRun] = {}
        self._candles = 0
        self._version: int | None = None

    def found_at(self, version: int) -> None:
        """Hear the database's count of what others have committed; when it has moved, nothing here is sure any more."""
        if version != self._version:
            self._runs.clear()
            self._candles, self._version = 0, version

    def withdraw(self, stream: Stream) -> CandleRun | None:
        """Take a stream off the shelf, because a transaction is about to change it."""
        run = self._runs.pop(stream, None)
        if run is not None:
            self._candles -= len(run.candles)
        return run

    def put(self, stream: Stream, run: CandleRun) -> None:
        """Put a stream on the shelf as the table has it, once that is committed."""
        self.withdraw(stream)
        self._runs[stream] = run
        self._candles += len(run.candles)
        while self._candles > self._candles_max:
            self._shorten()

    def read(self, stream: Stream, after: datetime | None, until: datetime, limit: int) -> list[Candle] | None:
        """Return the candles with after < open_time <= until, at most `limit`; None where only the table knows.

        A run that ends before `until` does not answer: the table may hold what somebody else has stored since.
        """
        run = self._runs.get(stream)
        if run is None or (run.after is not None and (after is None or after < run.after)):
            return None
        if not run.candles or run.candles[-1].open_time < until:
            return None
        start = 0 if after is None else bisect_right(run.candles, after, key=_open_time)
        stop = bisect_right(run.candles, until, lo=start, key=_open_time)
        return run.candles[start : min(stop, start + limit)]

    def _shorten(self) -> None:
        """Let the stream that has waited longest for news lose the older half of its run."""
        stream = next(iter(self._runs))
        run = self._runs[stream]
        count = (len(run.candles) + 1) // 2
        run.drop(count)
        self._candles -= count
        if not run.candles:
            del self._runs[stream]


def grown(run: CandleRun | None, last_open_time: datetime | None, candles: Sequence[Candle]) -> CandleRun:
    """Return the run with `candles` at its end, which the table holds after `last_open_time`.

    A run that does not end there missed what somebody else stored, and is begun anew.
    """
    if run is None or run.last_open_time != last_open_time:
        run = CandleRun(last_open_time)
    run.candles.extend(candles)
    return run


def by_stream(batch: Iterable[Candle]) -> dict[Stream, list[Candle]]:
    """Return the candles of each stream, in their order."""
    streams: dict[Stream, list[Candle]] = {}
    for candle in batch:
        stream = (candle.symbol, candle.timeframe)
        candles = streams.get(stream)
        if candles is None:
            candles = streams[stream] = []
        candles.append(candle)
    return streams


def follows(last: datetime | None, candles: Sequence[Candle]) -> bool:
    """Return whether candles are in the order of time, each once, and after `last`."""
    for candle in candles:
        open_time = candle.open_time
        if last is not None and open_time <= last:
            return False
        last = open_time
    return True


def _open_time(candle: Candle) -> datetime:
    return candle.open_time

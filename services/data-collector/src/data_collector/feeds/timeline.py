"""What the deterministic feeds share: many streams of arrays become one ordered, paced run of batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from data_collector.feeds.port import FeedBatch, StreamKey
from shared.clock import Clock
from shared.models import TIMEFRAME_SECONDS, Candle, from_milliseconds

BATCH_CANDLES_MAX = 500
CATCH_UP_SECONDS_MAX = 1.0  # a run that is later than this goes on from now instead of hurrying

type FloatArray = npt.NDArray[np.float64]
type IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class StreamColumns:
    """Candles of one stream as arrays of one length, oldest first; times in milliseconds since 1970 UTC."""

    stream: StreamKey
    open_time_ms: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray

    @property
    def timeframe_ms(self) -> int:
        """Return the candle's length in milliseconds."""
        return TIMEFRAME_SECONDS[self.stream.timeframe] * 1000

    def part(self, start: int, stop: int) -> StreamColumns:
        """Return rows `start` up to before `stop`, without a copy."""
        rows = slice(start, stop)
        return StreamColumns(
            self.stream,
            self.open_time_ms[rows],
            self.open[rows],
            self.high[rows],
            self.low[rows],
            self.close[rows],
            self.volume[rows],
        )

    def closing_within(self, after_ms: int, until_ms: int) -> StreamColumns:
        """Return the rows with after_ms < close time <= until_ms."""
        step = self.timeframe_ms
        start, stop = np.searchsorted(self.open_time_ms, [after_ms - step, until_ms - step], side="right").tolist()
        return self.part(start, stop)

    def opening_within(self, since_ms: int, until_ms: int) -> StreamColumns:
        """Return the rows with since_ms <= open time < until_ms."""
        start, stop = np.searchsorted(self.open_time_ms, [since_ms, until_ms]).tolist()
        return self.part(start, stop)


class MergedWindow:
    """Candles of several streams ordered by (close time, symbol, timeframe), built only when asked for."""

    def __init__(self, parts: Sequence[StreamColumns]) -> None:
        parts = sorted((part for part in parts if len(part.open_time_ms)), key=lambda part: part.stream)
        self._streams = [part.stream for part in parts]
        empty = np.empty(0, dtype=np.int64)
        ranks = np.concatenate([empty, *(np.full(len(p.open_time_ms), i, np.int64) for i, p in enumerate(parts))])
        close_ms = np.concatenate([empty, *(p.open_time_ms + p.timeframe_ms for p in parts)])
        order = np.lexsort((ranks, close_ms))
        self._ranks, self.close_time_ms = ranks[order], close_ms[order]
        self._open_ms = np.concatenate([empty, *(p.open_time_ms for p in parts)])[order]
        self._columns = [
            np.concatenate([np.empty(0), *(getattr(p, name) for p in parts)])[order]
            for name in ("open", "high", "low", "close", "volume")
        ]
        changes = np.flatnonzero(np.diff(self.close_time_ms)) + 1
        self.ends: IntArray = np.append(changes, len(order)) if len(order) else empty

    def __len__(self) -> int:
        return len(self.close_time_ms)

    def cut(self, start: int, rows_max: int) -> int:
        """Return the end of the longest run of whole close times from `start`: at least one, else at most rows_max."""
        following = self.ends[np.searchsorted(self.ends, start, side="right") :]
        within = int(np.searchsorted(following, start + rows_max, side="right"))
        return int(following[max(within - 1, 0)])

    def candles(self, start: int, stop: int) -> tuple[Candle, ...]:
        """Return rows `start` up to before `stop`; floats become Decimal by their repr."""
        rows = slice(start, stop)
        opens, highs, lows, closes, volumes = (
            map(Decimal, map(repr, column[rows].tolist())) for column in self._columns
        )
        moments: dict[int, datetime] = {}
        built: list[Candle] = []
        streams = self._streams
        for rank, open_ms, first, high, low, close, volume in zip(
            self._ranks[rows].tolist(), self._open_ms[rows].tolist(), opens, highs, lows, closes, volumes, strict=True
        ):
            moment = moments.get(open_ms)
            if moment is None:
                moment = moments[open_ms] = datetime.fromtimestamp(open_ms // 1000, UTC)  # on the grid: whole seconds
            symbol, timeframe = streams[rank]
            built.append(
                Candle(
                    symbol=symbol,
                    timeframe=timeframe,
                    open_time=moment,
                    open=first,
                    high=high,
                    low=low,
                    close=close,
                    volume=volume,
                )
            )
        return tuple(built)


class Pace:
    """When a close time is due: at `speed` times real time after an anchor, or at once when speed is None.

    A first close time without an anchor is due at once. A run more than a second late goes on from now.
    """

    def __init__(self, clock: Clock, speed: float | None, *, anchor_ms: int | None = None) -> None:
        self._clock = clock
        self._speed = speed
        self._anchor_ms = anchor_ms
        self._anchor_at: float | None = None

    def is_due(self, close_ms: int) -> bool:
        """Return whether a close time may be sent now."""
        return self._seconds_left(close_ms) <= 0

    async def wait(self, close_ms: int) -> None:
        """Wait until a close time is due."""
        left = self._seconds_left(close_ms)
        if left > 0:
            await self._clock.sleep(left)
        elif left < -CATCH_UP_SECONDS_MAX:
            self._anchor_ms, self._anchor_at = close_ms, self._clock.monotonic()

    def _seconds_left(self, close_ms: int) -> float:
        if self._speed is None or (self._anchor_at is None and self._passed(close_ms)):
            return 0.0
        now = self._clock.monotonic()
        if self._anchor_ms is None or self._anchor_at is None:
            self._anchor_ms = close_ms if self._anchor_ms is None else self._anchor_ms
            self._anchor_at = now
        return self._anchor_at + (close_ms - self._anchor_ms) / 1000 / self._speed - now

    def _passed(self, close_ms: int) -> bool:
        return self._anchor_ms is not None and close_ms <= self._anchor_ms


async def paced_batches(
    windows: Iterator[MergedWindow], pace: Pace, rows_max: int = BATCH_CANDLES_MAX
) -> AsyncIterator[FeedBatch]:
    """Yield whole close times in order, each when it is due, at most `rows_max` candles at once.

    A close time is never split, also when it alone holds more than `rows_max` candles.
    """
    for window in windows:
        start = 0
        while start < len(window):
            await pace.wait(int(window.close_time_ms[start]))
            limit = window.cut(start, rows_max)
            stop = window.cut(start, 1)
            if pace.is_due(int(window.close_time_ms[limit - 1])):
                stop = limit
            while stop < limit and pace.is_due(int(window.close_time_ms[stop])):
                stop = window.cut(stop, 1)
            watermark = from_milliseconds(int(window.close_time_ms[stop - 1]))
            yield FeedBatch(candles=window.candles(start, stop), watermark=watermark)
            start = stop

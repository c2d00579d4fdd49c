"""Recorded candles, several files merged into one run of time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from data_collector.feeds.port import FeedBatch, ResumePoint, StreamKey
from data_collector.feeds.timeline import BATCH_CANDLES_MAX, MergedWindow, Pace, StreamColumns, paced_batches
from shared.candle_files import CandleFile, read_candle_file
from shared.clock import Clock
from shared.errors import ConfigError
from shared.models import Candle, to_milliseconds

WINDOW_CANDLES_MAX = 1000  # of the shortest timeframe, in each stream: what is merged at once
HISTORY_ROWS_MAX = 1000


class ReplayFeed:
    """Plays candle files ordered by (close time, symbol, timeframe), then ends.

    Files stay in memory as arrays (48 bytes a candle); candles are built a batch at a time.
    """

    name = "replay"
    deterministic = True
    identity = "replay"

    def __init__(
        self,
        files: Iterable[CandleFile],
        clock: Clock,
        *,
        speed: float | None = None,
        batch_candles_max: int = BATCH_CANDLES_MAX,
    ) -> None:
        columns = [_columns(file) for file in files]
        self._columns = {column.stream: column for column in columns}
        if not columns:
            raise ConfigError("data: replay needs at least one file; give --data BTC/USDT:1m=FILE")
        if len(self._columns) < len(columns):
            streams = sorted(column.stream for column in columns)
            twice = next(a for a, b in pairwise(streams) if a == b)
            raise ConfigError(f"data: {twice} is given twice; join its files into one")
        self._clock = clock
        self._speed = speed
        self._batch_candles_max = batch_candles_max

    @classmethod
    def read(
        cls,
        paths: Mapping[StreamKey, Path],
        clock: Clock,
        *,
        speed: float | None = None,
        batch_candles_max: int = BATCH_CANDLES_MAX,
    ) -> ReplayFeed:
        """Return a feed of the files of `paths`, each read and checked wholly."""
        files = [
            read_candle_file(path, symbol=stream.symbol, timeframe=stream.timeframe) for stream, path in paths.items()
        ]
        return cls(files, clock, speed=speed, batch_candles_max=batch_candles_max)

    @property
    def last_close_ms(self) -> int:
        """Return the close time of the last candle of all files."""
        return max(int(column.open_time_ms[-1]) + column.timeframe_ms for column in self._columns.values())

    def streams(self) -> Sequence[StreamKey]:
        """Return every stream served, sorted."""
        return sorted(self._columns)

    async def history(self, symbol: str, timeframe: str, since: datetime, until: datetime) -> Sequence[Candle]:
        """Return the recorded candles with since <= open_time < until, the first `HISTORY_ROWS_MAX` of them."""
        column = self._columns[StreamKey(symbol, timeframe)]
        part = column.opening_within(to_milliseconds(since), to_milliseconds(until))
        window = MergedWindow([part])
        return window.candles(0, min(len(window), HISTORY_ROWS_MAX))

    def batches(self, resume: ResumePoint) -> AsyncIterator[FeedBatch]:
        """Return the batches that close after `resume.watermark`, the first of them at once."""
        pace = Pace(self._clock, self._speed)
        return paced_batches(self._windows(resume.watermark_ms), pace, self._batch_candles_max)

    async def close(self) -> None:
        """Hold nothing open."""

    def _windows(self, after_ms: int | None) -> Iterator[MergedWindow]:
        columns = list(self._columns.values())
        span_ms = WINDOW_CANDLES_MAX * min(column.timeframe_ms for column in columns)
        after = -1 if after_ms is None else after_ms
        while (following := _next_close_ms(columns, after)) is not None:
            until = following - 1 + span_ms
            yield MergedWindow([column.closing_within(after, until) for column in columns])
            after = until


def _next_close_ms(columns: Sequence[StreamColumns], after_ms: int) -> int | None:
    closes = []
    for column in columns:
        step = column.timeframe_ms
        row = int(column.open_time_ms.searchsorted(after_ms - step, side="right"))
        if row < len(column.open_time_ms):
            closes.append(int(column.open_time_ms[row]) + step)
    return min(closes, default=None)


def _columns(file: CandleFile) -> StreamColumns:
    return StreamColumns(
        StreamKey(file.symbol, file.timeframe),
        file.open_time_ms,
        file.open,
        file.high,
        file.low,
        file.close,
        file.volume,
    )

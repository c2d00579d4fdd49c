"""Recorded candles in Parquet or CSV files: read once, checked wholly, refused with the row and the remedy.

A file has the columns `open_time` (UTC), `open`, `high`, `low`, `close`, `volume`; others are ignored, but for
`symbol` and `timeframe`, which must agree with what is asked. Holes are facts, kept in `gaps`; everything else
that is wrong is an error. polars is loaded only when a file is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from shared.candle_columns import CandleColumns, parse_columns, shortest_step_ms
from shared.errors import ConfigError, MarketDataError
from shared.models import (
    TIMEFRAME_DELTA,
    TIMEFRAME_SECONDS,
    Candle,
    from_milliseconds,
    split_symbol,
    to_milliseconds,
    to_utc,
)

FILE_BYTES_MAX = 2 * 1024**3
CANDLE_CHUNK_ROWS_MAX = 8192

type FloatArray = npt.NDArray[np.float64]
type IntArray = npt.NDArray[np.int64]


class CandleGap(msgspec.Struct, frozen=True, kw_only=True):
    """A hole: `start` is the first missing open time, `end` the next one that is there."""

    start: datetime
    end: datetime
    candles_missing: int


@dataclass(frozen=True, eq=False, kw_only=True)
class CandleFile:
    """The candles of one stream in a file, oldest first, as arrays and as an iterator of `Candle`.

    `open_time_ms` is int64 milliseconds since 1970 UTC; prices and volume are float64 of the same length.
    `history` holds the file's candles before the asked start, if there are any.
    """

    path: Path
    symbol: str
    timeframe: str
    sha256: str
    open_time_ms: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    history: CandleFile | None = None

    @property
    def rows(self) -> int:
        """Return how many candles there are; at least one."""
        return len(self.open_time_ms)

    @property
    def first(self) -> datetime:
        """Return the open time of the first candle."""
        return from_milliseconds(int(self.open_time_ms[0]))

    @property
    def last(self) -> datetime:
        """Return the open time of the last candle."""
        return from_milliseconds(int(self.open_time_ms[-1]))

    @property
    def timeframe_ms(self) -> int:
        """Return the candle's length in milliseconds."""
        return TIMEFRAME_SECONDS[self.timeframe] * 1000

    @cached_property
    def gaps(self) -> tuple[CandleGap, ...]:
        """Return every hole between the first and the last candle, oldest first."""
        step = self.timeframe_ms
        before = np.flatnonzero(np.diff(self.open_time_ms) > step)
        starts = (self.open_time_ms[before] + step).tolist()
        ends = self.open_time_ms[before + 1].tolist()
        return tuple(
            CandleGap(start=from_milliseconds(a), end=from_milliseconds(b), candles_missing=(b - a) // step)
            for a, b in zip(starts, ends, strict=True)
        )

    @property
    def gap_count(self) -> int:
        """Return how many holes there are."""
        return int((np.diff(self.open_time_ms) > self.timeframe_ms).sum())

    @property
    def candles_missing(self) -> int:
        """Return how many candles the gaps hold together."""
        span = int(self.open_time_ms[-1] - self.open_time_ms[0]) // self.timeframe_ms + 1
        return span - self.rows

    def candles(self, start: int = 0, stop: int | None = None) -> Iterator[Candle]:
        """Yield candles number `start` up to before `stop`, built in chunks; floats become Decimal by their repr."""
        begin, end, _ = slice(start, stop).indices(self.rows)
        delta = TIMEFRAME_DELTA[self.timeframe]
        step = self.timeframe_ms
        for low in range(begin, end, CANDLE_CHUNK_ROWS_MAX):
            part = slice(low, min(end, low + CANDLE_CHUNK_ROWS_MAX))
            times = self.open_time_ms[part].tolist()
            columns = [
                list(map(Decimal, map(repr, array[part].tolist())))
                for array in (self.open, self.high, self.low, self.close, self.volume)
            ]
            moment, previous = from_milliseconds(times[0]), times[0]
            for row, milliseconds in enumerate(times):
                distance = milliseconds - previous
                moment = moment + delta if distance == step else from_milliseconds(milliseconds)
                previous = milliseconds
                yield Candle(
                    symbol=self.symbol,
                    timeframe=self.timeframe,
                    open_time=moment,
                    open=columns[0][row],
                    high=columns[1][row],
                    low=columns[2][row],
                    close=columns[3][row],
                    volume=columns[4][row],
                )

    def _part(self, part: slice) -> CandleFile:
        return replace(
            self,
            open_time_ms=self.open_time_ms[part],
            open=self.open[part],
            high=self.high[part],
            low=self.low[part],
            close=self.close[part],
            volume=self.volume[part],
            history=None,
        )

    def window(self, start: datetime | None, end: datetime | None) -> CandleFile:
        """Return the candles with start <= open_time < end; those before `start` become `history`."""
        begin, stop = 0, self.rows
        if start is not None:
            begin = int(np.searchsorted(self.open_time_ms, to_milliseconds(start)))
        if end is not None:
            stop = int(np.searchsorted(self.open_time_ms, to_milliseconds(end)))
        if begin >= stop:
            raise ConfigError(
                f"{self.path}: no candle from {_shown(start)} to before {_shown(end, 'the end')}; "
                f"the file holds {_shown(self.first)} to {_shown(self.last)}"
            )
        if (begin, stop) == (0, self.rows):
            return self
        past = self._part(slice(0, begin)) if begin else None
        return replace(self._part(slice(begin, stop)), history=past)


def read_candle_file(
    path: Path, *, symbol: str, timeframe: str, start: datetime | None = None, end: datetime | None = None
) -> CandleFile:
    """Return the checked candles of a Parquet or CSV file with start <= open_time < end.

    Parameters
    ----------
    path : Path
        A `.parquet` or `.csv` file of one symbol and one timeframe, sorted by `open_time`.
    symbol, timeframe : str
        What the candles are, `BASE/QUOTE` and one of the twelve timeframes; times must lie on its grid.
    start, end : datetime, optional
        Aware times. The whole file is checked, also outside the window.

    Returns
    -------
    CandleFile
        At least one candle. `sha256` is of the whole file's bytes, the same ones that were parsed.

    Raises
    ------
    ConfigError
        The path, the window, the symbol, the timeframe or the columns are not what is needed.
    MarketDataError
        The content is wrong: unreadable, empty, unsorted, duplicate, off the grid, not finite, <= 0, high < low.
    """
    check_stream(symbol, timeframe)
    start, end = checked_window(start, end)
    content = _read_bytes(path)
    columns = parse_columns(path, content, symbol=symbol, timeframe=timeframe)
    return _to_file(path, content, columns, symbol, timeframe).window(start, end)


def finest_timeframe(path: Path) -> str:
    """Return the timeframe of a candle file: the shortest distance between two of its candles that lie in a row.

    A file that cannot be read, that is not sorted or whose shortest distance is no timeframe is refused as
    `read_candle_file` does.
    """
    step = shortest_step_ms(path, _read_bytes(path))
    for name, seconds in TIMEFRAME_SECONDS.items():
        if seconds * 1000 == step:
            return name
    raise MarketDataError(
        f"{path}: its candles lie {step / 1000:g} s apart, which is no timeframe; known: {', '.join(TIMEFRAME_SECONDS)}"
    )


def _to_file(path: Path, content: bytes, columns: CandleColumns, symbol: str, timeframe: str) -> CandleFile:
    for array in columns:
        array.flags.writeable = False  # many readers share one file's arrays
    return CandleFile(
        path=path,
        symbol=symbol,
        timeframe=timeframe,
        sha256=hashlib.sha256(content).hexdigest(),
        open_time_ms=columns.open_time_ms,
        open=columns.open,
        high=columns.high,
        low=columns.low,
        close=columns.close,
        volume=columns.volume,
    )


def check_stream(symbol: str, timeframe: str) -> None:
    """Refuse a timeframe that is not one of the twelve and a symbol that is not `BASE/QUOTE`."""
    if timeframe not in TIMEFRAME_SECONDS:
        near = get_close_matches(timeframe.lower(), TIMEFRAME_SECONDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(TIMEFRAME_SECONDS)}"
        raise ConfigError(f"timeframe: {timeframe!r} is unknown; {hint}")
    try:
        split_symbol(symbol)
    except ValueError as error:
        raise ConfigError(f"{error}; write it like BTC/USDT") from None
    if ":" in symbol or not symbol.isprintable() or " " in symbol:
        raise ConfigError(
            f"symbol {symbol!r} is not of the form BASE/QUOTE; write it like BTC/USDT, the timeframe apart"
        )


def checked_window(start: datetime | None, end: datetime | None) -> tuple[datetime | None, datetime | None]:
    """Return both times in UTC; a naive one, or an end that is not after the start, is a ConfigError."""
    try:
        start = None if start is None else to_utc(start, "start")
        end = None if end is None else to_utc(end, "end")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if start is not None and end is not None and end <= start:
        raise ConfigError(f"end: {_shown(end)} is not after start {_shown(start)}; give a later end")
    return start, end


def _read_bytes(path: Path) -> bytes:
    if path.suffix.lower() not in (".parquet", ".csv"):
        raise ConfigError(f"{path}: expected a .parquet or .csv file, was {path.suffix or 'a name without ending'!r}")
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name one .parquet or .csv file in it")
    if not path.is_file():
        near = (
            get_close_matches(path.name, [p.name for p in path.parent.glob("*")], n=1) if path.parent.is_dir() else []
        )
        hint = f"did you mean {near[0]!r}?" if near else "check the path"
        raise ConfigError(f"{path}: no such file; {hint}")
    try:
        size = path.stat().st_size
        if size == 0:
            raise MarketDataError(f"{path}: the file is empty (0 bytes); was its download or export cut off?")
        if size > FILE_BYTES_MAX:
            raise MarketDataError(f"{path}: {size:,} bytes, at most {FILE_BYTES_MAX:,}; split it by time")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _shown(moment: datetime | None, otherwise: str = "the beginning") -> str:
    return otherwise if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"

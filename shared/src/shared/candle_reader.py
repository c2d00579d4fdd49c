"""How a consumer reads on: stored candles after its own cursors, whole close times only, in business order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from shared.db import Database
from shared.models import Candle, from_milliseconds, to_milliseconds

Stream = tuple[str, str]


class CandleReader:
    """One consumer's place in every stream; the caller stores `cursors` in the transaction of its effects."""

    def __init__(self, database: Database, consumer: str, streams: Iterable[Stream], rows_max: int) -> None:
        self.streams = sorted(streams)
        self.watermark: datetime | None = None
        self._database = database
        self._consumer = consumer
        self._rows_max = rows_max
        self._open_times: dict[Stream, datetime] = {}

    async def load(self) -> None:
        """Take up the cursors that the last commit stored."""
        cursors = await self._database.read_cursors(f"{self._consumer}/")
        prefix = f"{self._consumer}/candles/"
        self._open_times = {
            stream_of(name.removeprefix(prefix)): from_milliseconds(int(value))
            for name, value in cursors.items()
            if name.startswith(prefix)
        }
        stored = cursors.get(f"{self._consumer}/watermark")
        self.watermark = from_milliseconds(int(stored)) if stored is not None else None

    def open_time(self, stream: Stream) -> datetime | None:
        """Return the open time of the last candle handled of a stream."""
        return self._open_times.get(stream)

    async def page(self, session: AsyncSession, until: datetime | None) -> tuple[list[Candle], datetime | None]:
        """Return the next candles closed by `until` (None: all there are) and the close time they are whole up to."""
        wanted = [(symbol, timeframe, self._open_times.get((symbol, timeframe))) for symbol, timeframe in self.streams]
        rows = await self._database.read_candles_of(wanted, until, self._rows_max, session)
        if until is None:
            newest = [candles[-1].close_time for candles in rows.values() if candles]
            if not newest:
                return [], None
            until = max(newest)
        return whole_close_times(rows, until, self._rows_max)

    def cursors(self, candles: Sequence[Candle], watermark: datetime) -> dict[str, int]:
        """Return the cursor rows that say: `candles` and everything up to `watermark` are handled."""
        rows = {
            f"{self._consumer}/candles/{symbol}/{timeframe}": to_milliseconds(moment)
            for (symbol, timeframe), moment in last_open_times(candles, len(self.streams)).items()
        }
        rows[f"{self._consumer}/watermark"] = to_milliseconds(watermark)
        return rows

    def advance(self, candles: Sequence[Candle], watermark: datetime) -> None:
        """Move on, after the commit."""
        self._open_times.update(last_open_times(candles, len(self.streams)))
        self.watermark = watermark


def stream_of(text: str) -> Stream:
    """Return (symbol, timeframe) of `SYMBOL/timeframe`, the last part of a cursor's name."""
    symbol, _, timeframe = text.rpartition("/")
    return symbol, timeframe


def last_open_times(candles: Sequence[Candle], streams_max: int | None = None) -> dict[Stream, datetime]:
    """Return each stream's last open time; the search ends when `streams_max` streams were found."""
    found: dict[Stream, datetime] = {}
    for candle in reversed(candles):
        found.setdefault((candle.symbol, candle.timeframe), candle.open_time)
        if len(found) == streams_max:
            break
    return found


def whole_close_times(
    rows: Mapping[Stream, Sequence[Candle]], until: datetime, rows_max: int
) -> tuple[list[Candle], datetime]:
    """Return the candles of wholly read close times in business order, and the close time they reach.

    A stream that filled its page may hold more than was read, so nothing after its last candle is whole.
    """
    horizon = until
    for candles in rows.values():
        if len(candles) >= rows_max:
            horizon = min(horizon, candles[-1].close_time)
    whole = [_closed_by(candles, horizon) for candles in rows.values() if candles]
    if len(whole) == 1:  # one stream is in order already
        return whole[0], horizon
    merged = [candle for candles in whole for candle in candles]
    merged.sort(key=lambda candle: (candle.close_time, candle.symbol, candle.timeframe))
    return merged, horizon


def _closed_by(candles: Sequence[Candle], horizon: datetime) -> list[Candle]:
    if candles[-1].close_time <= horizon:
        return list(candles)
    return [candle for candle in candles if candle.close_time <= horizon]

"""Candles for a run: from a Parquet or CSV file, or from the platform's own database (`db:`)."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from backtester.simulated_data import SIMULATED_SOURCE, simulated_candles
from shared.candle_files import CandleFile, check_stream, checked_window, read_candle_file
from shared.errors import ConfigError
from shared.models import Candle, from_milliseconds, to_milliseconds

if TYPE_CHECKING:
    from shared.db import Database

DATABASE_SOURCE = "db:"
DATABASE_PAGE_ROWS_MAX = 10_000
AGREEMENT = 1e-9  # two programs write the same trades with float64's rounding between them, not more

type CandleData = CandleFile


class DataFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the report says about the candles; `gaps` counts the holes, `candles_missing` what they hold together."""

    path: str
    rows: int
    first: datetime
    last: datetime
    gaps: int
    sha256: str
    candles_missing: int = 0

    @classmethod
    def of(cls, data: CandleData) -> DataFacts:
        """Return the facts of loaded candles."""
        return cls(
            path=str(data.path),
            rows=data.rows,
            first=data.first,
            last=data.last,
            gaps=data.gap_count,
            sha256=data.sha256,
            candles_missing=data.candles_missing,
        )


def load_candles(
    source: Path | str,
    symbol: str,
    timeframe: str,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    database_url: str | None = None,
) -> CandleData:
    """Return the candles of one stream with start <= open_time < end, at least one, as arrays and as an iterator.

    `source` is a file's path, `simulated:DAYS`, or `db:`, which needs `database_url`. What lies before `start` is in
    `.history`.
    Bad input is a ConfigError or MarketDataError that names the place and the remedy.
    """
    if str(source).startswith(SIMULATED_SOURCE):
        return simulated_candles(str(source), symbol, timeframe).window(*checked_window(start, end))
    if str(source) != DATABASE_SOURCE:
        return read_candle_file(Path(source), symbol=symbol, timeframe=timeframe, start=start, end=end)
    if database_url is None:
        raise ConfigError("data: db: needs a database, none was named; give the state directory or a database URL")
    return asyncio.run(_load_from_url(database_url, symbol, timeframe, start, end))


def odd_candles(data: CandleData) -> list[str]:
    """Return a sentence about candles whose open or close lies outside their own range, where there are any.

    They are run as they stand: a fill at such an open is what the data says.
    """
    slack = AGREEMENT * data.high
    lowest, highest = np.minimum(data.open, data.close), np.maximum(data.open, data.close)
    rows = np.flatnonzero((lowest < data.low - slack) | (highest > data.high + slack))
    if not len(rows):
        return []
    first = from_milliseconds(int(data.open_time_ms[rows[0]]))
    where = f"the first {first:%Y-%m-%d %H:%M} UTC"
    return [f"{len(rows):,} candle(s) open or close outside their low to high, {where}; check the data's columns"]


async def read_database_candles(
    database: Database, symbol: str, timeframe: str, start: datetime | None = None, end: datetime | None = None
) -> CandleData:
    """Return the stored candles of one stream; `sha256` is of their values, as there is no file."""
    check_stream(symbol, timeframe)
    start, end = checked_window(start, end)
    candles: list[Candle] = []
    after: datetime | None = None
    while page := await database.read_candles(symbol, timeframe, after, end, DATABASE_PAGE_ROWS_MAX):
        candles.extend(page)
        after = page[-1].open_time
    if not candles:
        raise ConfigError(f"data: the database holds no {symbol} {timeframe} candles; collect some or name a file")
    return _to_data(candles, symbol, timeframe).window(start, end)


async def _load_from_url(
    database_url: str, symbol: str, timeframe: str, start: datetime | None, end: datetime | None
) -> CandleData:
    from shared.db import Database  # loads SQLAlchemy, only where used
    from shared.db_url import parse_database_url

    target = parse_database_url(database_url)
    if target.path is not None and not target.path.is_file():
        raise ConfigError(f"data: db: {target.path} does not exist; give --state, --database-url or a file of candles")
    database = Database(database_url)
    try:
        return await read_database_candles(database, symbol, timeframe, start, end)
    finally:
        await database.close()


def _to_data(candles: list[Candle], symbol: str, timeframe: str) -> CandleData:
    times = np.array([to_milliseconds(candle.open_time) for candle in candles], dtype=np.int64)
    numbers = np.array([(c.open, c.high, c.low, c.close, c.volume) for c in candles], dtype=np.float64).T.copy()
    open_, high, low, close, volume = numbers
    return CandleFile(
        path=Path(DATABASE_SOURCE),
        symbol=symbol,
        timeframe=timeframe,
        sha256=hashlib.sha256(times.tobytes() + numbers.tobytes()).hexdigest(),
        open_time_ms=times,
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=volume,
    )

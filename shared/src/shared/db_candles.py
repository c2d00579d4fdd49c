"""Candles in bulk: written with their revisions, read in the order of time.

These are the busiest statements of the platform, so they are plain SQL in the driver's own style.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from shared.db_rows import dialect_of, execute_driver, insert_rows
from shared.models import TIMEFRAME_DELTA, Candle
from shared.sa_models import CandleRow
from shared.sa_types import money_to_numeric, money_to_text, utc_to_text

CANDLE_COLUMNS = ("symbol", "timeframe", "open_time", "open", "high", "low", "close", "volume")
STREAMS_PER_STATEMENT_MAX = 200
_NAMES = ", ".join(CANDLE_COLUMNS)
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
_END = datetime(9999, 12, 31, tzinfo=UTC)

_KNOWN = {
    "sqlite": (
        "SELECT c.open_time, c.open, c.high, c.low, c.close, c.volume FROM json_each(?3) k "
        "CROSS JOIN candles c ON c.symbol = ?1 AND c.timeframe = ?2 AND c.open_time = k.value"
    ),
    "postgresql": (
        "SELECT open_time, open, high, low, close, volume FROM candles "
        "WHERE symbol = $1 AND timeframe = $2 AND open_time = ANY($3::timestamptz[]) ORDER BY open_time FOR UPDATE"
    ),
}
_SAME_CANDLE = "symbol = {0}1 AND timeframe = {0}2 AND open_time = {0}3"
_KEEP_REVISION = (
    "INSERT INTO candle_revisions (symbol, timeframe, open_time, revision, open, high, low, close, volume, recorded_at) "
    "SELECT symbol, timeframe, open_time, "
    f"(SELECT COALESCE(MAX(revision), 0) + 1 FROM candle_revisions WHERE {_SAME_CANDLE}), "
    f"open, high, low, close, volume, {{0}}4 FROM candles WHERE {_SAME_CANDLE}"
)
_REPLACE = (
    "UPDATE candles SET open = {0}4, high = {0}5, low = {0}6, close = {0}7, volume = {0}8 "
    f"WHERE {_SAME_CANDLE}"
)

type Stream = tuple[str, str]
type Values = tuple[Decimal, Decimal, Decimal, Decimal, Decimal]


class CandleWrite(NamedTuple):
    """What a batch did; `new` are the inserted candles in the batch's order, the only ones to be announced."""

    inserted: int
    revised: int
    unchanged: int
    new: tuple[Candle, ...] = ()


async def write_candles(session: AsyncSession, batch: Sequence[Candle], recorded_at: datetime) -> CandleWrite:
    """Store candles: unknown ones are inserted, differing ones kept as a revision and replaced, equal ones left."""
    new: list[Candle] = []
    revised = unchanged = 0
    for (symbol, timeframe), candles in _by_stream(batch).items():
        known = await _known_values(session, symbol, timeframe, candles)
        changes: list[Candle] = []
        fresh: dict[datetime, Candle] = {}
        for candle in candles:
            stored = known.get(candle.open_time)
            if stored is None:
                known[candle.open_time] = _values(candle)
                fresh[candle.open_time] = candle
            elif stored == _values(candle):
                unchanged += 1
            else:
                known[candle.open_time] = _values(candle)
                changes.append(candle)
        await _insert(session, sorted(fresh.values(), key=lambda candle: candle.open_time))
        for candle in changes:
            await _revise(session, candle, recorded_at)
        revised += len(changes)
        new.extend(fresh.values())
    return CandleWrite(len(new), revised, unchanged, tuple(new))


async def read_stream(
    session: AsyncSession,
    stream: Stream,
    after_open_time: datetime | None,
    until_open_time: datetime | None,
    limit: int,
) -> list[Candle]:
    """Return candles of one stream with after < open_time <= until, oldest first, at most `limit`."""
    found = await read_streams(session, [(*stream, after_open_time, until_open_time)], limit)
    return found[stream]


async def read_streams(
    session: AsyncSession,
    streams: Sequence[tuple[str, str, datetime | None, datetime | None]],
    limit_per_stream: int,
) -> dict[Stream, list[Candle]]:
    """Return for each (symbol, timeframe, after, until) its candles, oldest first."""
    found: dict[Stream, list[Candle]] = {(symbol, timeframe): [] for symbol, timeframe, _, _ in streams}
    for start in range(0, len(streams), STREAMS_PER_STATEMENT_MAX):
        part = streams[start : start + STREAMS_PER_STATEMENT_MAX]
        statement, parameters = _select_streams(dialect_of(session), part, limit_per_stream)
        for row in await execute_driver(session, statement, parameters):
            found[row[0], row[1]].append(_candle(row))
    for candles in found.values():
        if len(candles) > 1 and candles[0].open_time > candles[-1].open_time:
            candles.sort(key=lambda candle: candle.open_time)
    return found


async def read_last(session: AsyncSession, symbol: str, timeframe: str, count: int) -> list[Candle]:
    """Return the newest `count` candles of a stream, oldest first."""
    mark = "?" if dialect_of(session) == "sqlite" else "$"
    statement = (
        f"SELECT {_NAMES} FROM candles WHERE symbol = {mark}1 AND timeframe = {mark}2 "
        f"ORDER BY open_time DESC LIMIT {mark}3"
    )
    rows = (await execute_driver(session, statement, (symbol, timeframe, count))).all()
    return [_candle(row) for row in reversed(rows)]


def until_open_time(timeframe: str, until_close_time: datetime | None) -> datetime | None:
    """Return the last open_time whose candle has closed at `until_close_time`."""
    return None if until_close_time is None else until_close_time - TIMEFRAME_DELTA[timeframe]


def _by_stream(batch: Iterable[Candle]) -> dict[Stream, list[Candle]]:
    streams: dict[Stream, list[Candle]] = {}
    for candle in batch:
        streams.setdefault((candle.symbol, candle.timeframe), []).append(candle)
    return dict(sorted(streams.items()))


async def _known_values(
    session: AsyncSession, symbol: str, timeframe: str, candles: Sequence[Candle]
) -> dict[datetime, Values]:
    dialect = dialect_of(session)
    times: Any = [candle.open_time for candle in candles]
    if dialect == "sqlite":
        times = json.dumps([utc_to_text(moment) for moment in times])
    rows = await execute_driver(session, _KNOWN[dialect], (symbol, timeframe, times))
    return {_moment(row[0]): tuple(map(Decimal, row[1:])) for row in rows}  # type: ignore[misc]


async def _insert(session: AsyncSession, candles: Sequence[Candle]) -> None:
    if not candles:
        return
    if dialect_of(session) == "sqlite":
        text = money_to_text
        rows = [
            (c.symbol, c.timeframe, utc_to_text(c.open_time), text(c.open), text(c.high), text(c.low), text(c.close),
             text(c.volume))
            for c in candles
        ]  # fmt: skip
        await execute_driver(session, f"INSERT INTO candles ({_NAMES}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        return
    # A second collector may have stored the same candle since it was looked for: the first one stays.
    rows_by_name = [{name: getattr(candle, name) for name in CANDLE_COLUMNS} for candle in candles]
    await insert_rows(session, CandleRow, rows_by_name, ignore_conflicts=True)


async def _revise(session: AsyncSession, candle: Candle, recorded_at: datetime) -> None:
    moments: tuple[Any, Any] = (candle.open_time, recorded_at)
    values: tuple[Any, ...] = _values(candle)
    mark = "$"
    if dialect_of(session) == "sqlite":
        mark = "?"
        moments = (utc_to_text(candle.open_time), utc_to_text(recorded_at))
        values = tuple(map(money_to_text, values))
    key = (candle.symbol, candle.timeframe, moments[0])
    await execute_driver(session, _KEEP_REVISION.format(mark), (*key, moments[1]))
    await execute_driver(session, _REPLACE.format(mark), (*key, *values))


def _select_streams(
    dialect: str, streams: Sequence[tuple[str, str, datetime | None, datetime | None]], limit: int
) -> tuple[str, tuple[Any, ...]]:
    selects: list[str] = []
    parameters: list[Any] = [limit]
    sqlite = dialect == "sqlite"
    mark = "?" if sqlite else "$"
    for symbol, timeframe, after, until in streams:
        place = len(parameters)
        a, b, c, d = (f"{mark}{place + offset}" for offset in (1, 2, 3, 4))
        selects.append(
            f"SELECT * FROM (SELECT {_NAMES} FROM candles WHERE symbol = {a} AND timeframe = {b} "
            f"AND open_time > {c} AND open_time <= {d} ORDER BY open_time LIMIT {mark}1) AS s{place}"
        )
        bounds: Sequence[Any] = (after or _BEGINNING, until or _END)
        parameters += [symbol, timeframe, *(map(utc_to_text, bounds) if sqlite else bounds)]
    return " UNION ALL ".join(selects), tuple(parameters)


def _values(candle: Candle) -> Values:
    numeric = money_to_numeric
    return (
        numeric(candle.open), numeric(candle.high), numeric(candle.low), numeric(candle.close), numeric(candle.volume)
    )  # fmt: skip


def _moment(stored: Any) -> datetime:
    return datetime.fromisoformat(stored) if isinstance(stored, str) else stored


def _candle(row: Sequence[Any]) -> Candle:
    symbol, timeframe, moment, open_, high, low, close, volume = row
    if isinstance(moment, str):  # SQLite; asyncpg gives Decimal and datetime
        moment, open_, high, low = datetime.fromisoformat(moment), Decimal(open_), Decimal(high), Decimal(low)
        close, volume = Decimal(close), Decimal(volume)
    return Candle(
        symbol=symbol, timeframe=timeframe, open_time=moment, open=open_, high=high, low=low, close=close, volume=volume
    )

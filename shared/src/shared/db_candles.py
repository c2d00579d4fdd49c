"""Candles in bulk: written with their revisions, read in the order of time.

These are the busiest statements of the platform, so they are plain SQL in the driver's own style.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from shared.candle_shelf import CandleShelf, by_stream, follows, grown
from shared.db_chain import Write
from shared.db_postgres import PostgresConnection
from shared.db_rows import dialect_of
from shared.db_session import change, fetch, numbered, session_of
from shared.models import TIMEFRAME_DELTA, Candle
from shared.sa_types import MONEY_DECIMALS_MAX, money_from_numeric, money_to_numeric, money_to_text, utc_to_text

CANDLE_COLUMNS = ("symbol", "timeframe", "open_time", "open", "high", "low", "close", "volume")
STREAMS_PER_STATEMENT_MAX = 200
_NAMES = ", ".join(CANDLE_COLUMNS)
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
_END = datetime(9999, 12, 31, tzinfo=UTC)

# For each stream the open time of its newest candle; a batch that begins after it needs no further look.
_NEWEST = {
    "sqlite": (
        "SELECT k.value ->> 0, k.value ->> 1, (SELECT MAX(open_time) FROM candles "
        "WHERE symbol = k.value ->> 0 AND timeframe = k.value ->> 1) FROM json_each(?) k"
    ),
    "postgresql": (
        "SELECT k.symbol, k.timeframe, (SELECT MAX(c.open_time) FROM candles c "
        "WHERE c.symbol = k.symbol AND c.timeframe = k.timeframe) "
        "FROM unnest($1::text[], $2::text[]) AS k(symbol, timeframe)"
    ),
}
_KNOWN = {
    "sqlite": (
        "SELECT c.open_time, c.open, c.high, c.low, c.close, c.volume FROM json_each(?) k "
        "CROSS JOIN candles c ON c.open_time = k.value AND c.symbol = ? AND c.timeframe = ?"
    ),
    "postgresql": (
        "SELECT open_time, open, high, low, close, volume FROM candles "
        "WHERE open_time = ANY(string_to_array($1, ',')::timestamptz[]) AND symbol = $2 AND timeframe = $3 "
        "ORDER BY open_time FOR UPDATE"
    ),
}
# A column goes to PostgreSQL as one text and is taken apart there: packing each value by itself takes the driver longer
# than the server takes to store it, and COPY needs a second table to leave known rows alone (docs/database.md).
_SEPARATOR = "\x1f"
# On PostgreSQL a second collector may have stored the same candle since it was looked for: the first one stays.
_INSERT = {
    "sqlite": f"INSERT INTO candles ({_NAMES}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    "postgresql": (
        f"INSERT INTO candles ({_NAMES}) SELECT * FROM unnest("
        "string_to_array($1, E'\\x1f'), string_to_array($2, E'\\x1f'), string_to_array($3, E'\\x1f')::timestamptz[], "
        + ", ".join(f"string_to_array(${place}, E'\\x1f')::numeric[]" for place in range(4, 9))
        + ") ON CONFLICT DO NOTHING"
    ),
}
_KEEP_REVISION = (
    "INSERT INTO candle_revisions (symbol, timeframe, open_time, revision, open, high, low, close, volume, recorded_at) "
    "SELECT c.symbol, c.timeframe, c.open_time, (SELECT COALESCE(MAX(r.revision), 0) + 1 FROM candle_revisions r "
    "WHERE r.symbol = c.symbol AND r.timeframe = c.timeframe AND r.open_time = c.open_time), "
    "c.open, c.high, c.low, c.close, c.volume, ? "
    "FROM candles c WHERE c.symbol = ? AND c.timeframe = ? AND c.open_time = ?"
)
_REPLACE = (
    "UPDATE candles SET open = ?, high = ?, low = ?, close = ?, volume = ? "
    "WHERE symbol = ? AND timeframe = ? AND open_time = ?"
)
_LAST = f"SELECT {_NAMES} FROM candles WHERE symbol = ? AND timeframe = ? ORDER BY open_time DESC LIMIT ?"
_BETWEEN = (
    f"SELECT {_NAMES} FROM candles "
    "WHERE symbol = ? AND timeframe = ? AND open_time > ? AND open_time <= ? ORDER BY open_time LIMIT ?"
)

type Stream = tuple[str, str]
type Values = tuple[Decimal, ...]  # open, high, low, close, volume


class CandleWrite(NamedTuple):
    """What a batch did; `new` are the inserted candles, stream by stream: the only ones to be announced."""

    inserted: int
    revised: int
    unchanged: int
    new: tuple[Candle, ...] = ()


async def write_candles(
    session: AsyncSession, batch: Sequence[Candle], recorded_at: datetime, shelf: CandleShelf | None = None
) -> CandleWrite:
    """Store candles: unknown ones are inserted, differing ones kept as a revision and replaced, equal ones left.

    Streams that only grew are on the `shelf` once the transaction is committed; others leave it.
    """
    if not batch:
        return CandleWrite(0, 0, 0)
    streams = by_stream(batch)
    newest = await _newest(session, list(streams))
    new: list[Candle] = []
    changes: list[Candle] = []
    longer: list[tuple[Stream, slice]] = []
    for stream, candles in streams.items():
        last = newest.get(stream)
        if follows(last, candles):
            longer.append((stream, slice(len(new), len(new) + len(candles))))
            new += candles
            continue
        appended = last is None or all(candle.open_time > last for candle in candles)
        known = {} if appended else await _known(session, stream, candles)
        _classify(candles, known, new, changes)
    rows, stored = _rows(new)
    await _insert(session, rows)
    for candle in changes:
        await _revise(session, candle, recorded_at)
    if shelf is not None:
        shelf.found_at((await fetch(session, "PRAGMA data_version"))[0][0])
        runs = {stream: shelf.withdraw(stream) for stream in streams}
        for stream, part in longer:
            run = grown(runs[stream], newest.get(stream), stored[part])
            session_of(session).on_commit.append(partial(shelf.put, stream, run))
    return CandleWrite(len(new), len(changes), len(batch) - len(new) - len(changes), tuple(stored))


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
        for candle in _candles(dialect_of(session), await fetch(session, statement, parameters)):
            found[candle.symbol, candle.timeframe].append(candle)
    for candles in found.values():
        candles.sort(key=_open_time)  # SQL promises no order across UNION ALL; sorting what is sorted costs little
    return found


async def read_last(session: AsyncSession, symbol: str, timeframe: str, count: int) -> list[Candle]:
    """Return the newest `count` candles of a stream, oldest first."""
    dialect = dialect_of(session)
    rows = await fetch(session, numbered(dialect, _LAST), (symbol, timeframe, count))
    return _candles(dialect, reversed(rows))


def until_open_time(timeframe: str, until_close_time: datetime | None) -> datetime | None:
    """Return the last open_time whose candle has closed at `until_close_time`."""
    return None if until_close_time is None else until_close_time - TIMEFRAME_DELTA[timeframe]


def _rows(candles: Sequence[Candle]) -> tuple[list[tuple[str, ...]], list[Candle]]:
    """Return candles as rows of text, and as they will be read back: no exponent, at most 18 decimals."""
    rows: list[tuple[str, ...]] = []
    stored: list[Candle] = []
    for candle in candles:
        key = (candle.symbol, candle.timeframe, utc_to_text(candle.open_time))
        texts: tuple[str, ...] = (
            str(candle.open), str(candle.high), str(candle.low), str(candle.close), str(candle.volume)
        )  # fmt: skip
        if not _is_plain(texts):
            texts = tuple(map(money_to_text, (candle.open, candle.high, candle.low, candle.close, candle.volume)))
            candle = _candles("sqlite", [key + texts])[0]
        rows.append(key + texts)
        stored.append(candle)
    return rows, stored


def _is_plain(texts: tuple[str, ...]) -> bool:
    """Return whether numbers are digits and a point, in so few characters that they are stored as they are."""
    return "".join(texts).replace(".", "").isdecimal() and max(map(len, texts)) <= MONEY_DECIMALS_MAX + 2


def _classify(
    candles: Sequence[Candle], known: dict[datetime, Values], new: list[Candle], changes: list[Candle]
) -> None:
    for candle in candles:
        stored, values = known.get(candle.open_time), _values(candle)
        if stored is None:
            new.append(candle)
        elif stored != values:
            changes.append(candle)
        known[candle.open_time] = values


async def _newest(session: AsyncSession, streams: Sequence[Stream]) -> dict[Stream, datetime]:
    dialect = dialect_of(session)
    parameters: tuple[Any, ...] = (json.dumps(streams),) if dialect == "sqlite" else tuple(zip(*streams, strict=True))
    rows = await fetch(session, _NEWEST[dialect], parameters)
    return {
        (symbol, timeframe): datetime.fromisoformat(moment) if isinstance(moment, str) else moment
        for symbol, timeframe, moment in rows
        if moment is not None
    }


async def _known(session: AsyncSession, stream: Stream, candles: Sequence[Candle]) -> dict[datetime, Values]:
    times = [utc_to_text(candle.open_time) for candle in candles]
    if dialect_of(session) == "postgresql":
        rows = await fetch(session, _KNOWN["postgresql"], (",".join(times), *stream))
        return {row[0]: tuple(row[1:]) for row in rows}
    rows = await fetch(session, _KNOWN["sqlite"], (json.dumps(times), *stream))
    return {datetime.fromisoformat(row[0]): tuple(map(Decimal, row[1:])) for row in rows}


async def _insert(session: AsyncSession, rows: list[tuple[str, ...]]) -> None:
    if not rows:
        return
    if dialect_of(session) == "sqlite":
        await change(session, _INSERT["sqlite"], rows)
        return
    columns = tuple(map(_SEPARATOR.join, zip(*rows, strict=True)))
    driver = session_of(session).driver
    if isinstance(driver, PostgresConnection) and driver.collects:
        driver.defer(Write(_INSERT["postgresql"], columns, "candles"))
    else:
        await change(session, _INSERT["postgresql"], columns)


async def _revise(session: AsyncSession, candle: Candle, recorded_at: datetime) -> None:
    dialect = dialect_of(session)
    moments: tuple[Any, Any] = (candle.open_time, recorded_at)
    values: tuple[Any, ...] = _values(candle)
    if dialect == "sqlite":
        moments = (utc_to_text(candle.open_time), utc_to_text(recorded_at))
        values = tuple(map(money_to_text, values))
    key = (candle.symbol, candle.timeframe, moments[0])
    await change(session, numbered(dialect, _KEEP_REVISION), (moments[1], *key))
    await change(session, numbered(dialect, _REPLACE), (*values, *key))


def _select_streams(
    dialect: str, streams: Sequence[tuple[str, str, datetime | None, datetime | None]], limit: int
) -> tuple[str, tuple[Any, ...]]:
    parameters: list[Any] = []
    for symbol, timeframe, after, until in streams:
        bounds: Sequence[Any] = (after or _BEGINNING, until or _END)
        parameters += [symbol, timeframe, *(map(utc_to_text, bounds) if dialect == "sqlite" else bounds), limit]
    selects = (f"SELECT * FROM ({_BETWEEN}) AS s{place}" for place in range(len(streams)))
    return numbered(dialect, " UNION ALL ".join(selects)), tuple(parameters)


def _values(candle: Candle) -> Values:
    numeric = money_to_numeric
    return (
        numeric(candle.open), numeric(candle.high), numeric(candle.low), numeric(candle.close), numeric(candle.volume)
    )  # fmt: skip


def _open_time(candle: Candle) -> datetime:
    return candle.open_time


def _candles(dialect: str, rows: Iterable[Sequence[Any]]) -> list[Candle]:
    if dialect == "sqlite":
        parse, exact = datetime.fromisoformat, Decimal
        return [
            Candle(
                symbol=symbol, timeframe=timeframe, open_time=parse(time), open=exact(open_), high=exact(high),
                low=exact(low), close=exact(close), volume=exact(volume)
            )
            for symbol, timeframe, time, open_, high, low, close, volume in rows
        ]  # fmt: skip
    number = money_from_numeric
    return [
        Candle(
            symbol=symbol, timeframe=timeframe, open_time=time, open=number(open_), high=number(high),
            low=number(low), close=number(close), volume=number(volume)
        )
        for symbol, timeframe, time, open_, high, low, close, volume in rows
    ]  # fmt: skip

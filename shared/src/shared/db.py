"""The system of record: one `Database` a process, the same on PostgreSQL and SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared import db_candles, db_migrations, db_orders, db_outbox, db_rows
from shared.candle_shelf import CandleShelf
from shared.clock import Clock, SystemClock, seeded_random
from shared.db_candles import CANDLE_COLUMNS, CandleWrite
from shared.db_engine import Connections, EngineOptions
from shared.db_outbox import OutboxMessage
from shared.db_rows import Conflict, Row
from shared.db_url import parse_database_url
from shared.errors import ConfigError, DatabaseError
from shared.models import Candle, Order, OrderStatus, Signal, from_milliseconds
from shared.resilience import Outside
from shared.sa_models import Base, StampRow

__all__ = ["CandleWrite", "Conflict", "Database", "EngineOptions", "OutboxMessage"]

_BACKOFF_SECONDS = 0.02


class Database:
    """The tables of `shared.sa_models` behind one URL.

    Make one per process and hand it to every service in it: SQLite has one writer connection behind a lock of
    this object. A session is a transaction. Methods that take `session` join the caller's transaction; without
    one they make their own.
    """

    def __init__(
        self,
        database_url: str,
        *,
        durable: bool = False,
        clock: Clock | None = None,
        options: EngineOptions | None = None,
        migrations_path: Path | None = None,
    ) -> None:
        self._target = parse_database_url(database_url)
        self._clock = clock or SystemClock()
        self._random = seeded_random()
        self._connections = Connections(self._target, options or EngineOptions(durable=durable), self._clock)
        self._migrations_path = migrations_path
        self._shelf = CandleShelf() if self._target.is_sqlite else None  # a server may be written to by others

    def __repr__(self) -> str:
        """Return the URL without its password."""
        return f"Database({self._target})"

    # --- life ---------------------------------------------------------------------------------------------------

    @property
    def dialect(self) -> str:
        """Return `sqlite` or `postgresql`."""
        return self._target.dialect

    @property
    def outside(self) -> Outside:
        """Return the breaker of connecting to a server, and how often that was done again."""
        return self._connections.outside

    async def connect(self) -> None:
        """Open the database, so that a wrong address is found now and not at the first use."""
        async with self.get_session() as session:
            await session.execute(text("SELECT 1"))
        await self.ping()

    async def close(self) -> None:
        """Close every connection."""
        await self._connections.close()

    async def ping(self) -> bool:
        """Return True when the database answers; otherwise its error is raised."""
        async with self.read() as session:
            return bool((await session.execute(text("SELECT 1"))).scalar_one())

    def get_session(self, *, readonly: bool = False) -> AbstractAsyncContextManager[AsyncSession]:
        """Return a transaction: committed at the end of the block, rolled back on any error.

        On SQLite it is the only writer; within one, another `get_session()` of the same task is a mistake.
        """
        return self._connections.reading() if readonly else self._connections.writing()

    def read(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Return a session that sees one moment of the database, writes nothing and never holds up the writer."""
        return self._connections.reading()

    def look(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Return a session for plain questions that may each see a later moment than the one before it.

        On a server each is one round trip and no transaction. Ask first for what bounds the rest, such as a watermark.
        """
        return self._connections.looking()

    def batch(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Return a transaction for `write_*`: a server gets the writes at the end of the block, in one round trip.

        What is asked before the first of them is asked as in `look()`. Errors of the tables come at the end.
        """
        return self._connections.batching(None)

    async def run_transaction[T](self, work: Callable[[AsyncSession], Awaitable[T]], *, attempts_max: int = 5) -> T:
        """Run `work` as if nobody else wrote; on a conflict or a lost connection run it again, at most `attempts_max`.

        A lost connection may hide a commit that happened: `work` must be safe to run twice (natural keys).
        """
        for attempt in range(1, attempts_max + 1):
            try:
                async with self._connections.writing("SERIALIZABLE") as session:
                    return await work(session)
            except DatabaseError as error:
                if not error.retryable or attempt == attempts_max:
                    raise
                self.outside.retried()
            await self._clock.sleep(self._random.uniform(0, _BACKOFF_SECONDS * 2**attempt))
        raise AssertionError("attempts_max must be at least 1")

    # --- schema -------------------------------------------------------------------------------------------------

    async def init_tables(self) -> None:
        """Upgrade to the newest revision; an SQLite file of an older one is copied beside itself first."""
        await self.upgrade()

    async def upgrade(self, revision: str = "head") -> Path | None:
        """Run migrations up to `revision`; return the copy that was made of an older SQLite file."""
        folder = self._folder()
        found = await self._schema_work(db_migrations.current_revision)
        copy = None
        if self._target.path is not None and found not in (None, db_migrations.head_revision(folder)):
            assert found is not None
            copy = db_migrations.copy_beside(self._target.path, found, self._clock.now())
        await self._schema_work(lambda connection: db_migrations.upgrade(connection, folder, revision))
        return copy

    async def downgrade(self, revision: str) -> None:
        """Run migrations back to `revision` (`base` drops every table)."""
        folder = self._folder()
        await self._schema_work(lambda connection: db_migrations.downgrade(connection, folder, revision))

    async def revision(self) -> str | None:
        """Return the revision of the database, None where it has no tables."""
        return await self._schema_work(db_migrations.current_revision)

    async def check_revision(self) -> None:
        """Raise a DatabaseError unless the database is at the revision of this build."""
        expected = db_migrations.head_revision(self._folder())
        found = await self.revision()
        if found != expected:
            raise db_migrations.revision_fault(found, expected, self._target)

    async def schema_differences(self) -> list[str]:
        """Return where tables and row classes differ; empty when they agree."""
        return await self._schema_work(db_migrations.differences)

    async def stamp_mode(self, mode: str, quote_asset: str, build: str = "") -> None:
        """Mark a new database as one of `mode` and `quote_asset`; refuse one that bears another mark."""
        wanted = {"mode": mode, "quote_asset": quote_asset}
        rows = {**wanted, "created_at": self._clock.now().isoformat(), "build": build}
        async with self.get_session() as session:
            new = [{"key": key, "value": value} for key, value in rows.items()]
            await db_rows.insert_rows(session, StampRow, new, ignore_conflicts=True)
            found = await self.stamps(session)
        for key, value in wanted.items():
            if found[key] != value:
                raise ConfigError(
                    f"{self._target}: this database holds {key} {found[key]!r}, {value!r} was asked for; "
                    f"use another database, or start with {key} {found[key]!r}"
                )

    async def stamps(self, session: AsyncSession | None = None) -> dict[str, str]:
        """Return what the database is marked with."""
        async with self._reading(session) as reader:
            rows = await reader.execute(select(StampRow.key, StampRow.value))
            return dict(sorted((key, value) for key, value in rows))

    # --- candles ------------------------------------------------------------------------------------------------

    async def insert_candle(self, candle: Candle) -> None:
        """Store one candle; a known one is harmless, a differing one becomes its next revision."""
        await self.upsert_candles([candle])

    async def upsert_candles(self, batch: Sequence[Candle], session: AsyncSession | None = None) -> CandleWrite:
        """Store candles; `new` of the answer are those nobody has seen, a revised one is kept but not new."""
        async with self._writing(session) as writer:
            return await db_candles.write_candles(writer, batch, self._clock.now(), self._shelf)

    async def get_candles(self, symbol: str, timeframe: str, limit: int = 500) -> list[dict[str, Any]]:
        """Return the newest candles of a stream as dicts of the eight columns, newest first."""
        candles = await self.last_candles(symbol, timeframe, limit)
        return [{name: getattr(candle, name) for name in CANDLE_COLUMNS} for candle in reversed(candles)]

    async def last_candles(
        self, symbol: str, timeframe: str, count: int, session: AsyncSession | None = None
    ) -> list[Candle]:
        """Return the newest `count` candles of a stream, oldest first."""
        async with self._reading(session) as reader:
            return await db_candles.read_last(reader, symbol, timeframe, count)

    async def read_candles(
        self,
        symbol: str,
        timeframe: str,
        after_open_time: datetime | None = None,
        until_open_time: datetime | None = None,
        limit: int = 500,
        session: AsyncSession | None = None,
    ) -> list[Candle]:
        """Return candles with after < open_time <= until, oldest first."""
        async with self._reading(session) as reader:
            stream = (symbol, timeframe)
            return await db_candles.read_stream(reader, stream, after_open_time, until_open_time, limit)

    async def read_candles_of(
        self,
        streams: Sequence[tuple[str, str, datetime | None]],
        until_close_time: datetime | None,
        limit_per_stream: int,
        session: AsyncSession | None = None,
    ) -> dict[tuple[str, str], list[Candle]]:
        """Return for each (symbol, timeframe, after open_time) the candles closed by `until_close_time`, oldest first.

        `until_close_time` is one that the session knows of: what this process has stored up to it is not read again.
        """
        found: dict[tuple[str, str], list[Candle]] = {}
        bounds = []
        for symbol, timeframe, after in streams:
            until = db_candles.until_open_time(timeframe, until_close_time)
            kept = None
            if self._shelf is not None and until is not None:
                kept = self._shelf.read((symbol, timeframe), after, until, limit_per_stream)
            if kept is None:
                bounds.append((symbol, timeframe, after, until))
            else:
                found[symbol, timeframe] = kept
        if bounds:
            async with self._reading(session) as reader:
                found |= await db_candles.read_streams(reader, bounds, limit_per_stream)
        return found

    # --- signals and orders -------------------------------------------------------------------------------------

    async def insert_signal(self, signal: Signal, session: AsyncSession | None = None) -> bool:
        """Store a signal; False when its id is known already."""
        async with self._writing(session) as writer:
            return await db_orders.store_signal(writer, signal)

    async def insert_order(self, order: Order, session: AsyncSession | None = None) -> bool:
        """Store an order; False when its id is known already."""
        async with self._writing(session) as writer:
            return await db_orders.store_order(writer, order)

    async def update_order_status(
        self,
        order_id: str,
        status: OrderStatus | str,
        filled_at: datetime | None = None,
        session: AsyncSession | None = None,
    ) -> bool:
        """Set an order's status; False (and nothing changed) for a step backwards, UnknownOrder for an unknown id."""
        async with self._writing(session) as writer:
            return await db_orders.move_order(writer, order_id, OrderStatus(status), filled_at)

    # --- cursors and outbox -------------------------------------------------------------------------------------

    async def read_cursors(self, prefix: str = "", session: AsyncSession | None = None) -> dict[str, str]:
        """Return the cursors whose name begins with `prefix`."""
        async with self._reading(session) as reader:
            return await db_outbox.read_cursors(reader, prefix)

    async def read_moment(self, cursor: str, session: AsyncSession | None = None) -> datetime | None:
        """Return a cursor that holds a time (ms), such as a watermark; None before it was ever set."""
        async with self._reading(session) as reader:
            stored = await db_outbox.read_cursor(reader, cursor)
            return None if stored is None else from_milliseconds(int(stored))

    async def write_cursors(self, session: AsyncSession, values: Mapping[str, str | int]) -> None:
        """Set cursors in the caller's transaction."""
        await db_outbox.write_cursors(session, values)

    async def append_outbox(self, session: AsyncSession, rows: Sequence[Row]) -> int:
        """Add messages {topic, key, payload, as_of} in the transaction of their cause."""
        return await db_outbox.append(session, rows, self._clock.now())

    async def pending_outbox(
        self, topic: str, limit: int, after_id: int = 0, session: AsyncSession | None = None
    ) -> list[OutboxMessage]:
        """Return messages nobody acknowledged, oldest first."""
        async with self._reading(session) as reader:
            return await db_outbox.pending(reader, topic, limit, after_id)

    async def mark_outbox_sent(self, ids: Sequence[int], session: AsyncSession | None = None) -> int:
        """Note that messages went to the bus."""
        async with self._writing(session) as writer:
            return await db_outbox.mark_sent(writer, ids, self._clock.now())

    async def write_sent(self, session: AsyncSession, ids: Sequence[int]) -> None:
        """Note that messages went to the bus; it may wait for the commit, and a crash may forget it."""
        await db_outbox.write_sent(session, ids, self._clock.now())

    async def ack_outbox(self, session: AsyncSession, topic: str, keys: Sequence[str]) -> int:
        """Note in the consumer's transaction that messages were handled; return how many were pending."""
        return await db_outbox.acknowledge(session, topic, keys, self._clock.now())

    async def write_acks(self, session: AsyncSession, topic: str, keys: Sequence[str]) -> None:
        """Note in the consumer's transaction that messages were handled; it may wait for the commit."""
        await db_outbox.write_acks(session, topic, keys, self._clock.now())

    async def write_acks_until(self, session: AsyncSession, topic: str, as_of: datetime) -> None:
        """Note in the consumer's transaction that every message up to a business time was handled."""
        await db_outbox.write_acks_until(session, topic, as_of, self._clock.now())

    async def prune_outbox(self, topic: str, acked_before: datetime, limit: int = 10_000) -> int:
        """Delete messages acknowledged before a time; return how many."""
        async with self.get_session() as session:
            return await db_outbox.prune(session, topic, acked_before, limit)

    # --- any rows -----------------------------------------------------------------------------------------------

    async def read_rows(
        self, session: AsyncSession, row_class: type[Base], tail: str, parameters: Sequence[Any] = ()
    ) -> list[dict[str, Any]]:
        """Return rows as dicts of all columns; `tail` is plain SQL after FROM with `?` for each parameter."""
        return await db_rows.read_rows(session, row_class, tail, parameters)

    async def insert_rows(
        self, session: AsyncSession, row_class: type[Base], rows: Sequence[Row], *, ignore_conflicts: bool = False
    ) -> int:
        """Insert dicts of one set of columns; return how many are new."""
        return await db_rows.insert_rows(session, row_class, rows, ignore_conflicts=ignore_conflicts)

    async def upsert_rows(
        self, session: AsyncSession, row_class: type[Base], rows: Sequence[Row], update: Sequence[str] | None = None
    ) -> int:
        """Insert dicts or overwrite the columns `update` (all but the key) where the primary key is known."""
        return await db_rows.upsert_rows(session, row_class, rows, update)

    async def write_rows(
        self, session: AsyncSession, row_class: type[Base], rows: Sequence[Row], *, conflict: Conflict = Conflict.FAILS
    ) -> None:
        """Write dicts of one set of columns; nobody asks how many were new, so it may wait for the commit."""
        await db_rows.write_rows(session, row_class, rows, conflict=conflict)

    async def count_rows(self, row_class: type[Base], session: AsyncSession | None = None) -> int:
        """Return how many rows a table has."""
        async with self._reading(session) as reader:
            return int((await reader.execute(select(func.count()).select_from(row_class))).scalar_one())

    # --- inside -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _writing(self, session: AsyncSession | None) -> AsyncIterator[AsyncSession]:
        if session is not None:
            yield session
            return
        async with self.get_session() as own:
            yield own

    @asynccontextmanager
    async def _reading(self, session: AsyncSession | None) -> AsyncIterator[AsyncSession]:
        if session is not None:
            yield session
            return
        async with self.read() as own:
            yield own

    def _folder(self) -> Path:
        return self._migrations_path or db_migrations.migrations_folder()

    async def _schema_work[T](self, work: Callable[[Connection], T]) -> T:
        if not self._target.in_memory:
            return await db_migrations.migrating(self._target, work)
        async with self.get_session() as session:
            return await db_migrations.migrating(self._target, work, await session.connection())

"""Connections: a pool for PostgreSQL; for SQLite one writer behind a lock and a few readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from shared.clock import Clock
from shared.db_faults import reaching, translated
from shared.db_session import Session
from shared.db_sqlite import READER, SqliteConnection, SqliteKind, checkpoint, writer
from shared.db_url import DatabaseTarget
from shared.errors import DatabaseUnavailable
from shared.resilience import CircuitBreaker, Outside

CONNECT_TIMEOUT_SECONDS = 10.0
COMMITS_PER_CHECKPOINT = 250
FAILURES_MAX = 5
PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class EngineOptions:
    """Bounds of the connections; `durable` makes SQLite wait for the disk at each commit (live mode)."""

    durable: bool = False
    readers_max: int = 3
    connections_max: int = 10
    wait_seconds_max: float = 30.0
    statement_seconds_max: float = 60.0
    lock_seconds_max: float = 30.0
    idle_seconds_max: float = 60.0
    """How long PostgreSQL lets a transaction do nothing before it ends it."""


class Connections:
    """Hands out sessions; one `writing()` or `reading()` is one transaction."""

    def __init__(self, target: DatabaseTarget, options: EngineOptions, clock: Clock) -> None:
        self.target = target
        self.outside = Outside("database", CircuitBreaker(FAILURES_MAX, PAUSE_SECONDS, clock=clock))
        self._options = options
        self._sqlite = _SqliteLanes(target, options) if target.is_sqlite else None
        self._holder: tuple[asyncio.Task[Any] | None, AsyncSession] | None = None
        if not target.is_sqlite:
            self._writer = _postgres_engine(target, options)
            self._reader = self._writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    async def close(self) -> None:
        """Close every connection."""
        await (self._writer.dispose() if self._sqlite is None else self._sqlite.close())

    @asynccontextmanager
    async def writing(self, isolation: str | None = None) -> AsyncIterator[AsyncSession]:
        """Give a session whose work is committed at the end, or rolled back on any error."""
        if self._sqlite is None:
            async with self._postgres(self._writer, isolation) as session:
                yield session
                with reaching(self.target):
                    await session.finish()
            return
        assert self._own_session() is None, "a transaction inside a transaction: pass the session on instead"
        async with self._turn(self._sqlite.write_lock):
            with translated(self.target):
                lane = await self._sqlite.writer()
                session = Session(lane.engine, lane.driver)
                self._holder = (asyncio.current_task(), session)
                try:
                    yield session
                    with reaching(self.target):
                        await session.finish()
                finally:
                    self._holder = None
                    await session.release()
        self._sqlite.committed()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """Give a session that sees one moment of the database and writes nothing."""
        if self._sqlite is None:
            async with self._postgres(self._reader, None) as session:
                yield session
            return
        own = self._own_session() if self.target.in_memory else None
        if own is not None:  # one connection: a reader waits, or reads within its own transaction
            yield own
            return
        turn = self._sqlite.write_lock if self.target.in_memory else self._sqlite.read_turns
        async with self._turn(turn):
            with translated(self.target):
                lane = await (self._sqlite.writer() if self.target.in_memory else self._sqlite.reader())
                session = Session(lane.engine, lane.driver)
                try:
                    yield session
                finally:
                    await session.release()
                    self._sqlite.give_back(lane)

    @asynccontextmanager
    async def _postgres(self, engine: AsyncEngine, isolation: str | None) -> AsyncIterator[Session]:
        with translated(self.target):
            session = Session(engine)
            try:
                with self.outside.calling(DatabaseUnavailable, self._not_asked), reaching(self.target):
                    await session.connection(execution_options={"isolation_level": isolation} if isolation else None)
                yield session
            finally:
                await session.release()

    @asynccontextmanager
    async def _turn(self, turn: asyncio.Lock | asyncio.Semaphore) -> AsyncIterator[None]:
        if turn.locked():
            await self._wait_for(turn)
        else:
            await turn.acquire()  # nobody has it: this does not wait
        try:
            yield
        finally:
            turn.release()

    async def _wait_for(self, turn: asyncio.Lock | asyncio.Semaphore) -> None:
        try:
            async with asyncio.timeout(self._options.wait_seconds_max):
                await turn.acquire()
        except TimeoutError as error:
            raise DatabaseUnavailable(
                f"{self.target}: another transaction of this process has not ended for "
                f"{self._options.wait_seconds_max:g} s"
            ) from error

    def _not_asked(self, reason: str) -> DatabaseUnavailable:
        return DatabaseUnavailable(f"{self.target}: {reason}")

    def _own_session(self) -> AsyncSession | None:
        if self._holder is None or self._holder[0] is not asyncio.current_task():
            return None
        return self._holder[1]


class _Lane(NamedTuple):
    """One SQLite connection, and SQLAlchemy's engine on that very connection."""

    driver: SqliteConnection
    engine: AsyncEngine


class _SqliteLanes:
    """One lane that writes and up to `readers_max` that read, each opened when first needed."""

    def __init__(self, target: DatabaseTarget, options: EngineOptions) -> None:
        self.write_lock = asyncio.Lock()
        self.read_turns = asyncio.Semaphore(options.readers_max)
        self._target = target
        self._writer_kind = writer(options.durable)
        self._writer: _Lane | None = None
        self._idle_readers: list[_Lane] = []
        self._lanes: list[_Lane] = []
        self._commits = 0
        self._checkpoint: asyncio.Task[None] | None = None

    async def writer(self) -> _Lane:
        if self._writer is None:
            self._writer = await self._open(self._writer_kind)
        return self._writer

    async def reader(self) -> _Lane:
        return self._idle_readers.pop() if self._idle_readers else await self._open(READER)

    def give_back(self, lane: _Lane) -> None:
        if lane is not self._writer:
            self._idle_readers.append(lane)

    def committed(self) -> None:
        """Keep the log short: writing it back waits for the disk, so another thread does it, every so many commits."""
        self._commits += 1
        is_due = self._commits % COMMITS_PER_CHECKPOINT == 0 and self._target.path is not None
        if is_due and (self._checkpoint is None or self._checkpoint.done()):
            self._checkpoint = asyncio.create_task(_checkpoint(self._target))

    async def close(self) -> None:
        if self._checkpoint is not None:
            await asyncio.wait([self._checkpoint])
        lanes, self._lanes, self._idle_readers, self._writer = self._lanes, [], [], None
        for lane in lanes:
            await lane.engine.dispose()
            await lane.driver.close()

    async def _open(self, kind: SqliteKind) -> _Lane:
        driver = SqliteConnection(self._target.path, kind)
        await driver.open()

        async def opened(*_: Any, **__: Any) -> SqliteConnection:
            return driver

        lane = _Lane(driver, create_async_engine(self._target.url, poolclass=StaticPool, async_creator=opened))
        async with (
            lane.engine.connect()
        ):  # its first look at a connection ends in a rollback: nothing is lost by it yet
            self._lanes.append(lane)
        return lane


async def _checkpoint(target: DatabaseTarget) -> None:
    assert target.path is not None
    with translated(target):
        await asyncio.to_thread(checkpoint, target.path)


def _postgres_engine(target: DatabaseTarget, options: EngineOptions) -> AsyncEngine:
    bounds = {
        "statement_timeout": options.statement_seconds_max,
        "lock_timeout": options.lock_seconds_max,
        "idle_in_transaction_session_timeout": options.idle_seconds_max,
    }
    settings = {name: str(max(1, round(seconds * 1000))) for name, seconds in bounds.items()}
    settings |= {"application_name": "trading", "timezone": "UTC"}
    return create_async_engine(
        target.url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=options.connections_max,
        max_overflow=0,
        pool_timeout=options.wait_seconds_max,
        connect_args={"timeout": CONNECT_TIMEOUT_SECONDS, "server_settings": settings},
    )

"""Connections: a pool for PostgreSQL; for SQLite one writer behind a lock and a few readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from shared.db_faults import reaching, translated
from shared.db_sqlite import SqliteConnection, connector
from shared.db_url import DatabaseTarget
from shared.errors import DatabaseUnavailable

CONNECT_TIMEOUT_SECONDS = 10.0
WAL_BYTES_MAX = 64 * 1024 * 1024  # the log shrinks back to this after a burst


@dataclass(frozen=True)
class EngineOptions:
    """Bounds of the connections; `durable` makes SQLite wait for the disk at each commit (live mode)."""

    durable: bool = False
    readers_max: int = 3
    connections_max: int = 10
    wait_seconds_max: float = 30.0
    statement_seconds_max: float = 60.0


class Connections:
    """Hands out sessions; one `writing()` or `reading()` is one transaction."""

    def __init__(self, target: DatabaseTarget, options: EngineOptions) -> None:
        self.target = target
        self._options = options
        self._write_lock = asyncio.Lock()
        self._holder: tuple[asyncio.Task[Any] | None, AsyncSession] | None = None
        if target.in_memory:
            self._writer = self._reader = _sqlite_engine(target, options, "BEGIN IMMEDIATE", StaticPool)
        elif target.is_sqlite:
            self._writer = _sqlite_engine(target, options, "BEGIN IMMEDIATE", AsyncAdaptedQueuePool)
            self._reader = _sqlite_engine(target, options, "BEGIN", AsyncAdaptedQueuePool)
        else:
            self._writer = _postgres_engine(target, options)
            self._reader = self._writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    async def close(self) -> None:
        """Close every connection."""
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()

    @asynccontextmanager
    async def writing(self, isolation: str | None = None) -> AsyncIterator[AsyncSession]:
        """Give a session whose work is committed at the end, or rolled back on any error."""
        async with AsyncExitStack() as stack:
            if self.target.is_sqlite:
                assert self._own_session() is None, "a transaction inside a transaction: pass the session on instead"
                await self._wait_for_turn(stack)
            session = await stack.enter_async_context(self._session(self._writer, isolation))
            if self.target.is_sqlite:
                self._holder = (asyncio.current_task(), session)
                stack.callback(self._forget_holder)
            yield session
            with reaching(self.target):
                await session.commit()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """Give a session that sees one moment of the database and writes nothing."""
        async with AsyncExitStack() as stack:
            if self.target.in_memory:  # one connection: a reader waits, or reads within its own transaction
                own = self._own_session()
                if own is not None:
                    yield own
                    return
                await self._wait_for_turn(stack)
            yield await stack.enter_async_context(self._session(self._reader, None))

    @asynccontextmanager
    async def _session(self, engine: AsyncEngine, isolation: str | None) -> AsyncIterator[AsyncSession]:
        with translated(self.target):
            session = AsyncSession(engine, expire_on_commit=False)
            try:
                with reaching(self.target):
                    options = {"isolation_level": isolation} if isolation and not self.target.is_sqlite else None
                    await session.connection(execution_options=options)
                yield session
            finally:
                # A cancelled task must not leave its transaction open on the shared connection.
                await asyncio.shield(session.close())

    async def _wait_for_turn(self, stack: AsyncExitStack) -> None:
        try:
            async with asyncio.timeout(self._options.wait_seconds_max):
                await self._write_lock.acquire()
        except TimeoutError as error:
            raise DatabaseUnavailable(
                f"{self.target}: another transaction of this process has not ended for "
                f"{self._options.wait_seconds_max:g} s"
            ) from error
        stack.callback(self._write_lock.release)

    def _own_session(self) -> AsyncSession | None:
        if self._holder is None or self._holder[0] is not asyncio.current_task():
            return None
        return self._holder[1]

    def _forget_holder(self) -> None:
        self._holder = None


def _sqlite_engine(target: DatabaseTarget, options: EngineOptions, begin: str, pool: type[Any]) -> AsyncEngine:
    bounds: dict[str, Any] = {}
    if pool is AsyncAdaptedQueuePool:
        size = options.readers_max if begin == "BEGIN" else 1
        bounds = {"pool_size": size, "max_overflow": 0, "pool_timeout": options.wait_seconds_max}

    async def open_connection(*_: Any, **__: Any) -> SqliteConnection:
        connection = SqliteConnection(connector(target.path))
        await connection.open()
        return connection

    engine = create_async_engine(target.url, poolclass=pool, async_creator=open_connection, **bounds)
    if begin == "BEGIN":
        pragmas = ["query_only=ON"]
    else:
        pragmas = ["journal_mode=WAL", f"synchronous={'FULL' if options.durable else 'NORMAL'}", "foreign_keys=ON"]
        pragmas.append(f"journal_size_limit={WAL_BYTES_MAX}")

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        # IMMEDIATE for the writer: a deferred transaction that writes later can find its snapshot stale.
        connection.connection.driver_connection.begin_with(begin)

    return engine


def _postgres_engine(target: DatabaseTarget, options: EngineOptions) -> AsyncEngine:
    milliseconds = int(options.statement_seconds_max * 1000)
    settings = {
        "application_name": "trading",
        "timezone": "UTC",
        "statement_timeout": str(milliseconds),
        "lock_timeout": str(milliseconds // 2),
        "idle_in_transaction_session_timeout": str(milliseconds),
    }
    return create_async_engine(
        target.url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=options.connections_max,
        max_overflow=0,
        pool_timeout=options.wait_seconds_max,
        pool_pre_ping=True,
        connect_args={"timeout": CONNECT_TIMEOUT_SECONDS, "server_settings": settings},
    )

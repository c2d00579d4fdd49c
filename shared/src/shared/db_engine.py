"""Connections: a pool for PostgreSQL; for SQLite one writer behind a lock and a few readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from shared.clock import Clock
from shared.db_chain import Guard
from shared.db_faults import reaching, translated
from shared.db_lanes import EngineOptions, Lane, PostgresLanes, SqliteLanes
from shared.db_postgres import PostgresConnection
from shared.db_session import Session
from shared.db_url import DatabaseTarget
from shared.errors import DatabaseUnavailable
from shared.resilience import CircuitBreaker, Outside

__all__ = ["Connections", "EngineOptions"]

FAILURES_MAX = 5
PAUSE_SECONDS = 1.0


class Connections:
    """Hands out sessions; one `writing()` or `reading()` is one transaction."""

    def __init__(self, target: DatabaseTarget, options: EngineOptions, clock: Clock) -> None:
        self.target = target
        self.outside = Outside("database", CircuitBreaker(FAILURES_MAX, PAUSE_SECONDS, clock=clock))
        self._options = options
        self._sqlite = SqliteLanes(target, options) if target.is_sqlite else None
        self._postgres = PostgresLanes(target, options) if not target.is_sqlite else None
        self._holder: tuple[asyncio.Task[Any] | None, AsyncSession] | None = None

    async def close(self) -> None:
        """Close every connection."""
        for lanes in (self._sqlite, self._postgres):
            if lanes is not None:
                await lanes.close()

    @asynccontextmanager
    async def writing(self, isolation: str | None = None) -> AsyncIterator[AsyncSession]:
        """Give a session whose work is committed at the end, or rolled back on any error."""
        if self._sqlite is None:
            async with self._asking(partial(self._lanes.begin, isolation, readonly=False)) as session:
                yield session
                with reaching(self.target):
                    await session.finish()
            return
        assert self._own_session() is None, "a transaction inside a transaction: pass the session on instead"
        async with self._turn(self._sqlite.write_lock):
            with translated(self.target):
                lane = await self._sqlite.writer()
                session = Session(lane)
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
            async with self._asking(partial(self._lanes.begin, "REPEATABLE READ", readonly=True)) as session:
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
                session = Session(lane)
                try:
                    yield session
                finally:
                    await session.release()
                    self._sqlite.give_back(lane)

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[AsyncSession]:
        """Give a session for questions that may each see a later moment than the one before it."""
        if self._sqlite is not None:
            async with self.reading() as reader:
                yield reader
            return
        async with self._asking(self._lanes.take) as session:
            yield session

    @asynccontextmanager
    async def batching(self, guard: Guard | None) -> AsyncIterator[AsyncSession]:
        """Give a session whose writes go to a server together at the end, if the guard then holds."""
        if self._sqlite is not None:
            async with self.writing() as writer:
                yield writer
            return
        async with self._asking(self._lanes.take) as session:
            assert isinstance(session.driver, PostgresConnection)
            session.driver.collect(guard)
            yield session
            with reaching(self.target):
                await session.finish()

    @property
    def _lanes(self) -> PostgresLanes:
        assert self._postgres is not None, "a server was asked for on SQLite"
        return self._postgres

    @asynccontextmanager
    async def _asking(self, take: Callable[[], Awaitable[Lane[PostgresConnection]]]) -> AsyncIterator[Session]:
        async with self._turn(self._lanes.turns):
            with translated(self.target):
                with self.outside.calling(DatabaseUnavailable, self._not_asked), reaching(self.target):
                    lane = await take()
                session = Session(lane)
                try:
                    yield session
                finally:
                    try:
                        await session.release()
                    finally:
                        self._lanes.give_back(lane)

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

"""Lanes: each is one connection, with SQLAlchemy's engine on that very connection for whoever asks for it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from shared.db_faults import translated
from shared.db_postgres import PostgresConnection, open_postgres
from shared.db_sqlite import READER, SqliteConnection, SqliteKind, checkpoint, writer
from shared.db_url import DatabaseTarget

CONNECT_TIMEOUT_SECONDS = 10.0
COMMITS_PER_CHECKPOINT = 250


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


class Lane[D: (SqliteConnection, PostgresConnection)]:
    """One connection; SQLAlchemy's engine on it is made when first asked for."""

    def __init__(self, driver: D, url: URL, number: int = 0) -> None:
        self.driver: D = driver
        self.number = number
        self._url = url

    @cached_property
    def engine(self) -> AsyncEngine:
        """Return SQLAlchemy's engine, which knows this one connection only."""

        async def opened(*_: Any, **__: Any) -> Any:
            return self.driver if isinstance(self.driver, SqliteConnection) else self.driver.raw

        return create_async_engine(self._url, poolclass=StaticPool, async_creator=opened)

    async def close(self) -> None:
        """Close the connection."""
        if "engine" in self.__dict__:
            await self.engine.dispose()
        await self.driver.close()


class SqliteLanes:
    """One lane that writes and up to `readers_max` that read, each opened when first needed."""

    def __init__(self, target: DatabaseTarget, options: EngineOptions) -> None:
        self.write_lock = asyncio.Lock()
        self.read_turns = asyncio.Semaphore(options.readers_max)
        self._target = target
        self._writer_kind = writer(options.durable)
        self._writer: Lane[SqliteConnection] | None = None
        self._idle_readers: list[Lane[SqliteConnection]] = []
        self._lanes: list[Lane[SqliteConnection]] = []
        self._commits = 0
        self._checkpoint: asyncio.Task[None] | None = None

    async def writer(self) -> Lane[SqliteConnection]:
        """Return the lane that writes; whoever asks holds `write_lock`."""
        if self._writer is None:
            self._writer = await self._open(self._writer_kind)
        return self._writer

    async def reader(self) -> Lane[SqliteConnection]:
        """Return a lane that reads; whoever asks has one of `read_turns`."""
        return self._idle_readers.pop() if self._idle_readers else await self._open(READER)

    def give_back(self, lane: Lane[SqliteConnection]) -> None:
        """Let others read on a lane."""
        if lane is not self._writer:
            self._idle_readers.append(lane)

    def committed(self) -> None:
        """Keep the log short: writing it back waits for the disk, so another thread does it, every so many commits."""
        self._commits += 1
        is_due = self._commits % COMMITS_PER_CHECKPOINT == 0 and self._target.path is not None
        if is_due and (self._checkpoint is None or self._checkpoint.done()):
            self._checkpoint = asyncio.create_task(_checkpoint(self._target))

    async def close(self) -> None:
        """Close every connection."""
        if self._checkpoint is not None:
            await asyncio.wait([self._checkpoint])
        lanes, self._lanes, self._idle_readers, self._writer = self._lanes, [], [], None
        for lane in lanes:
            await lane.close()

    async def _open(self, kind: SqliteKind) -> Lane[SqliteConnection]:
        driver = SqliteConnection(self._target.path, kind)
        await driver.open()
        lane = Lane(driver, self._target.url)
        self._lanes.append(lane)
        # SQLAlchemy's first look at a connection ends in a rollback: nothing is lost by it yet
        async with lane.engine.connect():
            return lane


class PostgresLanes:
    """Up to `connections_max` connections, each opened when first needed and opened anew when it was lost."""

    def __init__(self, target: DatabaseTarget, options: EngineOptions) -> None:
        self.turns = asyncio.Semaphore(options.connections_max)
        self._target = target
        self._idle: list[tuple[int, Lane[PostgresConnection]]] = []
        self._numbers = itertools.count()
        bounds = {
            "statement_timeout": options.statement_seconds_max,
            "lock_timeout": options.lock_seconds_max,
            "idle_in_transaction_session_timeout": options.idle_seconds_max,
        }
        self._settings = {name: str(max(1, round(seconds * 1000))) for name, seconds in bounds.items()}
        self._settings |= {"application_name": "trading", "timezone": "UTC"}
        dialect = target.url.get_dialect()()
        self._arguments: dict[str, Any] = dict(dialect.create_connect_args(target.url)[1])

    async def begin(self, isolation: str | None, *, readonly: bool) -> Lane[PostgresConnection]:
        """Return a lane within a new transaction; whoever asks has one of `turns`."""
        lane = await self.take()
        try:
            await lane.driver.begin(isolation, readonly=readonly)
        except BaseException:
            lane.driver.cut()  # nobody knows how far the conversation went
            raise
        return lane

    async def take(self) -> Lane[PostgresConnection]:
        """Return a lane without a transaction; whoever asks has one of `turns`.

        The oldest that is idle: it has prepared the most statements already.
        """
        while self._idle:
            _, lane = heapq.heappop(self._idle)
            if lane.driver.is_usable:
                return lane
        driver = await open_postgres(self._arguments, self._settings, CONNECT_TIMEOUT_SECONDS)
        return Lane(driver, self._target.url, next(self._numbers))

    def give_back(self, lane: Lane[PostgresConnection]) -> None:
        """Let others have a lane, unless its connection is lost."""
        if lane.driver.is_usable:
            heapq.heappush(self._idle, (lane.number, lane))

    async def close(self) -> None:
        """Close every connection that nobody uses."""
        lanes, self._idle = self._idle, []
        for _, lane in lanes:
            await lane.close()


async def _checkpoint(target: DatabaseTarget) -> None:
    assert target.path is not None
    with translated(target):
        await asyncio.to_thread(checkpoint, target.path)

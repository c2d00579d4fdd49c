"""SQLite where it is quickest: on the loop's own thread.

SQLite is a library, not a server: a statement on a local file takes microseconds, a visit to another thread and back
takes a hundred times that, and longer while the loop is busy. So statements run where they are asked for. Only what
may really wait goes to aiosqlite's thread: opening the file, waiting for another process that writes, and the commits
of a database that must be on the disk before anyone goes on.

A transaction begins with its first statement, and writes whose count nobody asks for wait for the next statement or
the commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import aiosqlite

BUSY_TIMEOUT_SECONDS = 5.0
WAL_BYTES_MAX = 64 * 1024 * 1024  # the log shrinks back to this after a burst
WAL_PAGES_MAX = 16_000  # a log this long is written back within a commit; `checkpoint` keeps it far shorter


@dataclass(frozen=True)
class SqliteKind:
    """What a connection is for: `begin` starts its transactions, `pragmas` prepare it."""

    begin: str
    pragmas: tuple[str, ...]
    is_durable: bool = False


READER = SqliteKind("BEGIN", ("query_only=ON",))


def writer(is_durable: bool) -> SqliteKind:
    """Return the kind of the one connection that writes.

    IMMEDIATE: a deferred transaction that writes later can find its snapshot stale.
    """
    pragmas = (
        "journal_mode=WAL",
        f"synchronous={'FULL' if is_durable else 'NORMAL'}",
        "foreign_keys=ON",
        f"journal_size_limit={WAL_BYTES_MAX}",
        f"wal_autocheckpoint={WAL_PAGES_MAX}",
        "busy_timeout=0",  # a file that another process locks is waited for in the thread, not on the loop
    )
    return SqliteKind("BEGIN IMMEDIATE", pragmas, is_durable)


class SqliteConnection(aiosqlite.Connection):
    """A connection whose transactions begin with their first statement, in the thread that asks."""

    dialect = "sqlite"

    def __init__(self, path: Path | None, kind: SqliteKind) -> None:
        super().__init__(partial(_opened, path, kind.pragmas), iter_chunk_size=64)
        self._thread.daemon = True  # a process that forgot to close may still end
        self._kind = kind
        self._begun = False
        self._is_waiting = False
        self._deferred: list[tuple[str, Sequence[Sequence[Any]]]] = []

    async def open(self) -> None:
        """Start the thread and open the file in it; a thread that could not has ended when the error is raised."""
        try:
            await self
        except BaseException:
            await asyncio.to_thread(self._thread.join)
            raise

    def cursor(self) -> SqliteCursor:  # type: ignore[override]
        """Return a cursor; this waits for nothing."""
        return SqliteCursor(self)

    def defer(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Take a write whose count nobody asks for: it goes along with the next statement, or with the commit."""
        self._deferred.append((statement, rows))

    async def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of one statement."""
        raw = await self.ready()
        return raw.execute(statement, parameters).fetchall()

    async def change(self, statement: str, parameters: Sequence[Any]) -> int:
        """Run one statement, once for each row when `parameters` is a list of them; return how many rows it changed."""
        raw = await self.ready()
        if isinstance(parameters, list):
            return raw.executemany(statement, parameters).rowcount
        return raw.execute(statement, parameters).rowcount

    async def ready(self) -> sqlite3.Connection:
        """Return SQLite's own connection, within a transaction that holds every write so far."""
        raw = self._conn
        if not self._begun:
            await self._start(raw)
        if self._deferred:
            deferred, self._deferred = self._deferred, []
            for statement, rows in deferred:
                raw.executemany(statement, rows)
        return raw

    async def commit(self) -> None:
        """Commit, unless nothing was ever executed."""
        if self._deferred:
            await self.ready()
        if self._begun:
            if self._kind.is_durable:
                await self._execute(self._conn.commit)  # type: ignore[no-untyped-call]  # it waits for the disk
            else:
                self._conn.commit()
            self._begun = False

    async def rollback(self) -> None:
        """Roll back, unless nothing was ever executed."""
        self._deferred = []
        if self._begun:
            self._begun = False
            if self._is_waiting or self._kind.is_durable:  # the thread may still be at what a cancelled task asked for
                self._is_waiting = True
                await self._execute(self._conn.rollback)  # type: ignore[no-untyped-call]
                self._is_waiting = False
            else:
                self._conn.rollback()

    async def _start(self, raw: sqlite3.Connection) -> None:
        if self._is_waiting:  # a cancelled task did not wait for its end
            await self._execute(raw.rollback)  # type: ignore[no-untyped-call]
            self._is_waiting = False
        try:
            raw.execute(self._kind.begin)
            self._begun = True
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            # Set before the thread answers: a task cancelled meanwhile must still roll back.
            self._begun = self._is_waiting = True
            try:
                await self._execute(_begin_patiently, raw, self._kind.begin)  # type: ignore[no-untyped-call]
            except sqlite3.Error:
                self._begun = False
                raise
            self._is_waiting = False


class SqliteCursor:
    """One statement and its rows, as SQLAlchemy's adapter wants them."""

    def __init__(self, connection: SqliteConnection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Self:
        """Run one statement and fetch all its rows."""
        return await self._run(lambda cursor: cursor.execute(statement, parameters))

    async def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> Self:
        """Run one statement once for each tuple of parameters."""
        return await self._run(lambda cursor: cursor.executemany(statement, parameters))

    async def fetchall(self) -> list[Any]:
        """Return the rows, once."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Do nothing: the statement ended when it ran."""

    async def _run(self, operation: Callable[[sqlite3.Cursor], sqlite3.Cursor]) -> Self:
        cursor = (await self._connection.ready()).cursor()
        try:
            operation(cursor)
            self._rows = cursor.fetchall() if cursor.description else []
            self.description, self.rowcount, self.lastrowid = cursor.description, cursor.rowcount, cursor.lastrowid
        finally:
            cursor.close()
        return self


def checkpoint(path: Path) -> None:
    """Write the log back into the file, as far as nobody reads or writes it now; for another thread than the loop's."""
    raw = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        raw.execute("PRAGMA wal_checkpoint(PASSIVE)")
    finally:
        raw.close()


def _opened(path: Path | None, pragmas: Sequence[str]) -> sqlite3.Connection:
    name = ":memory:" if path is None else str(path)
    raw = sqlite3.connect(name, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        for pragma in pragmas:
            raw.execute(f"PRAGMA {pragma}")
    except BaseException:
        raw.close()
        raise
    return raw


def _begin_patiently(raw: sqlite3.Connection, begin: str) -> None:
    raw.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_SECONDS * 1000)}")
    try:
        raw.execute(begin)
    finally:
        raw.execute("PRAGMA busy_timeout=0")

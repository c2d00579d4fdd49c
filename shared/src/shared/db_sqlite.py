"""One visit to SQLite's thread for each statement.

Left alone, SQLAlchemy asks aiosqlite to make a cursor, execute, fetch and close: four waits for another thread,
and three more for BEGIN. Here a statement is one wait, BEGIN goes along with the first one, and writes whose count
nobody asks for go along with the next statement or the commit: a transaction of ten writes waits once.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import aiosqlite

BUSY_TIMEOUT_SECONDS = 5.0


class SqliteConnection(aiosqlite.Connection):
    """A connection whose transactions begin with their first statement."""

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self._thread.daemon = True  # a process that forgot to close may still end
        self._begin: str | None = None
        self._begun = False
        self._deferred: list[tuple[str, Sequence[Sequence[Any]]]] = []

    async def open(self) -> None:
        """Start the thread and open the file in it; a thread that could not has ended when the error is raised."""
        try:
            await self
        except BaseException:
            await asyncio.to_thread(self._thread.join)
            raise

    def begin_with(self, statement: str) -> None:
        """Remember what begins the next transaction."""
        self._begin = statement

    def cursor(self) -> SqliteCursor:  # type: ignore[override]
        """Return a cursor; this waits for nothing."""
        return SqliteCursor(self)

    def defer(self, statement: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Take a write whose count nobody asks for: it goes along with the next statement, or with the commit."""
        self._deferred.append((statement, parameters))

    async def commit(self) -> None:
        """Commit, unless nothing was ever executed."""
        if self._deferred:
            await self.visit(lambda raw: raw.commit())
            self._begun = False
            return
        begun, self._begin, self._begun = self._begun, None, False
        if begun:
            await super().commit()

    async def rollback(self) -> None:
        """Roll back, unless nothing was ever executed."""
        begun, self._begin, self._begun = self._begun, None, False
        self._deferred = []
        if begun:
            await super().rollback()

    async def visit(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run `work` in the connection's thread, in the transaction that is due."""
        begin, self._begin = self._begin, None
        if self._deferred:
            deferred, self._deferred = self._deferred, []
            work = partial(_writes_and, deferred, work)
        if begin is not None:
            # Set before the thread answers: a task cancelled meanwhile must still roll back.
            self._begun = True
            work = partial(_begin_and, begin, work)
        return await self._execute(work, self._conn)  # type: ignore[no-untyped-call]  # aiosqlite's own door


class SqliteCursor:
    """One statement and its rows, fetched in the same visit."""

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
        return await self._run(lambda raw: raw.execute(statement, parameters))

    async def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> Self:
        """Run one statement once for each tuple of parameters."""
        return await self._run(lambda raw: raw.executemany(statement, parameters))

    async def fetchall(self) -> list[Any]:
        """Return the rows, once."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Do nothing: the statement ended in its visit."""

    async def _run(self, operation: Callable[[sqlite3.Cursor], sqlite3.Cursor]) -> Self:
        found = await self._connection.visit(partial(_one_visit, operation))
        self._rows, self.description, self.rowcount, self.lastrowid = found
        return self


def connector(path: Path | None) -> Callable[[], sqlite3.Connection]:
    """Return what opens the file (None: a database in memory) without transactions of the driver's own."""
    name = ":memory:" if path is None else str(path)
    return lambda: sqlite3.connect(name, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)


def _one_visit(
    operation: Callable[[sqlite3.Cursor], sqlite3.Cursor], connection: sqlite3.Connection
) -> tuple[list[Any], Any, int, int | None]:
    cursor = connection.cursor()
    try:
        operation(cursor)
        rows = cursor.fetchall() if cursor.description else []
        return rows, cursor.description, cursor.rowcount, cursor.lastrowid
    finally:
        cursor.close()


def _writes_and(
    writes: Sequence[tuple[str, Sequence[Sequence[Any]]]],
    work: Callable[[sqlite3.Connection], Any],
    connection: sqlite3.Connection,
) -> Any:
    for statement, parameters in writes:
        connection.executemany(statement, parameters)
    return work(connection)


def _begin_and(begin: str, work: Callable[[sqlite3.Connection], Any], connection: sqlite3.Connection) -> Any:
    connection.execute(begin)
    return work(connection)

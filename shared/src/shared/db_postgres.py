"""PostgreSQL by asyncpg itself: a statement is one question on the wire and a few microseconds here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import asyncpg

from shared.db_chain import Guard, Write, chained, in_parts

STATEMENTS_CACHED_MAX = 300
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
CLOSE_SECONDS_MAX = 5.0
_ISOLATION: dict[str, Literal["serializable", "repeatable_read"]] = {
    "SERIALIZABLE": "serializable",
    "REPEATABLE READ": "repeatable_read",
}


class PostgresConnection:
    """One connection; its transaction is asyncpg's, so that one of SQLAlchemy's within it is a savepoint."""

    dialect = "postgresql"

    def __init__(self, raw: asyncpg.Connection[Any]) -> None:
        self.raw = raw
        self._transaction: Any = None
        self._writes: list[Write] | None = None
        self._guard: Guard | None = None

    @property
    def is_usable(self) -> bool:
        """Return whether the server is still at the other end."""
        return not self.raw.is_closed()

    async def begin(self, isolation: str | None, *, readonly: bool) -> None:
        """Begin a transaction; None is the server's own isolation."""
        level = _ISOLATION[isolation] if isolation is not None else None
        transaction = self.raw.transaction(isolation=level, readonly=readonly)
        await transaction.start()
        self._transaction = transaction

    def collect(self, guard: Guard | None) -> None:
        """Keep writes until the commit: they then go to the server as one statement, which is the whole transaction.

        What is asked before the first of them belongs to no transaction; what must see them begins one, guarded.
        """
        self._writes, self._guard = [], guard

    @property
    def collects(self) -> bool:
        """Return whether writes may be kept until the commit."""
        return self._writes is not None

    @property
    def has_begun(self) -> bool:
        """Return whether a transaction is open on the server."""
        return self._transaction is not None

    def defer(self, write: Write) -> None:
        """Take a write whose count nobody asks for: it goes along with the next statement, or with the commit."""
        assert self._writes is not None, "a write is deferred where writes are collected"
        self._writes.append(write)

    async def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of one statement."""
        if self._writes:
            await self._send(self._writes)
        return await self._asked(statement, parameters)

    async def change(self, statement: str, parameters: Sequence[Any]) -> int:
        """Run one statement and return how many rows it changed."""
        assert not isinstance(parameters, list), "PostgreSQL takes many rows as arrays, in one tuple"
        if self._writes is not None:
            await self._send(self._writes)
        assert self.has_begun, "a write belongs into a transaction"
        answer: str = await self.raw.execute(statement, *parameters)  # such as `INSERT 0 5`
        return int(answer.rpartition(" ")[2])

    async def commit(self) -> None:
        """Commit; a commit that fails has ended the transaction too."""
        writes, self._writes = self._writes, None
        if writes and not self.has_begun and len(in_parts(writes)) == 1:
            await self._write_at_once(writes)
        elif writes:
            await self._send(writes)
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            await transaction.commit()

    async def rollback(self) -> None:
        """Roll back what was not committed.

        A connection on which even that is not to be had, or not waited for, is cut: the server then rolls back, and
        nobody else gets a connection with half a conversation on it.
        """
        transaction, self._transaction = self._transaction, None
        self._writes = self._guard = None
        if transaction is None or not self.is_usable:
            return
        try:
            await transaction.rollback()
        except DRIVER_ERRORS:
            self.cut()
        except BaseException:
            self.cut()
            raise

    async def _send(self, writes: list[Write]) -> None:
        """Send what was kept, within a transaction that the guard allows."""
        if not self.has_begun:
            await self.begin(None, readonly=False)
            guard, self._guard = self._guard, None
            if guard is not None and not (await self.raw.fetchval(guard.statement, *guard.parameters)):
                raise guard.refusal()
        for part in in_parts(writes):
            statement, parameters = chained(part, None)
            await self.raw.execute(statement, *parameters)
        writes.clear()

    async def _write_at_once(self, writes: Sequence[Write]) -> None:
        """Let one statement be the transaction: the server commits it with its answer."""
        guard, self._guard = self._guard, None
        try:
            await self._asked(*chained(writes, guard))
        except asyncpg.DivisionByZeroError:
            if guard is None:
                raise
            raise guard.refusal() from None

    async def _asked(self, statement: str, parameters: Sequence[Any]) -> list[Any]:
        try:
            found: list[Any] = await self.raw.fetch(statement, *parameters)
        except BaseException as fault:
            is_cut_off = not isinstance(fault, Exception)  # cancelled, most likely: nobody knows how far it went
            if is_cut_off and not self.has_begun:  # and no rollback will tell
                self.cut()
            raise
        return found

    def cut(self) -> None:
        """End the connection without a word."""
        self.raw.terminate()

    async def close(self) -> None:
        """End the connection."""
        await self.raw.close(timeout=CLOSE_SECONDS_MAX)


async def open_postgres(
    arguments: dict[str, Any], settings: dict[str, str], timeout_seconds: float
) -> PostgresConnection:
    """Return a new connection; `arguments` are asyncpg's own, as SQLAlchemy reads them from the URL."""
    raw = await asyncpg.connect(
        **arguments,
        timeout=timeout_seconds,
        server_settings=settings,
        statement_cache_size=STATEMENTS_CACHED_MAX,
    )
    return PostgresConnection(raw)

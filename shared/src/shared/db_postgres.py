"""PostgreSQL by asyncpg itself: a statement is one question on the wire and a few microseconds here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import asyncpg

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

    async def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of one statement."""
        found: list[Any] = await self.raw.fetch(statement, *parameters)
        return found

    async def change(self, statement: str, parameters: Sequence[Any]) -> int:
        """Run one statement and return how many rows it changed."""
        assert not isinstance(parameters, list), "PostgreSQL takes many rows as arrays, in one tuple"
        answer: str = await self.raw.execute(statement, *parameters)  # such as `INSERT 0 5`
        return int(answer.rpartition(" ")[2])

    async def commit(self) -> None:
        """Commit; a commit that fails has ended the transaction too."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            await transaction.commit()

    async def rollback(self) -> None:
        """Roll back what was not committed.

        A connection on which even that is not to be had, or not waited for, is cut: the server then rolls back, and
        nobody else gets a connection with half a conversation on it.
        """
        transaction, self._transaction = self._transaction, None
        if transaction is None or not self.is_usable:
            return
        try:
            await transaction.rollback()
        except DRIVER_ERRORS:
            self.cut()
        except BaseException:
            self.cut()
            raise

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

"""A session: one transaction. Plain SQL goes straight to the driver; SQLAlchemy's part is made when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from shared.db_lanes import Lane
from shared.db_postgres import PostgresConnection
from shared.db_sqlite import SqliteConnection


class Session(AsyncSession):
    """An `AsyncSession` that costs nothing until it is used as one: making SQLAlchemy's takes longer than most steps.

    `driver` is the connection that it holds: plain SQL goes straight to it. What waits in `on_commit` is called once
    the transaction is known to be committed, and never if it is not.
    """

    def __init__(self, lane: Lane[SqliteConnection] | Lane[PostgresConnection]) -> None:
        self._lane = lane
        self.driver: SqliteConnection | PostgresConnection = lane.driver
        self.on_commit: list[Callable[[], None]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "sync_session" in self.__dict__:
            raise AttributeError(name)
        if isinstance(self.driver, PostgresConnection):  # it would begin, and commit, on its own
            assert self.driver.has_begun, "SQLAlchemy needs a transaction: use get_session() or read()"
        super().__init__(self._lane.engine, expire_on_commit=False)
        return getattr(self, name)

    @property
    def dialect(self) -> str:
        """Return `sqlite` or `postgresql`."""
        return self.driver.dialect

    @property
    def is_plain(self) -> bool:
        """Return whether nobody asked for SQLAlchemy's part."""
        return "sync_session" not in self.__dict__

    async def finish(self) -> None:
        """Commit what the session did."""
        if not self.is_plain:
            await self.commit()
        await self.driver.commit()
        for call in self.on_commit:
            call()

    async def release(self) -> None:
        """Give the connection back; what was not committed is undone."""
        try:
            if not self.is_plain:
                await self.close()
        finally:  # a cancelled task must not leave its transaction open on a connection that others will have
            await self.driver.rollback()


def session_of(session: AsyncSession) -> Session:
    """Return the session as `Database` made it."""
    assert isinstance(session, Session), "use a session of Database.get_session() or Database.read()"
    return session


async def fetch(session: AsyncSession, statement: str, parameters: Sequence[Any] = ()) -> Sequence[Any]:
    """Return the rows of SQL in the driver's own parameter style, with the driver's own types."""
    return await session_of(session).driver.fetch(statement, parameters)


async def change(session: AsyncSession, statement: str, parameters: Sequence[Any]) -> int:
    """Run SQL in the driver's own parameter style and return how many rows it changed; on SQLite a list is many rows."""
    return await session_of(session).driver.change(statement, parameters)


def numbered(dialect: str, statement: str) -> str:
    """Write the places of parameters as the driver wants them: `?` for SQLite, `$1`, `$2`... for PostgreSQL."""
    if dialect == "sqlite":
        return statement
    head, *rest = statement.split("?")
    return head + "".join(f"${place}{part}" for place, part in enumerate(rest, start=1))

"""One database into another, whole or not at all: every row copied, read back and compared before the commit."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from sqlalchemy import Table, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from shared.db import Database
from shared.errors import ConfigError, DatabaseError
from shared.sa_models import Base, LeaseRow
from shared.sa_types import money_from_numeric, utc_to_text

PAGE_ROWS: Final = 2_000
NOT_COPIED: Final = frozenset({LeaseRow.__tablename__})  # who writes now is a fact about processes, not about money
_MODULUS: Final = 1 << 256


class TableDigest(NamedTuple):
    """How many rows a table has, and a hash of their contents that no order of reading changes."""

    rows: int
    sha256: str


class CopiedTable(NamedTuple):
    """A table that is the same on both sides."""

    name: str
    rows: int
    sha256: str


async def copy_database(
    source: Database, target: Database, on_table: Callable[[CopiedTable], None] = lambda _table: None
) -> list[CopiedTable]:
    """Copy every table in one transaction of an empty target and compare both sides within it.

    The source is read in one snapshot. Nothing is left in the target when anything fails or differs.

    Raises
    ------
    ConfigError
        The target holds rows already.
    DatabaseError
        A table read back from the target is not what was read from the source.
    """
    copied = []
    async with source.read() as origin, target.get_session() as destination:
        await _refuse_rows(target, destination)
        for row_class in _row_classes():
            table = _table_of(row_class)
            expected = await _copy_table(origin, target, destination, row_class)
            found = await digest_table(destination, table)
            if found != expected:
                raise DatabaseError(
                    f"{target}: table {table.name} does not agree with {source} ({found.rows} rows, {expected.rows} "
                    f"expected; sha256 {found.sha256[:12]}, {expected.sha256[:12]} expected); nothing was copied"
                )
            copied.append(CopiedTable(str(table.name), *found))
            on_table(copied[-1])
        await _continue_counting(target, destination)
    return copied


async def digest_table(session: AsyncSession, table: Table) -> TableDigest:
    """Return the digest of a table as the session sees it: the same on SQLite and PostgreSQL for the same values."""
    digest = _Digest()
    async for page in _pages(session, table):
        digest.add(page)
    return digest.result()


class _Digest:
    """The sum of the rows' own hashes: two databases need not agree on the order of text."""

    def __init__(self) -> None:
        self._rows = 0
        self._sum = 0

    def add(self, page: Sequence[Mapping[str, Any]]) -> None:
        for row in page:
            words = "\x1f".join(f"{name}={_word(row[name])}" for name in sorted(row))
            self._sum = (self._sum + int.from_bytes(hashlib.sha256(words.encode()).digest())) % _MODULUS
        self._rows += len(page)

    def result(self) -> TableDigest:
        return TableDigest(self._rows, f"{self._sum:064x}")


async def _copy_table(
    origin: AsyncSession, target: Database, destination: AsyncSession, row_class: type[Base]
) -> TableDigest:
    digest = _Digest()
    async for page in _pages(origin, _table_of(row_class)):
        digest.add(page)
        await target.write_rows(destination, row_class, page)
    return digest.result()


async def _pages(session: AsyncSession, table: Table) -> AsyncIterator[list[dict[str, Any]]]:
    """Give a table's rows a page at a time, in the order of its primary key, so that memory stays small."""
    key = list(table.primary_key)
    last: tuple[Any, ...] | None = None
    while True:
        statement = select(table).order_by(*key).limit(PAGE_ROWS)
        if last is not None:
            statement = statement.where(tuple_(*key) > tuple_(*last))
        page = [dict(row) for row in (await session.execute(statement)).mappings()]
        if page:
            yield page
        if len(page) < PAGE_ROWS:
            return
        last = tuple(page[-1][column.name] for column in key)


async def _refuse_rows(target: Database, session: AsyncSession) -> None:
    for row_class in _row_classes():
        table = _table_of(row_class)
        rows = int(await session.scalar(select(func.count()).select_from(table)) or 0)
        if rows:
            raise ConfigError(
                f"{target}: table {table.name} holds {rows} rows already; copy into a new and empty database"
            )


async def _continue_counting(target: Database, session: AsyncSession) -> None:
    """Let PostgreSQL number new outbox rows after the copied ones; SQLite does so by itself."""
    if target.dialect == "postgresql":
        statement = (
            "SELECT setval(pg_get_serial_sequence('outbox', 'id'), max(id)) FROM outbox HAVING max(id) IS NOT NULL"
        )
        await session.execute(text(statement))


def _row_classes() -> list[type[Base]]:
    """Return every table's class, those first that others point to."""
    classes = {mapper.local_table: mapper.class_ for mapper in Base.registry.mappers}
    return [classes[table] for table in Base.metadata.sorted_tables if table.name not in NOT_COPIED]


def _table_of(row_class: type[Base]) -> Table:
    table = row_class.__table__
    assert isinstance(table, Table)
    return table


def _word(value: Any) -> str:
    """Return a value as one text, whichever database it came from."""
    if isinstance(value, Decimal):
        return f"{money_from_numeric(value):f}"
    if isinstance(value, datetime):
        return utc_to_text(value)
    return value.hex() if isinstance(value, bytes) else repr(value)

"""Rows of any class in plain SQL, the same on both databases: written in bulk, read whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Boolean, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession

from shared.db_chain import Write
from shared.db_postgres import PostgresConnection
from shared.db_session import change, fetch, numbered, session_of
from shared.sa_models import Base
from shared.sa_types import Money, UtcDateTime, money_from_numeric, money_to_text, utc_checked, utc_to_text

type Row = Mapping[str, Any]

_CONVERSIONS: dict[tuple[str, type[Any]], Callable[[Any], Any]] = {
    ("sqlite", Money): money_to_text,
    ("sqlite", UtcDateTime): utc_to_text,
    ("postgresql", Money): money_to_text,  # the server reads text many times quicker than asyncpg packs a Decimal
    ("postgresql", UtcDateTime): utc_checked,
}


_READ_CONVERSIONS: dict[tuple[str, type[Any]], Callable[[Any], Any]] = {
    ("sqlite", Money): Decimal,
    ("sqlite", UtcDateTime): datetime.fromisoformat,
    ("sqlite", Boolean): bool,
    ("postgresql", Money): money_from_numeric,
}


class Conflict(StrEnum):
    """What becomes of a row whose primary key is known."""

    FAILS = "fails"
    IGNORED = "ignored"
    UPDATES = "updates"


@dataclass(frozen=True)
class InsertPlan:
    """One INSERT: its text, and what turns each column's value into the driver's."""

    statement: str
    columns: tuple[str, ...]
    conversions: tuple[Callable[[Any], Any] | None, ...]
    key: tuple[str, ...]


@dataclass(frozen=True)
class SelectPlan:
    """One SELECT of all columns: its text, and what turns the driver's values into ours."""

    statement: str
    columns: tuple[str, ...]
    conversions: tuple[Callable[[Any], Any] | None, ...]


async def read_rows(
    session: AsyncSession, row_class: type[Base], tail: str, parameters: Sequence[Any] = ()
) -> list[dict[str, Any]]:
    """Return rows as dicts of all columns; `tail` is what follows FROM, with `?` for each parameter."""
    plan = _select_plan(dialect_of(session), row_class, tail)
    return [
        {
            name: value if convert is None or value is None else convert(value)
            for name, convert, value in zip(plan.columns, plan.conversions, row, strict=True)
        }
        for row in await fetch(session, plan.statement, driver_values(session, parameters))
    ]


def driver_values(session: AsyncSession, parameters: Sequence[Any]) -> list[Any]:
    """Return the parameters of plain SQL as the driver takes them."""
    if dialect_of(session) != "sqlite":
        return list(parameters)
    return [utc_to_text(value) if isinstance(value, datetime) else value for value in parameters]


async def insert_rows(
    session: AsyncSession, row_class: type[Base], rows: Sequence[Row], *, ignore_conflicts: bool = False
) -> int:
    """Insert `rows` (all with the same columns) and return how many are new; with `ignore_conflicts` known ones stay."""
    if not rows:
        return 0
    return await _execute(session, _insert_plan(session, row_class, rows, ignore_conflicts), rows)


async def write_rows(
    session: AsyncSession, row_class: type[Base], rows: Sequence[Row], *, conflict: Conflict = Conflict.FAILS
) -> None:
    """Write `rows` without asking how many were new: they may go along with the transaction's end."""
    if not rows:
        return
    if conflict is Conflict.UPDATES:
        plan, ordered = _upsert_plan(session, row_class, rows, None)
    else:
        plan, ordered = _insert_plan(session, row_class, rows, conflict is Conflict.IGNORED), list(rows)
    driver = session_of(session).driver
    if not isinstance(driver, PostgresConnection):
        driver.defer(plan.statement, _parameters(session, plan, ordered))
    elif driver.collects:
        driver.defer(Write(plan.statement, _parameters(session, plan, ordered), _table_of(row_class).name))
    else:
        await _execute(session, plan, ordered)


async def upsert_rows(
    session: AsyncSession, row_class: type[Base], rows: Sequence[Row], update: Sequence[str] | None = None
) -> int:
    """Insert `rows` or overwrite the columns `update` (all but the key) of those with the same primary key."""
    if not rows:
        return 0
    plan, ordered = _upsert_plan(session, row_class, rows, update)
    return await _execute(session, plan, ordered)


def _insert_plan(
    session: AsyncSession, row_class: type[Base], rows: Sequence[Row], ignore_conflicts: bool
) -> InsertPlan:
    return _plan(dialect_of(session), row_class, tuple(rows[0]), "DO NOTHING" if ignore_conflicts else "")


def _upsert_plan(
    session: AsyncSession, row_class: type[Base], rows: Sequence[Row], update: Sequence[str] | None
) -> tuple[InsertPlan, list[Row]]:
    columns = tuple(rows[0])
    key = _key_of(row_class)
    changed = tuple(update) if update is not None else tuple(name for name in columns if name not in key)
    conflict = "DO UPDATE SET " + ", ".join(f'"{name}" = excluded."{name}"' for name in changed)
    plan = _plan(dialect_of(session), row_class, columns, conflict if changed else "DO NOTHING")
    # The last of several rows with one key wins; sorted, two writers take their locks in the same order.
    latest = {tuple(row[name] for name in key): row for row in rows}
    return plan, [latest[each] for each in sorted(latest)]


def dialect_of(session: AsyncSession) -> str:
    """Return `sqlite` or `postgresql`."""
    return session_of(session).dialect


async def _execute(session: AsyncSession, plan: InsertPlan, rows: Sequence[Row]) -> int:
    return await change(session, plan.statement, _parameters(session, plan, rows))


def _parameters(session: AsyncSession, plan: InsertPlan, rows: Sequence[Row]) -> Any:
    width = len(plan.columns)
    pick = itemgetter(*plan.columns) if width > 1 else lambda row: (row[plan.columns[0]],)
    for row in rows:
        assert len(row) == width, f"rows of one call share their columns: expected {plan.columns}, found {tuple(row)}"
    values = zip(*map(pick, rows), strict=True)
    columns = [
        list(column) if convert is None else _converted(convert, column)
        for convert, column in zip(plan.conversions, values, strict=True)
    ]
    return list(zip(*columns, strict=True)) if dialect_of(session) == "sqlite" else tuple(columns)


def _converted(convert: Callable[[Any], Any], column: Sequence[Any]) -> list[Any]:
    """Return a column's values as the driver takes them; one that follows itself, as a flat worth does, is taken over."""
    converted: list[Any] = []
    last: Any = None
    of_driver: Any = None
    for value in column:
        if value is not last:
            last, of_driver = value, None if value is None else convert(value)
        converted.append(of_driver)
    return converted


@lru_cache(maxsize=512)
def _plan(dialect: str, row_class: type[Base], columns: tuple[str, ...], conflict: str) -> InsertPlan:
    table = _table_of(row_class)
    unknown = [name for name in columns if name not in table.columns]
    assert not unknown, f"{table.name} has no column {', '.join(unknown)}"
    key = _key_of(row_class)
    names = ", ".join(f'"{name}"' for name in columns)
    if dialect == "sqlite":
        source = f"VALUES ({', '.join('?' * len(columns))})"
    else:
        arrays = (f"${place}::{_array_type(table, name)}" for place, name in enumerate(columns, start=1))
        source = f"SELECT * FROM unnest({', '.join(arrays)})"
    target = f"({', '.join(key)}) " if conflict.startswith("DO UPDATE") else ""
    on_conflict = f" ON CONFLICT {target}{conflict}" if conflict else ""
    return InsertPlan(
        statement=f'INSERT INTO "{table.name}" ({names}) {source}{on_conflict}',
        columns=columns,
        conversions=tuple(_CONVERSIONS.get((dialect, type(table.columns[name].type))) for name in columns),
        key=key,
    )


@lru_cache(maxsize=512)
def _select_plan(dialect: str, row_class: type[Base], tail: str) -> SelectPlan:
    table = _table_of(row_class)
    columns = tuple(column.name for column in table.columns)
    names = ", ".join(f'"{name}"' for name in columns)
    return SelectPlan(
        statement=numbered(dialect, f'SELECT {names} FROM "{table.name}" {tail}'),
        columns=columns,
        conversions=tuple(_READ_CONVERSIONS.get((dialect, type(table.columns[name].type))) for name in columns),
    )


def _array_type(table: Table, column: str) -> str:
    kind = table.columns[column].type
    name = kind.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    return f"text[]::{name}[]" if isinstance(kind, Money) else f"{name}[]"


def _table_of(row_class: type[Base]) -> Table:
    table = row_class.__table__
    assert isinstance(table, Table)
    return table


def _key_of(row_class: type[Base]) -> tuple[str, ...]:
    return tuple(column.name for column in _table_of(row_class).primary_key)

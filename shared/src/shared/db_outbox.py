"""The outbox and the cursors: what makes a message survive its sender, and a reader its restart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from shared.db_chain import Write
from shared.db_postgres import PostgresConnection
from shared.db_rows import Conflict, Row, dialect_of, driver_values, read_rows, write_rows
from shared.db_session import change, fetch, numbered, session_of
from shared.sa_models import CursorRow, OutboxRow

KEYS_PER_STATEMENT_MAX = 500
_ACK = "UPDATE outbox SET acked_at = ? WHERE topic = ? AND acked_at IS NULL AND key {each}"
_SENT_SOON = (
    "UPDATE outbox SET sent_at = ? FROM (SELECT set_config('synchronous_commit', 'off', true) AS setting) AS quiet "
    "WHERE id = ANY(?::bigint[])"
)
_IN_KEYS = {"sqlite": "IN (SELECT value FROM json_each(?))", "postgresql": "= ANY(?::text[])"}


class OutboxMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is waiting to be acknowledged by its consumer."""

    id: int
    topic: str
    key: str
    payload: str
    as_of: datetime | None
    created_at: datetime
    sent_at: datetime | None


async def append(session: AsyncSession, rows: Sequence[Row], created_at: datetime) -> int:
    """Add messages {topic, key, payload, as_of}; they are sent in the order of their ids."""
    await write_rows(
        session,
        OutboxRow,
        [
            {
                "topic": row["topic"],
                "key": row["key"],
                "payload": row["payload"],
                "as_of": row.get("as_of"),
                "created_at": row.get("created_at", created_at),
            }
            for row in rows
        ],
    )
    return len(rows)


async def pending(session: AsyncSession, topic: str, limit: int, after_id: int = 0) -> list[OutboxMessage]:
    """Return messages of `topic` that nobody acknowledged, oldest first."""
    tail = "WHERE topic = ? AND acked_at IS NULL AND id > ? ORDER BY id LIMIT ?"
    rows = await read_rows(session, OutboxRow, tail, (topic, after_id, limit))
    return [OutboxMessage(**{name: row[name] for name in OutboxMessage.__struct_fields__}) for row in rows]


async def mark_sent(session: AsyncSession, ids: Sequence[int], sent_at: datetime) -> int:
    """Note that messages went to the bus; they stay pending until they are acknowledged."""
    each = "IN (SELECT value FROM json_each(?))" if dialect_of(session) == "sqlite" else "= ANY(?::bigint[])"
    statement = f"UPDATE outbox SET sent_at = ? WHERE id {each}"
    return await _change_each(session, statement, (sent_at,), ids)


async def write_sent(session: AsyncSession, ids: Sequence[int], sent_at: datetime) -> None:
    """Note that messages went to the bus without asking how many were new: it may wait for the transaction's end.

    PostgreSQL does not wait for its disk: a mark that a crash forgets sends the message again, as a lost answer does.
    """
    if _defers(session):
        _defer(session, _SENT_SOON, (sent_at, list(ids)), "outbox sent")
    else:
        await mark_sent(session, ids, sent_at)


async def acknowledge(session: AsyncSession, topic: str, keys: Sequence[str], acked_at: datetime) -> int:
    """Note that messages were handled; a second time changes nothing."""
    statement = _ACK.format(each=_IN_KEYS[dialect_of(session)])
    return await _change_each(session, statement, (acked_at, topic), keys)


async def write_acks(session: AsyncSession, topic: str, keys: Sequence[str], acked_at: datetime) -> None:
    """Note that messages were handled without asking how many were pending: it may wait for the transaction's end.

    The messages are others' of earlier transactions; one that this transaction appends is not seen.
    """
    if not _defers(session):
        await acknowledge(session, topic, keys, acked_at)
    elif keys:
        _defer(session, _ACK.format(each=_IN_KEYS["postgresql"]), (acked_at, topic, list(keys)), "outbox acks")


async def write_acks_until(session: AsyncSession, topic: str, as_of: datetime, acked_at: datetime) -> None:
    """Note that every message up to a business time was handled; it may wait for the transaction's end."""
    statement = "UPDATE outbox SET acked_at = ? WHERE topic = ? AND acked_at IS NULL AND as_of <= ?"
    if _defers(session):
        _defer(session, statement, (acked_at, topic, as_of), "outbox acks")
    else:
        await _change(session, statement, (acked_at, topic, as_of))


async def prune(session: AsyncSession, topic: str, acked_before: datetime, limit: int) -> int:
    """Delete at most `limit` messages that were acknowledged before a time."""
    old = "SELECT id FROM outbox WHERE topic = ? AND acked_at < ? ORDER BY id LIMIT ?"
    return await _change(session, f"DELETE FROM outbox WHERE id IN ({old})", (topic, acked_before, limit))


async def read_cursor(session: AsyncSession, name: str) -> str | None:
    """Return one cursor, None before it was ever set."""
    rows = await fetch(session, numbered(dialect_of(session), "SELECT value FROM cursors WHERE name = ?"), (name,))
    return rows[0][0] if rows else None


async def read_cursors(session: AsyncSession, prefix: str = "") -> dict[str, str]:
    """Return the cursors whose name begins with `prefix`, sorted by name."""
    begins = "substr(name, 1, length(?)) = ?" if dialect_of(session) == "sqlite" else "left(name, length(?)) = ?"
    statement = numbered(dialect_of(session), f"SELECT name, value FROM cursors WHERE {begins}")
    return dict(sorted((name, value) for name, value in await fetch(session, statement, (prefix, prefix))))


async def write_cursors(session: AsyncSession, values: Mapping[str, str | int]) -> None:
    """Set cursors by name."""
    rows = [{"name": name, "value": str(value)} for name, value in values.items()]
    await write_rows(session, CursorRow, rows, conflict=Conflict.UPDATES)


def _defers(session: AsyncSession) -> bool:
    driver = session_of(session).driver
    return isinstance(driver, PostgresConnection) and driver.collects


def _defer(session: AsyncSession, statement: str, parameters: Sequence[Any], target: str) -> None:
    driver = session_of(session).driver
    assert isinstance(driver, PostgresConnection), "SQLite takes writes at once"
    driver.defer(Write(numbered("postgresql", statement), parameters, target))


async def _change(session: AsyncSession, statement: str, parameters: Sequence[Any]) -> int:
    return await change(session, numbered(dialect_of(session), statement), tuple(driver_values(session, parameters)))


async def _change_each(session: AsyncSession, statement: str, first: Sequence[Any], items: Sequence[Any]) -> int:
    """Run a statement whose last parameter is a list, part by part; return how many rows it changed."""
    changed = 0
    for start in range(0, len(items), KEYS_PER_STATEMENT_MAX):
        part: Any = list(items[start : start + KEYS_PER_STATEMENT_MAX])
        changed += await _change(
            session, statement, (*first, json.dumps(part) if dialect_of(session) == "sqlite" else part)
        )
    return changed

"""The outbox and the cursors: what makes a message survive its sender, and a reader its restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.db_rows import Conflict, Row, write_rows
from shared.sa_models import CursorRow, OutboxRow

KEYS_PER_STATEMENT_MAX = 500


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
    row = OutboxRow
    statement = (
        select(row.id, row.topic, row.key, row.payload, row.as_of, row.created_at, row.sent_at)
        .where(row.topic == topic, row.acked_at.is_(None), row.id > after_id)
        .order_by(row.id)
        .limit(limit)
    )
    return [OutboxMessage(**each) for each in (await session.execute(statement)).mappings()]


async def mark_sent(session: AsyncSession, ids: Sequence[int], sent_at: datetime) -> int:
    """Note that messages went to the bus; they stay pending until they are acknowledged."""
    changed = 0
    for part in _parts(ids):
        done = await session.execute(update(OutboxRow).where(OutboxRow.id.in_(part)).values(sent_at=sent_at))
        changed += done.rowcount  # type: ignore[attr-defined]
    return changed


async def acknowledge(session: AsyncSession, topic: str, keys: Sequence[str], acked_at: datetime) -> int:
    """Note that messages were handled; a second time changes nothing."""
    changed = 0
    for part in _parts(keys):
        row = OutboxRow
        statement = update(row).where(row.topic == topic, row.key.in_(part), row.acked_at.is_(None))
        done = await session.execute(statement.values(acked_at=acked_at))
        changed += done.rowcount  # type: ignore[attr-defined]
    return changed


async def prune(session: AsyncSession, topic: str, acked_before: datetime, limit: int) -> int:
    """Delete at most `limit` messages that were acknowledged before a time."""
    row = OutboxRow
    old = select(row.id).where(row.topic == topic, row.acked_at < acked_before).order_by(row.id).limit(limit)
    done = await session.execute(delete(row).where(row.id.in_(old)).execution_options(synchronize_session=False))
    return int(done.rowcount)  # type: ignore[attr-defined]


async def read_cursors(session: AsyncSession, prefix: str = "") -> dict[str, str]:
    """Return the cursors whose name begins with `prefix`, sorted by name."""
    statement = select(CursorRow.name, CursorRow.value).where(CursorRow.name.startswith(prefix, autoescape=True))
    return dict(sorted((name, value) for name, value in await session.execute(statement)))


async def write_cursors(session: AsyncSession, values: Mapping[str, str | int]) -> None:
    """Set cursors by name."""
    rows = [{"name": name, "value": str(value)} for name, value in values.items()]
    await write_rows(session, CursorRow, rows, conflict=Conflict.UPDATES)


def _parts[T](items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + KEYS_PER_STATEMENT_MAX] for start in range(0, len(items), KEYS_PER_STATEMENT_MAX)]

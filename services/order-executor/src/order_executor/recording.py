"""Writing decided records, in an order that foreign keys accept."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from order_executor.records import Records
from shared.db import Conflict, Database
from shared.db_rows import read_rows
from shared.sa_models import DecisionRow, LedgerRow, OrderRow, TradeRow

KEYS_PER_QUERY_MAX = 500


async def write_records(database: Database, session: AsyncSession, records: Records) -> None:
    """Write the rows of one batch: intents first, then what became of them."""
    if records.orders:
        await database.write_rows(session, OrderRow, list(records.orders.values()), conflict=Conflict.UPDATES)
    if records.trades:
        await database.write_rows(session, TradeRow, records.trades)
    if records.ledger:
        await database.write_rows(session, LedgerRow, records.ledger)
    if records.decisions:
        await database.write_rows(session, DecisionRow, records.decisions)
    if records.outbox:
        await database.append_outbox(session, records.outbox)


async def decided_ids(session: AsyncSession, signal_ids: Sequence[str]) -> set[str]:
    """Return those signals that have been decided before: they came twice."""
    known: set[str] = set()
    for start in range(0, len(signal_ids), KEYS_PER_QUERY_MAX):
        page = signal_ids[start : start + KEYS_PER_QUERY_MAX]
        places = ", ".join("?" * len(page))
        rows = await read_rows(session, DecisionRow, f"WHERE signal_id IN ({places})", page)
        known.update(row["signal_id"] for row in rows)
    return known

"""What a service lets go of: journals past their bound, a few rows to a transaction, never what `trading verify` folds.

Candles, orders, fills, ledger and movements are the record and are never touched. What became of a signal without an
order, and snapshots between midnights, may be bounded by business time; nothing is by default.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.stdlib import BoundLogger

from shared.clock import Clock
from shared.config import Settings
from shared.db import Database
from shared.errors import DatabaseError
from shared.models import from_milliseconds
from shared.sa_models import (
    Base,
    CandleGapRow,
    CandleRevisionRow,
    CursorRow,
    DecisionRow,
    InboxRow,
    OrderRow,
    PortfolioSnapshotRow,
    SignalRow,
)

PRUNE_EVERY_SECONDS: Final = 60.0
ROWS_PER_TRANSACTION_MAX: Final = 1_000
TRANSACTIONS_PER_TURN_MAX: Final = 50
_MIDNIGHT: Final = "00:00:00"

type Rule = Callable[[AsyncSession, int], Awaitable[int]]
"""Deletes at most so many rows in the session's transaction and returns how many."""


def keep_newest(row_class: type[Base], recorded_at: Any, rows_max: int) -> Rule:
    """Return the rule that keeps the `rows_max` rows recorded last."""
    key = list(row_class.__table__.primary_key)

    async def prune(session: AsyncSession, limit: int) -> int:
        count = int(await session.scalar(select(func.count()).select_from(row_class)) or 0)
        surplus = min(count - rows_max, limit)
        if surplus <= 0:
            return 0
        oldest = (await session.execute(select(*key).order_by(recorded_at, *key).limit(surplus))).all()
        await session.execute(delete(row_class).where(tuple_(*key).in_([tuple(row) for row in oldest])))
        return len(oldest)

    return prune


def forget_idle_signals(watermark: str, age_max: timedelta) -> Rule:
    """Return the rule that forgets signals older than `age_max` that led to no order, with what became of them."""

    async def prune(session: AsyncSession, limit: int) -> int:
        until = await _until(session, watermark, age_max)
        if until is None:
            return 0
        row = DecisionRow
        ordered = select(OrderRow.id).where(OrderRow.signal_id == row.signal_id).exists()
        old = select(row.signal_id).where(row.outcome != "ordered", row.as_of < until, ~ordered)
        ids = list((await session.scalars(old.order_by(row.as_of).limit(limit))).all())
        if ids:
            await session.execute(delete(row).where(row.signal_id.in_(ids)))
            await session.execute(delete(SignalRow).where(SignalRow.id.in_(ids)))
        return len(ids)

    return prune


def thin_snapshots(watermark: str, age_max: timedelta) -> Rule:
    """Return the rule that keeps, of snapshots older than `age_max`, those of midnight UTC."""

    async def prune(session: AsyncSession, limit: int) -> int:
        until = await _until(session, watermark, age_max)
        if until is None:
            return 0
        row = PortfolioSnapshotRow
        found, after = 0, from_milliseconds(0)
        while found < limit:
            old = select(row.id, row.snapshot_at).where(row.snapshot_at > after, row.snapshot_at < until)
            page = (await session.execute(old.order_by(row.snapshot_at).limit(limit))).all()
            if not page:
                break
            after = page[-1][1]
            ids = [snapshot_id for snapshot_id, moment in page if f"{moment:%H:%M:%S}" != _MIDNIGHT][: limit - found]
            if ids:
                await session.execute(delete(row).where(row.id.in_(ids)))
            found += len(ids)
        return found

    return prune


def rules_of(service: str, settings: Settings) -> dict[str, Rule]:
    """Return what `service` prunes, by the name of the table: each table has one owner."""
    if service == "data-collector":
        return {
            "candle_revisions": keep_newest(
                CandleRevisionRow, CandleRevisionRow.recorded_at, settings.candle_revisions_max
            ),
            "candle_gaps": keep_newest(CandleGapRow, CandleGapRow.recorded_at, settings.candle_gaps_max),
        }
    if service == "order-executor":
        rules = {"inbox": keep_newest(InboxRow, InboxRow.received_at, settings.inbox_rows_max)}
        if settings.decision_retention_days:
            age_max = timedelta(days=settings.decision_retention_days)
            rules["decisions"] = forget_idle_signals("executor/watermark", age_max)
        return rules
    if service == "portfolio-manager" and settings.snapshot_retention_days:
        age_max = timedelta(days=settings.snapshot_retention_days)
        return {"portfolio_snapshots": thin_snapshots("portfolio/watermark", age_max)}
    return {}


class Pruner:
    """Applies rules every minute of machine time, in small transactions between those of the service."""

    def __init__(self, database: Database, rules: Mapping[str, Rule], *, clock: Clock, log: BoundLogger) -> None:
        self._database = database
        self._rules = dict(rules)
        self._clock = clock
        self._log = log

    async def run(self, stop: asyncio.Event) -> None:
        """Prune until `stop`; a database that is away is tried again a minute later."""
        while self._rules and not stop.is_set():
            try:
                await self.prune()
            except DatabaseError as error:
                if not error.retryable:
                    raise
                self._log.warning("retention.waits", error=str(error))
            await self._pause(stop)

    async def prune(self) -> dict[str, int]:
        """Apply every rule until nothing is left to do, within a bound; return the rows that went, by table."""
        removed = {name: await self._apply(rule) for name, rule in self._rules.items()}
        gone = {name: rows for name, rows in removed.items() if rows}
        if gone:
            self._log.info("retention.pruned", rows=gone)
        return gone

    async def _apply(self, rule: Rule) -> int:
        removed = 0
        for _ in range(TRANSACTIONS_PER_TURN_MAX):
            async with self._database.get_session() as session:
                rows = await rule(session, ROWS_PER_TRANSACTION_MAX)
            removed += rows
            if rows < ROWS_PER_TRANSACTION_MAX:
                break
        return removed

    async def _pause(self, stop: asyncio.Event) -> None:
        waits: Sequence[asyncio.Future[Any]] = (
            asyncio.ensure_future(stop.wait()),
            asyncio.ensure_future(self._clock.sleep(PRUNE_EVERY_SECONDS)),
        )
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()


async def _until(session: AsyncSession, watermark: str, age_max: timedelta) -> datetime | None:
    """Return the business time before which rows are too old; None before the service has handled anything."""
    stored = await session.scalar(select(CursorRow.value).where(CursorRow.name == watermark))
    return None if stored is None else from_milliseconds(int(stored)) - age_max

"""Behind the executor: fills and marks into snapshots, the day's summary, and the check at start."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.stdlib import BoundLogger

from portfolio_manager.config import PortfolioConfig
from portfolio_manager.portfolio import PortfolioTotals, PortfolioTracker
from portfolio_manager.snapshots import SnapshotSchedule, days_ended
from portfolio_manager.verification import Verification, verify_database
from shared.broker import Broker, Message
from shared.candle_reader import CandleReader
from shared.clock import Clock
from shared.db import Database
from shared.errors import BrokerError, DatabaseError
from shared.events import ORDER_STREAM, WATERMARK_STREAM, Event, Watermark
from shared.metrics import ServiceMetrics
from shared.models import TIMEFRAME_DELTA, Candle, Fill, OrderSide, from_milliseconds, to_milliseconds
from shared.notifier import TelegramNotifier
from shared.sa_models import AccountRow, ControlRow, PortfolioSnapshotRow, TradeRow

GROUP = "portfolio-manager"
ACCOUNT = "paper"
BELL_WAIT_MS = 500
BELLS_MAX = 1_000
OUTBOX_MAX = 5_000
RETRY_SECONDS = 1.0


class PortfolioLoop:
    """Follows the executor's watermark; owns snapshots and the daily summary, decides nothing about orders."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        config: PortfolioConfig,
        *,
        notifier: TelegramNotifier | None,
        clock: Clock,
        log: BoundLogger,
        metrics: ServiceMetrics,
    ) -> None:
        self.tracker = PortfolioTracker()
        self.verification: Verification | None = None
        self._database = database
        self._broker = broker
        self._config = config
        self._notifier = notifier
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._reader = CandleReader(database, "portfolio", config.streams, config.batch_rows_max)
        self._schedule = SnapshotSchedule(config.snapshot_interval, None)
        self._day_value: Decimal | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Handle close times until `stop`; a database or bus that is away is waited for."""
        bells: list[Message] = []
        is_loaded = False
        while not stop.is_set():
            try:
                if not is_loaded:
                    await self.load()
                    is_loaded = True
                handled = await self.step()
                if bells:
                    await self._broker.ack(GROUP, bells)
                    bells = []
                if not handled:
                    bells = await self._wait()
            except (DatabaseError, BrokerError) as error:
                is_loaded = is_loaded and isinstance(error, BrokerError)
                if not error.retryable:
                    raise
                self._metrics.error(error)
                self._log.warning("portfolio.waits", error=str(error))
                await self._clock.sleep(RETRY_SECONDS)

    async def load(self) -> None:
        """Compare every projection with its fills, then fold them for ourselves up to our own watermark."""
        self.verification = await verify_database(self._database)
        if not self.verification.is_clean:
            await self._halt(self.verification)
        await self._reader.load()
        until = self._reader.watermark
        async with self._database.read() as session:
            balance = await session.scalar(select(AccountRow.initial_balance).where(AccountRow.account == ACCOUNT))
            self.tracker = PortfolioTracker(balance if balance is not None else 0)
            if until is not None:
                for fill in await self._fills(session, until):
                    self.tracker.apply_fill(fill)
                for handled_until, symbol, timeframe in self._last_handled():
                    await self._mark_at(session, symbol, timeframe, handled_until)
        last = self._last_handled()
        self._schedule = SnapshotSchedule(self._config.snapshot_interval, last[-1][0] if last else None)
        self._day_value = await self._value_at_midnight(until)

    def check(self) -> tuple[bool, str]:
        """Return whether the loop is well, and how far it has come."""
        return True, f"handled up to {self._reader.watermark}" if self._reader.watermark else "waiting for candles"

    async def step(self) -> bool:
        """Handle what the executor has finished, in one transaction; return whether there was anything."""
        async with self._database.read() as session:
            stored = (await self._database.read_cursors("executor/watermark", session)).get("executor/watermark")
            if stored is None or from_milliseconds(int(stored)) == self._reader.watermark:
                return False
            candles, horizon = await self._reader.page(session, from_milliseconds(int(stored)))
            assert horizon is not None, "portfolio: a page with a bound reaches a close time"
            fills = await self._fills(session, horizon)
            outbox = await self._database.pending_outbox(ORDER_STREAM, OUTBOX_MAX, session=session)
            if self._reader.watermark is None:
                balance = await session.scalar(select(AccountRow.initial_balance).where(AccountRow.account == ACCOUNT))
                self.tracker.initial_balance = balance or self.tracker.initial_balance
        rows = await self._fold(candles, fills)
        handled = [row.key for row in outbox if row.as_of is None or row.as_of <= horizon]
        async with self._database.get_session() as session:
            if rows:
                await self._database.insert_rows(session, PortfolioSnapshotRow, rows, ignore_conflicts=True)
            if handled:
                await self._database.ack_outbox(session, ORDER_STREAM, handled)
            await self._database.write_cursors(session, self._reader.cursors(candles, horizon))
        self._reader.advance(candles, horizon)
        self._metrics.event("fill", len(fills))
        await self._broker.publish(WATERMARK_STREAM, Event(data=Watermark(service=GROUP), as_of=horizon))
        return True

    async def _fold(self, candles: Sequence[Candle], fills: Sequence[Fill]) -> list[dict[str, Any]]:
        """Apply close times in order; return the snapshots that fell due."""
        rows: list[dict[str, Any]] = []
        waiting = list(fills)
        for as_of, group in groupby(candles, key=lambda candle: candle.close_time):
            missed = self._schedule.due_before(as_of)
            if missed is not None:
                rows.append(_snapshot_row(self.tracker.totals(), missed))
            while waiting and waiting[0].as_of <= as_of:
                self.tracker.apply_fill(waiting.pop(0))
            for candle in group:
                self.tracker.mark(candle.symbol, candle.close, as_of)
            if self._schedule.due_at(as_of):
                rows.append(_snapshot_row(self.tracker.totals(), as_of))
            await self._end_day(as_of)
            self._schedule.handled(as_of)
        for fill in waiting:
            self.tracker.apply_fill(fill)
        return rows

    async def _end_day(self, as_of: datetime) -> None:
        if days_ended(self._schedule.handled_until, as_of):
            value = self.tracker.total_value
            if self._notifier is not None and self._day_value is not None:
                await self._notifier.send_daily_summary(self.tracker.positions, value, value - self._day_value)
            self._day_value = value
        elif self._day_value is None:
            self._day_value = self.tracker.initial_balance

    async def _fills(self, session: AsyncSession, until: datetime) -> list[Fill]:
        query = (
            select(TradeRow.__table__)
            .where(TradeRow.sequence > self.tracker.last_sequence, TradeRow.as_of <= until)
            .order_by(TradeRow.sequence)
        )
        rows = (await session.execute(query)).mappings()
        return [Fill(**{**row, "side": OrderSide(row["side"])}) for row in rows]

    def _last_handled(self) -> list[tuple[datetime, str, str]]:
        """Return when each stream's last candle closed, in the order in which they set marks: the newest close wins."""
        opened = ((stream, self._reader.open_time(stream)) for stream in self._reader.streams)
        return sorted((moment + TIMEFRAME_DELTA[stream[1]], *stream) for stream, moment in opened if moment is not None)

    async def _mark_at(self, session: AsyncSession, symbol: str, timeframe: str, close_time: datetime) -> None:
        open_time = close_time - TIMEFRAME_DELTA[timeframe]
        just_before = open_time - timedelta(milliseconds=1)
        for candle in await self._database.read_candles(symbol, timeframe, just_before, open_time, 1, session):
            self.tracker.mark(symbol, candle.close, close_time)

    async def _value_at_midnight(self, until: datetime | None) -> Decimal | None:
        if until is None:
            return None
        midnight = until.replace(hour=0, minute=0, second=0, microsecond=0)
        async with self._database.read() as session:
            query = select(PortfolioSnapshotRow.total_value).where(PortfolioSnapshotRow.snapshot_at <= midnight)
            latest = query.order_by(PortfolioSnapshotRow.snapshot_at.desc()).limit(1)
            value = await session.scalar(latest)
        return value if value is not None else self.tracker.initial_balance

    async def _halt(self, verification: Verification) -> None:
        """Stop new risk: what is stored is not what the fills add up to, and only a person can say why."""
        first = str(verification.differences[0])
        self._metrics.error("LedgerMismatch")
        self._log.error("ledger.mismatch", differences=len(verification.differences), first=first)
        row = {
            "account": ACCOUNT,
            "state": "HALT",
            "reason": f"ledger_mismatch: {first}",
            "set_by": GROUP,
            "seq": 1,
            "set_at": self._clock.now(),
        }
        async with self._database.get_session() as session:
            await self._database.upsert_rows(session, ControlRow, [row])
        if self._notifier is not None:
            await self._notifier.send_error(f"ledger mismatch, trading halted: {first}", GROUP)

    async def _wait(self) -> list[Message]:
        streams = [ORDER_STREAM, WATERMARK_STREAM]
        messages = await self._broker.read_group(GROUP, GROUP, streams, count=BELLS_MAX, block_ms=BELL_WAIT_MS)
        for message in messages:
            if message.error is not None:
                self._metrics.error("MalformedMessage")
                await self._broker.dead_letter(message, GROUP, message.error)
        return messages


def _snapshot_row(totals: PortfolioTotals, snapshot_at: datetime) -> dict[str, Any]:
    return {
        "id": f"{ACCOUNT}:{to_milliseconds(snapshot_at)}",
        "total_value": totals.total_value,
        "realized_pnl": totals.realized_pnl,
        "unrealized_pnl": totals.unrealized_pnl,
        "snapshot_at": snapshot_at,
        "cash": totals.cash,
    }

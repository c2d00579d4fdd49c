"""Behind the executor: fills and marks into snapshots, the day's summary, and the check at start."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.stdlib import BoundLogger

from portfolio_manager.config import PortfolioConfig
from portfolio_manager.fold import DayEnd, Folded, PortfolioFold
from portfolio_manager.portfolio import PortfolioTotals, PortfolioTracker
from portfolio_manager.snapshots import SnapshotSchedule
from portfolio_manager.verification import Verification, verify_database
from shared.broker import Broker
from shared.candle_reader import CandleReader
from shared.clock import Clock
from shared.db import Conflict, Database
from shared.db_orders import fill_of
from shared.db_rows import read_rows
from shared.domain.rounding import ZERO
from shared.door_bell import DoorBell
from shared.events import ORDER_STREAM, WATERMARK_STREAM
from shared.metrics import ServiceMetrics
from shared.models import TIMEFRAME_DELTA, Candle, Fill, to_milliseconds
from shared.notifier import TelegramNotifier
from shared.sa_models import AccountRow, ControlRow, PortfolioSnapshotRow, TradeRow

GROUP = "portfolio-manager"
ACCOUNT = "paper"
DAY_VALUE = "portfolio/day_value"


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
        self.verification: Verification | None = None
        self._database = database
        self._config = config
        self._notifier = notifier
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._reader = CandleReader(database, "portfolio", config.streams, config.batch_rows_max)
        self._bell = DoorBell(
            broker,
            database,
            GROUP,
            [ORDER_STREAM, WATERMARK_STREAM],
            clock=clock,
            log=log,
            metrics=metrics,
            dead_letters_max=config.dead_letters_max,
        )
        self._bell.heed("order-executor")
        self._fold = PortfolioFold(PortfolioTracker(), SnapshotSchedule(config.snapshot_interval, None))
        self._is_loaded = False

    @property
    def tracker(self) -> PortfolioTracker:
        """Return the portfolio as it is now."""
        return self._fold.tracker

    async def run(self, stop: asyncio.Event) -> None:
        """Handle close times until `stop`; a database or bus that is away is waited for."""
        await self._bell.follow(self.step, stop)

    async def load(self) -> None:
        """Compare every projection with its fills, then fold them for ourselves up to our own watermark."""
        self.verification = await verify_database(self._database)
        if not self.verification.is_clean:
            await self._halt(self.verification)
        await self._reader.load()
        until = self._reader.watermark
        last = self._last_handled()
        async with self._database.read() as session:
            tracker = PortfolioTracker(await _balance(session))
            if until is not None:
                for fill in await self._fills(session, tracker.last_sequence, until):
                    tracker.apply_fill(fill)
                for close_time, symbol, timeframe in last:
                    for candle in await self._candle_of(session, symbol, timeframe, close_time):
                        tracker.mark(symbol, candle.close, close_time)
            stored = (await self._database.read_cursors(DAY_VALUE, session)).get(DAY_VALUE)
        schedule = SnapshotSchedule(self._config.snapshot_interval, last[-1][0] if last else None)
        self._fold = PortfolioFold(tracker, schedule, Decimal(stored) if stored is not None else None)
        self._is_loaded = True

    def check(self) -> tuple[bool, str]:
        """Return whether the loop is well, and how far it has come."""
        return self._bell.check(self._reader.watermark)

    def check_turning(self) -> tuple[bool, str]:
        """Return False when the loop stands still and only a restart helps."""
        return self._bell.check_turning()

    async def step(self) -> bool:
        """Handle what the executor has finished, in one transaction; return whether there was anything."""
        if not self._is_loaded:
            await self.load()
        before = self._reader.watermark
        async with self._database.look() as session:
            executor = await self._database.read_moment("executor/watermark", session)
            if executor is None or (before is not None and executor <= before):
                return False
            candles, horizon = await self._reader.page(session, executor)
            assert horizon is not None, "portfolio: a page with a bound reaches a close time"
            fills = await self._fills(session, self.tracker.last_sequence, horizon)
            if before is None:
                self.tracker.initial_balance = await _balance(session)
        try:
            with self._metrics.processing():
                folded = self._fold.advance(candles, fills)
                await self._commit(folded, candles, horizon)
        except BaseException:
            self._is_loaded = False  # the portfolio ran ahead of what is stored
            raise
        self._measure(len(fills), executor - horizon)
        await self._tell(folded.day_ends)
        await self._bell.announce(horizon)
        return True

    async def _commit(self, folded: Folded, candles: Sequence[Candle], horizon: datetime) -> None:
        cursors: dict[str, str | int] = {**self._reader.cursors(candles, horizon)}
        if folded.day_ends:
            cursors[DAY_VALUE] = f"{folded.day_ends[-1].value:f}"
        async with self._database.batch() as session:
            rows = [_snapshot_row(*each) for each in folded.snapshots]
            await self._database.write_rows(session, PortfolioSnapshotRow, rows, conflict=Conflict.IGNORED)
            await self._database.write_acks_until(session, ORDER_STREAM, horizon)
            await self._database.write_cursors(session, cursors)
        self._reader.advance(candles, horizon)

    async def _tell(self, day_ends: Sequence[DayEnd]) -> None:
        """Send the summaries of days that are on record: after the commit, so that none is sent twice."""
        if self._notifier is not None:
            for end in day_ends:
                await self._notifier.send_daily_summary(end.positions, end.value, end.value - end.value_before)

    def _measure(self, fills: int, lag: timedelta) -> None:
        totals = self.tracker.totals()
        self._metrics.event("fill", fills)
        self._metrics.lag("orders", lag.total_seconds())
        self._metrics.pnl("realized", float(totals.realized_pnl))
        self._metrics.pnl("unrealized", float(totals.unrealized_pnl))

    def _last_handled(self) -> list[tuple[datetime, str, str]]:
        """Return when each stream's last candle closed, in the order in which they set marks: the newest close wins."""
        opened = ((stream, self._reader.open_time(stream)) for stream in self._reader.streams)
        return sorted((moment + TIMEFRAME_DELTA[stream[1]], *stream) for stream, moment in opened if moment is not None)

    async def _fills(self, session: AsyncSession, after_sequence: int, until: datetime) -> list[Fill]:
        tail = "WHERE sequence > ? AND as_of <= ? ORDER BY sequence"
        return [
            fill_of(row) for row in await self._database.read_rows(session, TradeRow, tail, (after_sequence, until))
        ]

    async def _candle_of(
        self, session: AsyncSession, symbol: str, timeframe: str, close_time: datetime
    ) -> list[Candle]:
        open_time = close_time - TIMEFRAME_DELTA[timeframe]
        just_before = open_time - timedelta(milliseconds=1)
        return await self._database.read_candles(symbol, timeframe, just_before, open_time, 1, session)

    async def _halt(self, verification: Verification) -> None:
        """Stop new risk: what is stored is not what the fills add up to, and only a person can say why."""
        first = str(verification.differences[0])
        self._metrics.error("LedgerMismatch")
        self._log.error("ledger.mismatch", differences=len(verification.differences), first=first)
        async with self._database.get_session() as session:
            columns = select(ControlRow.state, ControlRow.seq).where(ControlRow.account == ACCOUNT)
            known = (await session.execute(columns)).one_or_none()
            if known is None or known.state != "HALT":
                row = {
                    "account": ACCOUNT,
                    "state": "HALT",
                    "reason": f"ledger_mismatch: {first}",
                    "set_by": GROUP,
                    "seq": 1 if known is None else known.seq + 1,
                    "set_at": self._clock.now(),
                }
                await self._database.upsert_rows(session, ControlRow, [row])
        if self._notifier is not None:
            await self._notifier.send_error(f"ledger mismatch, trading halted: {first}", GROUP)


async def _balance(session: AsyncSession) -> Decimal:
    """Return what the account opened with; 0 before the executor has opened it."""
    rows = await read_rows(session, AccountRow, "WHERE account = ?", (ACCOUNT,))
    return rows[0]["initial_balance"] if rows else ZERO


def _snapshot_row(snapshot_at: datetime, totals: PortfolioTotals) -> dict[str, Any]:
    return {
        "id": f"{ACCOUNT}:{to_milliseconds(snapshot_at)}",
        "total_value": totals.total_value,
        "realized_pnl": totals.realized_pnl,
        "unrealized_pnl": totals.unrealized_pnl,
        "snapshot_at": snapshot_at,
        "cash": totals.cash,
    }

"""The durable loop: close times that the engine has finished, through the book, into the database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession
from structlog.stdlib import BoundLogger

from order_executor.executor import OrderExecutor, Step
from order_executor.measures import count_effects, show_account
from order_executor.opens import OpenWatch
from shared.broker import Broker
from shared.candle_reader import CandleReader
from shared.clock import Clock
from shared.db import Database, OutboxMessage
from shared.domain.effects import Effect
from shared.door_bell import DoorBell
from shared.errors import MalformedMessage
from shared.events import SIGNAL_STREAM, WATERMARK_STREAM, Event, SignalEvent, opened_stream
from shared.metrics import ServiceMetrics
from shared.models import Candle, OrderSide, Signal
from shared.sa_models import SignalRow

GROUP = "order-executor"
SIGNALS_MAX = 2_000


class Due(NamedTuple):
    """What one transaction handles: everything up to `watermark`."""

    candles: list[Candle]
    signals: list[Signal]
    unreadable_keys: list[str]
    watermark: datetime


class Awaited(NamedTuple):
    """A live close time that the engine has not finished, and since when (machine time) it is waited for."""

    close_time: datetime
    since: float


class ExecutorLoop:
    """Runs an `OrderExecutor` over stored candles and stored signals; the bus only rings the bell."""

    def __init__(
        self,
        executor: OrderExecutor,
        database: Database,
        broker: Broker,
        *,
        clock: Clock,
        log: BoundLogger,
        metrics: ServiceMetrics,
        on_commit: Callable[[Sequence[Effect]], None] = lambda _effects: None,
    ) -> None:
        self.executor = executor
        self._database = database
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._on_commit = on_commit
        config = executor.config
        self._reader = CandleReader(database, "executor", config.streams, config.batch_rows_max)
        self._opens = OpenWatch(() if config.is_deterministic else config.streams)
        opened_streams = [] if config.is_deterministic else [opened_stream(*stream) for stream in config.streams]
        self._bell = DoorBell(
            broker,
            database,
            GROUP,
            [SIGNAL_STREAM, WATERMARK_STREAM, *opened_streams],
            clock=clock,
            log=log,
            metrics=metrics,
            dead_letters_max=config.dead_letters_max,
        )
        self._bell.heed("strategy-engine")
        self._bell.listen(self._opens.hear)
        self._is_placed = False
        self._awaited: Awaited | None = None

    def listen(self, hear: Callable[[Event], None]) -> None:
        """Let `hear` know of everything that is said on the bus."""
        self._bell.listen(hear)

    async def run(self, stop: asyncio.Event) -> None:
        """Handle close times until `stop`; a database or bus that is away is waited for."""
        await self._bell.follow(self.step, stop)

    async def load(self) -> None:
        """Rebuild the book and find the place to go on from."""
        await self.executor.load()
        await self._reader.load()
        self._is_placed = True
        if self.executor.config.orphans == "close" and self._reader.watermark is not None:
            await self.executor.close_orphans(self._reader.watermark)

    def check(self) -> tuple[bool, str]:
        """Return whether the loop is well, and how far it has come."""
        return self._bell.check(self._reader.watermark)

    def check_turning(self) -> tuple[bool, str]:
        """Return False when the loop stands still and only a restart helps."""
        return self._bell.check_turning()

    async def step(self) -> bool:
        """Handle what is complete now, in one transaction; return whether there was anything."""
        if not (self._is_placed and self.executor.is_loaded):
            await self.load()
        due = await self._next()
        before = self._reader.watermark
        if due is None or (not due.candles and not due.signals and due.watermark == before):
            return await self._fill_at_opens()
        steps = plan_steps(due.candles, due.signals, before)
        cursors = self._reader.cursors(due.candles, due.watermark)
        with self._metrics.processing():
            effects = await self.executor.handle(steps, cursors, due.watermark, due.unreadable_keys)
        self._reader.advance(due.candles, due.watermark)
        self._metrics.event("signal", len(due.signals))
        self._report(effects)
        await self._bell.announce(due.watermark)
        return True

    async def _fill_at_opens(self) -> bool:
        """Fill, on a live feed, what waits for opens that are known before their candles have closed."""
        watermark = self._reader.watermark
        opened = self._opens.due(self._reader, self.executor.book)
        if not opened or watermark is None:
            return False
        with self._metrics.processing():
            effects = await self.executor.open_candles(opened, max(watermark, *(each.open_time for each in opened)))
        self._report(effects)
        return True

    def _report(self, effects: Sequence[Effect]) -> None:
        count_effects(self._metrics, effects)
        show_account(self._metrics, self.executor.book)
        self._on_commit(effects)

    async def _next(self) -> Due | None:
        before = self._reader.watermark
        async with self._database.look() as session:
            engine = await self._database.read_moment("engine/watermark", session)
            if not self.executor.config.is_deterministic:
                candles, whole = await self._reader.page(session, None)
                horizon = self._live_horizon(candles, whole, engine)
            elif engine is None:
                return None
            elif before is not None and engine <= before:
                candles, horizon = [], before
            else:
                candles, horizon = await self._reader.page(session, engine)
                self._metrics.lag("signals", (engine - (horizon or engine)).total_seconds())
            if horizon is None or (before is not None and horizon < before):
                horizon = before
            if horizon is None:
                return None
            signals, unreadable_keys = await self._due_signals(session, horizon)
        return Due([candle for candle in candles if candle.close_time <= horizon], signals, unreadable_keys, horizon)

    def _live_horizon(
        self, candles: Sequence[Candle], whole: datetime | None, engine: datetime | None
    ) -> datetime | None:
        """Return how far to go: to the engine's watermark, or past it once candles have waited for it long enough."""
        ahead = next((candle.close_time for candle in candles if engine is None or candle.close_time > engine), None)
        if ahead is None or whole is None:
            self._awaited = None
            return engine if whole is None or engine is None else min(engine, whole)
        now = self._clock.monotonic()
        if self._awaited is None or self._awaited.close_time != ahead:
            self._awaited = Awaited(ahead, now)
        is_over = now - self._awaited.since >= self.executor.config.watermark_wait_seconds
        return whole if is_over else engine

    async def _due_signals(self, session: AsyncSession, horizon: datetime) -> tuple[list[Signal], list[str]]:
        """Return the signals that nobody handled up to `horizon`, and the keys of messages that are none."""
        signals: list[Signal] = []
        unreadable_keys: list[str] = []
        after_id = 0
        while True:
            page = await self._database.pending_outbox(SIGNAL_STREAM, SIGNALS_MAX, after_id, session)
            for row in page:
                if row.as_of is None or row.as_of <= horizon:
                    signal = await self._read_signal(session, row)
                    if signal is None:
                        unreadable_keys.append(row.key)
                    else:
                        signals.append(signal)
            last = page[-1] if page else None
            if last is None or len(page) < SIGNALS_MAX or (last.as_of is not None and last.as_of > horizon):
                return signals, unreadable_keys
            after_id = last.id

    async def _read_signal(self, session: AsyncSession, row: OutboxMessage) -> Signal | None:
        """Return a message's signal; one that cannot be read any more is taken from its own table."""
        with contextlib.suppress(MalformedMessage):
            data = SignalEvent.decode(row.payload).data
            if isinstance(data, Signal):
                return data
        self._metrics.error("MalformedMessage")
        self._log.error("signal.unreadable", key=row.key)
        stored = await self._database.read_rows(session, SignalRow, "WHERE id = ?", (row.key,))
        return Signal(**{**stored[0], "side": OrderSide(stored[0]["side"])}) if stored else None


def plan_steps(candles: Sequence[Candle], signals: Sequence[Signal], handled_until: datetime | None) -> list[Step]:
    """Return close times in order, each with its candles and signals; what is late joins the first one."""
    by_time: dict[datetime, Step] = {}
    for candle in candles:
        _step_at(by_time, candle.close_time, handled_until).candles.append(candle)
    for signal in signals:
        _step_at(by_time, signal.created_at, handled_until).signals.append(signal)
    return [by_time[as_of] for as_of in sorted(by_time)]


def _step_at(by_time: dict[datetime, Step], moment: datetime, handled_until: datetime | None) -> Step:
    as_of = moment if handled_until is None or moment > handled_until else handled_until
    step = by_time.get(as_of)
    if step is None:
        step = by_time[as_of] = Step(as_of, [], [])
    return step

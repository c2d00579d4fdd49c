"""The durable loop: close times that the engine has finished, through the book, into the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from structlog.stdlib import BoundLogger

from order_executor.executor import OrderExecutor, Step
from shared.broker import Broker, Message
from shared.candle_reader import CandleReader
from shared.clock import Clock
from shared.db import Database
from shared.domain.effects import Effect
from shared.errors import BrokerError, DatabaseError
from shared.events import SIGNAL_STREAM, WATERMARK_STREAM, Event, SignalEvent, Watermark
from shared.metrics import ServiceMetrics
from shared.models import Candle, Signal, from_milliseconds

GROUP = "order-executor"
BELL_WAIT_MS = 500
BELLS_MAX = 1_000
SIGNALS_MAX = 2_000
RETRY_SECONDS = 1.0


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
        self._broker = broker
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._on_commit = on_commit
        config = executor.config
        self._reader = CandleReader(database, "executor", config.streams, config.batch_rows_max)
        self._silent_since: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Handle close times until `stop`; a database or bus that is away is waited for."""
        bells: list[Message] = []
        is_ready = False
        while not stop.is_set():
            try:
                if not is_ready or not self.executor.is_loaded:
                    await self.load()
                    is_ready = True
                handled = await self.step()
                if bells:
                    await self._broker.ack(GROUP, bells)
                    bells = []
                if not handled:
                    bells = await self._wait()
            except (DatabaseError, BrokerError) as error:
                if not error.retryable:
                    raise
                self._metrics.error(error)
                self._log.warning("executor.waits", error=str(error))
                await self._clock.sleep(RETRY_SECONDS)

    async def load(self) -> None:
        """Rebuild the book and find the place to go on from."""
        await self.executor.load()
        await self._reader.load()
        if self.executor.config.orphans == "close" and self._reader.watermark is not None:
            await self.executor.close_orphans(self._reader.watermark)

    def check(self) -> tuple[bool, str]:
        """Return whether the loop is well, and how far it has come."""
        return True, f"handled up to {self._reader.watermark}" if self._reader.watermark else "waiting for candles"

    async def step(self) -> bool:
        """Handle what is complete now, in one transaction; return whether there was anything."""
        candles, signals, watermark = await self._next()
        if watermark is None or (not candles and not signals and watermark == self._reader.watermark):
            return False
        steps = plan_steps(candles, signals, self._reader.watermark)
        with self._metrics.processing():
            effects = await self.executor.handle(steps, self._reader.cursors(candles, watermark), watermark)
        self._reader.advance(candles, watermark)
        self._metrics.event("signal", len(signals))
        self._on_commit(effects)
        await self._broker.publish(WATERMARK_STREAM, Event(data=Watermark(service=GROUP), as_of=watermark))
        return True

    async def _next(self) -> tuple[list[Candle], list[Signal], datetime | None]:
        async with self._database.read() as session:
            stored = (await self._database.read_cursors("engine/watermark", session)).get("engine/watermark")
            engine = from_milliseconds(int(stored)) if stored is not None else None
            outbox = await self._database.pending_outbox(SIGNAL_STREAM, SIGNALS_MAX, session=session)
            until = engine
            if not self.executor.config.is_deterministic and self._is_engine_silent(engine):
                until = None
            elif engine is None:
                return [], [], None
            candles, horizon = await self._reader.page(session, until)
        if horizon is None:
            horizon = self._reader.watermark
        if len(outbox) >= SIGNALS_MAX and horizon is not None and outbox[-1].as_of is not None:
            horizon = min(horizon, outbox[-1].as_of - timedelta(microseconds=1))
        if horizon is None:
            return [], [], None
        due = [SignalEvent.decode(row.payload).data for row in outbox if row.as_of is not None and row.as_of <= horizon]
        return [candle for candle in candles if candle.close_time <= horizon], due, horizon

    def _is_engine_silent(self, engine: datetime | None) -> bool:
        """Return whether a live engine has been behind this executor's candles for too long: stops go on without it."""
        if engine is None or engine != self._reader.watermark:
            self._silent_since = None
            return False
        now = self._clock.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        return now - self._silent_since >= self.executor.config.watermark_wait_seconds

    async def _wait(self) -> list[Message]:
        messages = await self._broker.read_group(
            GROUP, GROUP, [SIGNAL_STREAM, WATERMARK_STREAM], count=BELLS_MAX, block_ms=BELL_WAIT_MS
        )
        for message in messages:
            if message.error is not None:
                self._metrics.error("MalformedMessage")
                await self._broker.dead_letter(message, GROUP, message.error)
        return messages


def plan_steps(candles: Sequence[Candle], signals: Sequence[Signal], handled_until: datetime | None) -> list[Step]:
    """Return close times in order, each with its candles and signals; what is late joins the first one."""
    by_time: dict[datetime, tuple[list[Candle], list[Signal]]] = {}
    for candle in candles:
        by_time.setdefault(_not_before(candle.close_time, handled_until), ([], []))[0].append(candle)
    for signal in signals:
        by_time.setdefault(_not_before(signal.created_at, handled_until), ([], []))[1].append(signal)
    return [Step(as_of, *by_time[as_of]) for as_of in sorted(by_time)]


def _not_before(moment: datetime, handled_until: datetime | None) -> datetime:
    return moment if handled_until is None else max(moment, handled_until)

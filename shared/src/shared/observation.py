"""What no event tells: every few seconds a service looks at depths, ages, lags, breakers and checks, for /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import func, select

from shared.broker_port import DEAD_LETTER_STREAM, Broker
from shared.candle_reader import stream_of
from shared.clock import Clock
from shared.config import Settings
from shared.db import Database
from shared.errors import TradingError
from shared.events import ORDER_STREAM, SIGNAL_STREAM, WATERMARK_STREAM, candle_stream
from shared.healthcheck import HealthCheckServer
from shared.metrics import ServiceMetrics
from shared.models import TIMEFRAME_DELTA, from_milliseconds
from shared.notifier import TelegramNotifier
from shared.resilience import Outside
from shared.sa_models import OutboxRow

LOOK_SECONDS: Final = 5.0
SILENT_SECONDS_MIN: Final = 60.0
CANDLES_CURSOR: Final = "collector/candles/"
COLLECTOR: Final = "data-collector"
_LOG: Final = structlog.stdlib.get_logger("shared.observation")


@dataclass(frozen=True, slots=True)
class Duty:
    """What one service looks at, so that nothing is told twice: bus streams, outbox topics, and its own watermark."""

    consumer: str = ""
    bus_streams: Sequence[str] = ()
    topics: Sequence[str] = ()


def duty_of(service: str, settings: Settings) -> Duty:
    """Return what `service` looks at; a service that is none of the four looks at the bounded rest."""
    if service == COLLECTOR:
        candles = [candle_stream(symbol, timeframe) for symbol, timeframe in settings.streams]
        return Duty("", [*candles, WATERMARK_STREAM, DEAD_LETTER_STREAM])
    duties = {
        "strategy-engine": Duty("engine", [SIGNAL_STREAM], [SIGNAL_STREAM]),
        "order-executor": Duty("executor", [ORDER_STREAM], [ORDER_STREAM]),
        "portfolio-manager": Duty("portfolio"),
    }
    return duties.get(service, Duty())


@dataclass(frozen=True, kw_only=True)
class Sights:
    """Where an observer looks; `health` and `notifier` only where this service owns them."""

    database: Database
    broker: Broker
    clock: Clock
    health: HealthCheckServer | None = None
    notifier: TelegramNotifier | None = None
    outsides: Sequence[Outside] = ()


class Observer:
    """Sets one service's gauges; whatever cannot be looked at keeps its last value, and its check says why."""

    def __init__(self, service: str, settings: Settings, metrics: ServiceMetrics, sights: Sights) -> None:
        self._service, self._settings, self._metrics, self._sights = service, settings, metrics, sights
        self._duty = duty_of(service, settings)
        self._seen: dict[str, tuple[int, float]] = {}  # a stream's newest open time, and when it was first seen here
        self._counted: dict[str, int] = {}

    async def run(self) -> None:
        """Look for ever; nothing that fails here harms the service."""
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - a task boundary: one look that fails must not be the last
                self._metrics.error(error)
                _LOG.exception("observer.failed", service=self._service)
            await self._sights.clock.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once at everything."""
        self._look_inside()
        try:
            await self._look_at_bus()
            await self._look_at_database()
        except TradingError as error:  # away: the service's own calls wait for it, and readiness tells
            self._metrics.error(error)
        if self._sights.health is not None:
            document = await self._sights.health.run_checks()
            for name, found in document["checks"].items():
                self._metrics.check(name, ok=found["status"] == "ok")

    def _look_inside(self) -> None:
        for outside in self._sights.outsides:
            self._metrics.breaker(outside.name, outside.breaker.state)
            self._metrics.retry(outside.name, self._new(f"retry/{outside.name}", outside.retry_count))
        notifier = self._sights.notifier
        if notifier is not None:
            self._metrics.queue("telegram", notifier.queue_depth, notifier.limits.queue_max)
            self._metrics.queue_dropped("telegram", self._new("dropped/telegram", notifier.dropped_count))

    def _new(self, name: str, total: int) -> int:
        """Return how much a count has grown since the last look."""
        grown = total - self._counted.get(name, 0)
        self._counted[name] = total
        return grown

    async def _look_at_bus(self) -> None:
        for stream in self._duty.bus_streams:
            self._metrics.stream_length(stream, await self._sights.broker.depth(stream))

    async def _look_at_database(self) -> None:
        row = OutboxRow
        waiting = select(row.topic, func.count()).where(row.acked_at.is_(None)).group_by(row.topic)
        async with self._sights.database.read() as session:
            cursors = await self._sights.database.read_cursors("", session)
            rows = (await session.execute(waiting)).all() if self._duty.topics else []
        depths = {row[0]: row[1] for row in rows}
        for topic in self._duty.topics:
            self._metrics.outbox(topic, depths.get(topic, 0))
        if self._duty.consumer:
            self._tell_lag(cursors)
        if self._service == COLLECTOR:
            self._tell_ages(cursors)

    def _tell_lag(self, cursors: Mapping[str, str]) -> None:
        """Compare our watermark with the newest close time that is stored."""
        own, newest = cursors.get(f"{self._duty.consumer}/watermark"), newest_close_ms(cursors)
        if own is not None and newest is not None:
            self._metrics.end_to_end_lag(max(0, newest - int(own)) / 1000)

    def _tell_ages(self, cursors: Mapping[str, str]) -> None:
        clock = self._sights.clock
        for name, open_time in _open_times(cursors).items():
            symbol, timeframe = stream_of(name)
            step = TIMEFRAME_DELTA[timeframe]
            if self._settings.is_deterministic:
                known = self._seen.get(name)
                if known is None or known[0] != open_time:
                    self._seen[name] = known = (open_time, clock.monotonic())
                age = clock.monotonic() - known[1]
                usual = 2 * step.total_seconds() / self._settings.speed
            else:
                age = (clock.now() - from_milliseconds(open_time) - step).total_seconds()
                usual = 2 * step.total_seconds()
            self._metrics.data_age(f"{symbol} {timeframe}", max(age, 0.0), max(usual, SILENT_SECONDS_MIN))


def newest_close_ms(cursors: Mapping[str, str]) -> int | None:
    """Return the newest close time (ms) that the collector has stored, None before the first."""
    closes = [
        open_time + int(TIMEFRAME_DELTA[stream_of(name)[1]].total_seconds() * 1000)
        for name, open_time in _open_times(cursors).items()
    ]
    return max(closes, default=None)


def _open_times(cursors: Mapping[str, str]) -> dict[str, int]:
    return {
        name.removeprefix(CANDLES_CURSOR): int(value)
        for name, value in cursors.items()
        if name.startswith(CANDLES_CURSOR)
    }


@asynccontextmanager
async def observing(*observers: Observer) -> AsyncIterator[None]:
    """Run observers beside the block; they end with it."""
    tasks = [asyncio.create_task(observer.run(), name="observer") for observer in observers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

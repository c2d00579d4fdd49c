"""What a service running in a process of its own opens, and closes in reverse: database, bus, notifier, health."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
from structlog.stdlib import BoundLogger

from shared.broker import Broker, RedisBroker
from shared.clock import Clock, SystemClock
from shared.config import Settings
from shared.db import Database
from shared.healthcheck import HealthCheckServer
from shared.metrics import ServiceMetrics
from shared.notifier import TelegramNotifier
from shared.service import open_notifier, running_metrics


@dataclass(frozen=True, slots=True)
class ServiceParts:
    """The surroundings of one service; `up` builds them once for all, a process of its own for itself."""

    database: Database
    broker: Broker
    notifier: TelegramNotifier
    health: HealthCheckServer
    metrics: ServiceMetrics
    clock: Clock
    log: BoundLogger


def open_broker(settings: Settings, redis_url: str, clock: Clock) -> RedisBroker:
    """Return the bus at `redis_url` with the settings' bounds."""
    return RedisBroker(
        redis_url,
        stream_length_max=settings.stream_length_max,
        dead_letters_max=settings.dead_letters_max,
        clock=clock,
    )


def open_health(settings: Settings, service: str, port: int, clock: Clock) -> HealthCheckServer:
    """Return the health endpoints of a process, not yet listening."""
    return HealthCheckServer(
        service, port, host=settings.health_host, check_seconds_max=settings.health_check_seconds_max, clock=clock
    )


@asynccontextmanager
async def open_parts(settings: Settings, service: str) -> AsyncIterator[ServiceParts]:
    """Give a service its parts, checked: right revision, right mode, port free."""
    settings.require("database_url", "redis_url")
    clock, log = SystemClock(), structlog.stdlib.get_logger(service)
    metrics = ServiceMetrics(service, clock=clock)
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url, durable=not settings.dry_run, clock=clock)
        stack.push_async_callback(database.close)
        await database.check_revision()
        await database.stamp_mode(settings.trading_mode, settings.quote_asset)
        broker = open_broker(settings, settings.redis_url, clock)
        stack.push_async_callback(broker.close)
        await broker.connect()
        notifier = await stack.enter_async_context(open_notifier(settings, service, metrics))
        health = open_health(settings, service, settings.health_port_of(service), clock)
        health.register_check("database", database.ping)
        health.register_check("bus", broker.ping)
        await health.start()
        stack.push_async_callback(health.stop)
        stack.enter_context(running_metrics(metrics))
        yield ServiceParts(database, broker, notifier, health, metrics, clock, log)

"""Wiring of the data-collector: `data-collector`, `trading run data-collector`, and a part of `trading up`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

import structlog
from structlog.stdlib import BoundLogger

from data_collector.collector import Collector, CollectorPorts
from data_collector.config import CONSUMERS, CollectorConfig
from data_collector.feeds.choose import choose_feed
from data_collector.storage import SERVICE, CandleStorage
from shared.broker import RedisBroker
from shared.clock import Clock, SystemClock
from shared.config import Settings
from shared.db import Database
from shared.healthcheck import HealthCheckServer
from shared.metrics import ServiceMetrics
from shared.service import open_notifier, run_service, running_metrics, supervise


async def build_collector(
    settings: Settings, ports: CollectorPorts, *, consumers: tuple[str, ...] = CONSUMERS
) -> Collector:
    """Return a collector of the feed that the settings name; a replay's files are read here, off the loop."""
    config = CollectorConfig.from_settings(settings, consumers=consumers)
    feed = await asyncio.to_thread(choose_feed, config, ports.clock)
    storage = CandleStorage(
        ports.database, ports.broker, clock=ports.clock, quarantine_rows_max=config.quarantine_rows_max
    )
    return Collector(feed, storage, config, ports)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Collect until `stop`, the end of a replay or the end of `duration`."""
    settings.require("database_url", "redis_url")
    clock, log = SystemClock(), structlog.stdlib.get_logger(SERVICE)
    metrics = ServiceMetrics(SERVICE, clock=clock)
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url, durable=not settings.dry_run, clock=clock)
        stack.push_async_callback(database.close)
        await database.check_revision()
        await database.stamp_mode(settings.trading_mode, settings.quote_asset)
        broker = RedisBroker(
            settings.redis_url,
            stream_length_max=settings.stream_length_max,
            dead_letters_max=settings.dead_letters_max,
            clock=clock,
        )
        stack.push_async_callback(broker.close)
        await broker.connect()
        await stack.enter_async_context(open_notifier(settings, SERVICE, metrics))
        collector = await build_collector(settings, CollectorPorts(database, broker, clock, metrics, log))
        health = HealthCheckServer(
            SERVICE,
            settings.health_port_of(SERVICE),
            host=settings.health_host,
            check_seconds_max=settings.health_check_seconds_max,
            clock=clock,
        )
        health.register_check("database", database.ping)
        health.register_check("bus", broker.ping)
        health.register_check("collector", collector.check)
        await health.start()
        stack.push_async_callback(health.stop)
        stack.enter_context(running_metrics(metrics))
        await _run(collector, settings.duration, stop, clock, log)


async def _run(collector: Collector, duration: float, stop: asyncio.Event, clock: Clock, log: BoundLogger) -> None:
    async def end_after_duration() -> None:
        await clock.sleep(duration)
        stop.set()

    timer = asyncio.create_task(end_after_duration()) if duration else None
    try:
        await supervise({SERVICE: lambda: collector.run(stop)}, stop, log)
    finally:
        if timer is not None:
            timer.cancel()


def main() -> None:
    """Run the service until SIGTERM; the exit code says how it ended."""
    sys.exit(run_service(SERVICE, serve))

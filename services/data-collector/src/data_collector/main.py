"""Wiring of the data-collector: `data-collector`, `trading run data-collector`, and a part of `trading up`."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

from data_collector.collector import Collector, CollectorPorts
from data_collector.config import CONSUMERS, CollectorConfig
from data_collector.feeds.choose import choose_feed
from data_collector.feeds.port import StreamKey
from data_collector.storage import SERVICE, CandleStorage
from shared.clock import Clock
from shared.config import Settings
from shared.instances import RunPlan, plan_run
from shared.live_history import history_candles
from shared.service import run_service, supervise
from shared.standalone import ServiceParts, serve_alone


async def build_collector(
    settings: Settings, ports: CollectorPorts, *, plan: RunPlan | None = None, consumers: tuple[str, ...] = CONSUMERS
) -> Collector:
    """Return a collector of the feed that the settings name; files and strategies are read here, off the loop.

    A live feed begins with as much history as the strategies of `plan` (by default those of the settings) need.
    """
    config = CollectorConfig.from_settings(settings, consumers=consumers)
    if not settings.is_deterministic:
        planned: RunPlan = plan if plan is not None else await asyncio.to_thread(plan_run, settings)
        pairs = [(StreamKey(each.key.symbol, each.key.timeframe), each.strategy) for each in planned.instances]
        config = replace(
            config, history_needed=lambda stream, market_now: history_candles(pairs, market_now).get(stream, 0)
        )
    feed = await asyncio.to_thread(choose_feed, config, ports.clock, ports.log, ports.metrics)
    storage = CandleStorage(
        ports.database, ports.broker, clock=ports.clock, quarantine_rows_max=config.quarantine_rows_max
    )
    return Collector(feed, storage, config, ports)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Collect until `stop`, the end of a replay or the end of `duration`."""

    async def work(parts: ServiceParts, term: asyncio.Event) -> None:
        ports = CollectorPorts(parts.database, parts.broker, parts.clock, parts.metrics, parts.log)
        collector = await build_collector(settings, ports)
        parts.health.register_check("collector", collector.check)
        parts.health.register_check("collector_loop", collector.check_turning, liveness=True)
        timer = asyncio.create_task(_end_after(settings.duration, stop, parts.clock)) if settings.duration else None
        try:
            await supervise({SERVICE: lambda: collector.run(term)}, term, parts.log)
        finally:
            if timer is not None:
                timer.cancel()

    await serve_alone(settings, SERVICE, stop, work)


async def _end_after(seconds: float, stop: asyncio.Event, clock: Clock) -> None:
    await clock.sleep(seconds)
    stop.set()


def main() -> None:
    """Run the service until SIGTERM; the exit code says how it ended."""
    sys.exit(run_service(SERVICE, serve))

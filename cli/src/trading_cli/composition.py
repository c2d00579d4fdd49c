"""The whole platform in one process: one database, one bus, one health port, four services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import structlog

from data_collector.collector import Collector, CollectorPorts
from data_collector.main import build_collector
from order_executor.loop import ExecutorLoop
from order_executor.main import build_executor
from portfolio_manager.loop import PortfolioLoop
from portfolio_manager.main import build_portfolio
from shared.broker import Broker
from shared.clock import Clock, SystemClock
from shared.config import SERVICE_PORTS, Settings
from shared.db import Database
from shared.embedded_bus import EmbeddedBus
from shared.errors import StateLocked
from shared.events import ORDER_STREAM, SIGNAL_STREAM
from shared.healthcheck import HealthCheckServer
from shared.instances import RunPlan, plan_run
from shared.lease import FencedDatabase, Lease
from shared.metrics import ServiceMetrics
from shared.observation import Observer, Sights, observing
from shared.order_latency import OrderLatency
from shared.outbox import OutboxLimits, OutboxRelay
from shared.resilience import Outside
from shared.retention import Pruner, rules_of
from shared.service import open_notifier, supervise
from shared.standalone import ServiceParts, open_broker, open_database, open_health
from strategy_engine.loop import EngineLoop
from strategy_engine.main import build_engine
from trading_cli.state_dir import database_url

END_POLL_SECONDS = 0.02
CONSUMERS = ("engine", "executor", "portfolio")


@dataclass(frozen=True, slots=True)
class Platform:
    """Everything that runs, for whoever watches it."""

    settings: Settings
    plan: RunPlan
    database: Database
    broker: Broker
    bus: EmbeddedBus | None
    lease: Lease | None
    collector: Collector
    engine: EngineLoop
    executor: ExecutorLoop
    portfolio: PortfolioLoop
    relay: OutboxRelay
    health: HealthCheckServer
    latency: OrderLatency
    clock: Clock

    async def run(self, stop: asyncio.Event) -> None:
        """Run every service until `stop`, or until a replay has been handled by all of them."""
        log = structlog.stdlib.get_logger("up")

        async def collect() -> None:
            await self.collector.run(stop)
            if not stop.is_set():
                await self._until_all_handled(stop)
            stop.set()

        tasks = {
            "data-collector": collect,
            "strategy-engine": lambda: self.engine.run(stop),
            "order-executor": lambda: self.executor.run(stop),
            "portfolio-manager": lambda: self.portfolio.run(stop),
            "outbox": lambda: self.relay.run(stop),
        }
        rules = {name: rule for service in SERVICE_PORTS for name, rule in rules_of(service, self.settings).items()}
        pruner = Pruner(self.database, rules, clock=self.clock, log=log)
        tasks["retention"] = lambda: pruner.run(stop)
        bus, lease = self.bus, self.lease
        if bus is not None:
            tasks["bus"] = lambda: _until(stop, bus.supervise(lambda _code: self.relay.resend_all()))
        if lease is not None:
            tasks["lease"] = lambda: _until(stop, lease.keep())
        await supervise(tasks, stop, log)

    async def _until_all_handled(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            cursors = await self.database.read_cursors()
            end = int(cursors.get("collector/end", cursors.get("collector/watermark", 0)))
            if all(int(cursors.get(f"{name}/watermark", -1)) >= end for name in CONSUMERS):
                return
            await self.clock.sleep(END_POLL_SECONDS)


@asynccontextmanager
async def open_platform(settings: Settings, *, redis_url: str = "", db_url: str = "") -> AsyncIterator[Platform]:
    """Open database, bus and services for the state directory, which the caller holds."""
    clock = SystemClock()
    plan = plan_run(settings)
    async with AsyncExitStack() as stack:
        database = open_database(settings, db_url or database_url(settings.state), clock)
        stack.push_async_callback(database.close)
        await database.init_tables()
        await database.stamp_mode(settings.trading_mode, settings.quote_asset)
        lease = await _take_lease(settings, database, clock) if db_url else None  # a state's own file has a lock
        if lease is not None:
            stack.push_async_callback(lease.release)
        bus = None if redis_url else await stack.enter_async_context(EmbeddedBus(settings.state, clock=clock))
        broker = open_broker(settings, redis_url or (bus.url if bus else ""), clock)
        stack.push_async_callback(broker.close)
        await broker.connect()
        metrics = ServiceMetrics("up", clock=clock)
        notifier = await stack.enter_async_context(open_notifier(settings, "up", metrics))
        log = structlog.stdlib.get_logger("up")
        health = open_health(settings, "up", settings.health_port, clock)
        common = ServiceParts(database, broker, notifier, health, metrics, clock, log)
        platform = await _build(settings, plan, common, bus, lease)
        _register_checks(health, platform)
        await health.start()
        stack.push_async_callback(health.stop)
        await stack.enter_async_context(
            observing(*_observers(settings, common, [notifier.outside, broker.outside, database.outside]))
        )
        await platform.engine.prepare()
        yield platform


def _register_checks(health: HealthCheckServer, platform: Platform) -> None:
    """Let /ready ask what every service depends on and how it does, and /live whether its loop turns."""
    health.register_check("database", platform.database.ping)
    health.register_check("bus", platform.broker.ping)
    for name, loop in (
        ("data-collector", platform.collector),
        ("strategy-engine", platform.engine),
        ("order-executor", platform.executor),
        ("portfolio-manager", platform.portfolio),
    ):
        health.register_check(name, loop.check)
        health.register_check(f"{name}_loop", loop.check_turning, liveness=True)


def _observers(settings: Settings, common: ServiceParts, outsides: Sequence[Outside]) -> list[Observer]:
    """Return one observer for each service, and one for what they share."""
    database, broker, clock, notifier = common.database, common.broker, common.clock, common.notifier
    shared = Sights(
        database=database,
        broker=broker,
        clock=clock,
        health=common.health,
        notifier=notifier,
        outsides=outsides,
    )
    own = Sights(database=database, broker=broker, clock=clock)
    each = [Observer(name, settings, ServiceMetrics(name, clock=clock), own) for name in SERVICE_PORTS]
    return [Observer("up", settings, common.metrics, shared), *each]


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, which never ends by itself, until `stop`; its error is raised."""
    task, ending = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        ending.cancel()
        task.cancel()


async def _take_lease(settings: Settings, database: FencedDatabase, clock: Clock) -> Lease:
    """Take the place of all four services in a database that others may use too."""
    log = structlog.stdlib.get_logger("up")
    lease = Lease(database, tuple(SERVICE_PORTS), seconds=settings.lease_seconds, clock=clock, log=log)
    if not await lease.take():
        raise StateLocked(f"{database}: {await lease.other_holder()}; stop it, or give another --database-url")
    return lease


async def _build(
    settings: Settings, plan: RunPlan, common: ServiceParts, bus: EmbeddedBus | None, lease: Lease | None
) -> Platform:
    """Return the four services on common ground, each with metrics and a log of its own."""

    def parts(service: str) -> ServiceParts:
        metrics = ServiceMetrics(service, clock=common.clock)
        common.health.tell_live(metrics.live)
        return replace(common, metrics=metrics, log=structlog.stdlib.get_logger(service))

    database, broker, clock = common.database, common.broker, common.clock
    limits = OutboxLimits(outbox_rows_max=settings.outbox_rows_max)
    relay = OutboxRelay(database, broker, topics=[SIGNAL_STREAM, ORDER_STREAM], limits=limits, clock=clock)
    own, executing = parts("data-collector"), parts("order-executor")
    latency = OrderLatency(clock, executing.metrics.order_latency, is_live=not settings.is_deterministic)

    collector = await build_collector(
        settings, CollectorPorts(database, broker, clock, own.metrics, own.log, latency.announced), plan=plan
    )
    return Platform(
        settings=settings,
        plan=plan,
        database=database,
        broker=broker,
        bus=bus,
        lease=lease,
        collector=collector,
        engine=build_engine(settings, plan, parts("strategy-engine"), relay),
        executor=build_executor(settings, plan, executing, relay, on_effects=latency.committed),
        portfolio=build_portfolio(settings, parts("portfolio-manager")),
        relay=relay,
        health=common.health,
        latency=latency,
        clock=clock,
    )

"""How a service runs in a process of its own: reach the servers, take the lease or stand by, serve, let go.

Health answers first, so that a process that waits for its servers or for the lease says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from structlog.stdlib import BoundLogger

from shared.broker import Broker, RedisBroker
from shared.clock import Clock, SystemClock
from shared.config import Settings
from shared.db import Database, EngineOptions
from shared.errors import DatabaseError, LeaseLost
from shared.healthcheck import HealthCheckServer
from shared.lease import FencedDatabase, Lease
from shared.metrics import ServiceMetrics
from shared.notifier import TelegramNotifier
from shared.observation import Observer, Sights, observing
from shared.resilience import retry_with_backoff
from shared.retention import Pruner, rules_of
from shared.service import open_notifier, running_metrics

START_ATTEMPTS_MAX = 1_000  # the bound that counts is in seconds
START_DELAY_SECONDS = 0.2
START_DELAY_SECONDS_MAX = 2.0
RELEASE_SECONDS_MAX = 2.0

type Reach = Callable[[], Awaitable[object]]


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


class Opened(NamedTuple):
    """The parts of a process of its own, and what they are made of."""

    parts: ServiceParts
    database: FencedDatabase
    broker: RedisBroker


type Work = Callable[[ServiceParts, asyncio.Event], Awaitable[None]]


class Term(NamedTuple):
    """What runs while the lease is held."""

    work: Work
    pruner: Pruner


async def serve_alone(
    settings: Settings, service: str, stop: asyncio.Event, work: Work, prepare: Reach | None = None
) -> None:
    """Run `work` while this process holds the service's lease, until it returns or `stop` is set.

    A second copy of the service waits here. One that lost the lease (it was paused, or cut off from the database) gives
    up whatever it had in memory and stands by again. `prepare` is done before the lease: what takes long and writes
    nothing. The event that `work` gets ends one term only.
    """
    async with open_parts(settings, service) as opened:
        parts = opened.parts
        if not await _unless_stopped(lambda: _reach_servers(opened, settings), stop):
            return
        if prepare is not None:
            await prepare()
        lease = Lease(opened.database, [service], seconds=settings.lease_seconds, clock=parts.clock, log=parts.log)
        parts.health.register_check("lease", lease.check_health)
        while await lease.wait_for(stop):
            try:
                pruner = Pruner(parts.database, rules_of(service, settings), clock=parts.clock, log=parts.log)
                await _serve_term(lease, parts, Term(work, pruner), stop)
            except LeaseLost as error:
                lease.forget()
                parts.metrics.error(error)
                parts.log.warning("lease.lost", error=str(error))
            else:
                await _let_go(lease, parts.log)
                return


def open_broker(settings: Settings, redis_url: str, clock: Clock) -> RedisBroker:
    """Return the bus at `redis_url` with the settings' bounds."""
    return RedisBroker(
        redis_url,
        stream_length_max=settings.stream_length_max,
        dead_letters_max=settings.dead_letters_max,
        clock=clock,
    )


def open_database(settings: Settings, database_url: str, clock: Clock) -> FencedDatabase:
    """Return the database at `database_url` with the settings' bounds, not yet reached."""
    options = EngineOptions(
        durable=not settings.dry_run,
        connections_max=settings.database_connections_max,
        statement_seconds_max=settings.statement_seconds_max,
        lock_seconds_max=settings.lock_seconds_max,
        # A holder that sleeps inside a transaction holds up its successor: no longer than the lease lasts.
        idle_seconds_max=settings.lease_seconds,
    )
    return FencedDatabase(database_url, clock=clock, options=options)


def open_health(settings: Settings, service: str, port: int, clock: Clock) -> HealthCheckServer:
    """Return the health endpoints of a process, not yet listening."""
    return HealthCheckServer(
        service, port, host=settings.health_host, check_seconds_max=settings.health_check_seconds_max, clock=clock
    )


@asynccontextmanager
async def open_parts(settings: Settings, service: str) -> AsyncIterator[Opened]:
    """Give a service its parts: health listens, servers are not yet reached."""
    settings.require("database_url", "redis_url")
    clock, log = SystemClock(), structlog.stdlib.get_logger(service)
    metrics = ServiceMetrics(service, clock=clock)
    async with AsyncExitStack() as stack:
        database = open_database(settings, settings.database_url, clock)
        stack.push_async_callback(database.close)
        broker = open_broker(settings, settings.redis_url, clock)
        stack.push_async_callback(broker.close)
        health = open_health(settings, service, settings.health_port_of(service), clock)
        health.register_check("database", database.ping)
        health.register_check("bus", broker.ping)
        health.register_check("lease", lambda: (False, "not asked for yet: the servers are not reached"))
        health.tell_live(metrics.live)
        await health.start()
        stack.push_async_callback(health.stop)
        notifier = await stack.enter_async_context(open_notifier(settings, service, metrics))
        stack.enter_context(running_metrics(metrics))
        sights = Sights(
            database=database,
            broker=broker,
            clock=clock,
            health=health,
            notifier=notifier,
            outsides=[notifier.outside, broker.outside, database.outside],
        )
        await stack.enter_async_context(observing(Observer(service, settings, metrics, sights)))
        parts = ServiceParts(database, broker, notifier, health, metrics, clock, log)
        yield Opened(parts, database, broker)


async def _reach_servers(opened: Opened, settings: Settings) -> None:
    """Wait for database and bus, at most `start_seconds_max` each; what waiting does not mend is raised at once."""

    async def reach_database() -> None:
        await opened.database.check_revision()
        await opened.database.stamp_mode(settings.trading_mode, settings.quote_asset)

    for name, reach in (("database", reach_database), ("bus", opened.broker.connect)):
        await _insist(name, reach, opened.parts, settings.start_seconds_max)


async def _insist(name: str, reach: Reach, parts: ServiceParts, seconds_max: float) -> None:
    def tell(error: BaseException, delay: float) -> None:
        parts.metrics.retry(f"{name}_at_start")
        parts.log.warning("start.waits", server=name, error=str(error), retry_seconds=round(delay, 3))

    policy = retry_with_backoff(
        START_ATTEMPTS_MAX,
        START_DELAY_SECONDS,
        START_DELAY_SECONDS_MAX,
        clock=parts.clock,
        deadline=seconds_max,
        on_retry=tell,
    )
    await policy(reach)()


async def _serve_term(lease: Lease, parts: ServiceParts, of: Term, stop: asyncio.Event) -> None:
    """Run the work beside the renewal of its lease; the first of them that fails ends both."""
    term = asyncio.Event()

    async def follow_stop() -> None:
        await stop.wait()
        term.set()

    async def keep() -> None:
        await asyncio.gather(lease.keep(), of.pruner.run(term))

    task = asyncio.ensure_future(of.work(parts, term))
    keeper = asyncio.ensure_future(keep())
    follower = asyncio.ensure_future(follow_stop())
    try:
        await asyncio.wait({task, keeper}, return_when=asyncio.FIRST_COMPLETED)
        if keeper.done() and not task.done():
            keeper.result()
        await task
    finally:
        others = [each for each in (task, keeper, follower) if not each.done()]
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def _unless_stopped(work: Reach, stop: asyncio.Event) -> bool:
    """Return whether `work` was done; False when `stop` came first."""
    task, stopped = asyncio.ensure_future(work()), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return False
        task.result()
        return True
    finally:
        others = [each for each in (task, stopped) if not each.done()]
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def _let_go(lease: Lease, log: BoundLogger) -> None:
    try:
        async with asyncio.timeout(RELEASE_SECONDS_MAX):
            await lease.release()
    except (DatabaseError, TimeoutError) as error:  # it runs out by itself
        log.warning("lease.not_released", error=str(error))

"""Wiring of the order executor: `order-executor`, `trading run order-executor`, and a part of `trading up`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence

from order_executor.config import ExecutorConfig
from order_executor.executor import OrderExecutor
from order_executor.loop import ExecutorLoop
from order_executor.risk_manager import RiskManager
from shared.config import Settings
from shared.domain.effects import Effect
from shared.events import ORDER_STREAM
from shared.instances import RunPlan, plan_run
from shared.journal import note_effects
from shared.order_latency import OrderLatency
from shared.outbox import OutboxLimits, OutboxRelay
from shared.service import run_service, supervise
from shared.standalone import ServiceParts, serve_alone

SERVICE = "order-executor"


def build_executor(
    settings: Settings,
    plan: RunPlan,
    parts: ServiceParts,
    relay: OutboxRelay,
    on_effects: Callable[[Sequence[Effect]], None] = lambda _effects: None,
) -> ExecutorLoop:
    """Return the executor's loop over the planned sub-accounts."""

    def on_commit(effects: Sequence[Effect]) -> None:
        note_effects(parts.log, effects)
        if effects:
            relay.kick()
        on_effects(effects)

    executor = OrderExecutor(
        None,
        RiskManager(settings.risk_max_position_size, settings.risk_stop_loss_pct, settings.risk_daily_loss_limit_pct),
        parts.broker,
        parts.database,
        parts.notifier,
        settings.dry_run,
        config=ExecutorConfig.from_settings(settings, plan.rules, plan.shares, plan.default_rules),
    )
    return ExecutorLoop(
        executor,
        parts.database,
        parts.broker,
        clock=parts.clock,
        log=parts.log,
        metrics=parts.metrics,
        on_commit=on_commit,
    )


def build_relay(settings: Settings, parts: ServiceParts) -> OutboxRelay:
    """Return the relay of the orders' events."""
    limits = OutboxLimits(outbox_rows_max=settings.outbox_rows_max)
    return OutboxRelay(parts.database, parts.broker, topics=[ORDER_STREAM], limits=limits, clock=parts.clock)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the executor until `stop`."""
    plan = plan_run(settings)

    async def work(parts: ServiceParts, term: asyncio.Event) -> None:
        relay = build_relay(settings, parts)
        latency = OrderLatency(parts.clock, parts.metrics.order_latency, is_live=not settings.is_deterministic)
        loop = build_executor(settings, plan, parts, relay, on_effects=latency.committed)
        loop.listen(latency.hear)
        parts.health.register_check("executor", loop.check)
        parts.health.register_check("executor_loop", loop.check_turning, liveness=True)
        await supervise({SERVICE: lambda: loop.run(term), "relay": lambda: relay.run(term)}, term, parts.log)

    await serve_alone(settings, SERVICE, stop, work)


def main() -> None:
    """Run the service until SIGTERM; the exit code says how it ended."""
    sys.exit(run_service(SERVICE, serve))

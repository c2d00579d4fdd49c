"""Wiring of the strategy engine: `strategy-engine`, `trading run strategy-engine`, and a part of `trading up`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from shared.config import Settings
from shared.events import SIGNAL_STREAM
from shared.instances import RunPlan, plan_run
from shared.outbox import OutboxLimits, OutboxRelay
from shared.service import run_service, supervise
from shared.standalone import ServiceParts, serve_alone
from shared.strategy import CompiledStrategy
from shared.strategy_runner import CALL_SECONDS_MAX
from shared.watchdog import CallGuard
from strategy_engine.config import StrategyConfig
from strategy_engine.engine import StrategyEngine
from strategy_engine.loop import EngineLoop

SERVICE = "strategy-engine"


def build_engine(settings: Settings, plan: RunPlan, parts: ServiceParts, relay: OutboxRelay) -> EngineLoop:
    """Return the engine's loop over the planned instances."""
    guard = CallGuard(CALL_SECONDS_MAX)
    runners = [each.runner(settings.trading_mode, guard) for each in plan.instances]
    return EngineLoop(
        StrategyEngine(parts.broker, runners=runners, guard=guard),
        parts.database,
        parts.broker,
        StrategyConfig.from_settings(settings),
        clock=parts.clock,
        log=parts.log,
        metrics=parts.metrics,
        on_commit=relay.kick,
    )


def build_relay(settings: Settings, parts: ServiceParts, topics: Sequence[str]) -> OutboxRelay:
    """Return the relay of what this service has to say."""
    limits = OutboxLimits(outbox_rows_max=settings.outbox_rows_max)
    return OutboxRelay(parts.database, parts.broker, topics=topics, limits=limits, clock=parts.clock)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the engine until `stop`."""
    notes = plan_run(settings).notes

    async def prepare() -> None:
        await asyncio.to_thread(prepare_steps, plan_run(settings))

    async def work(parts: ServiceParts, term: asyncio.Event) -> None:
        for note in notes:
            parts.log.info("plan.note", detail=note)
        relay = build_relay(settings, parts, [SIGNAL_STREAM])
        loop = build_engine(settings, plan_run(settings), parts, relay)  # strategies without a memory of another term
        parts.health.register_check("engine", loop.check)
        parts.health.register_check("engine_loop", loop.check_turning, liveness=True)
        await loop.prepare()
        await supervise({SERVICE: lambda: loop.run(term), "relay": lambda: relay.run(term)}, term, parts.log)

    await serve_alone(settings, SERVICE, stop, work, prepare)


def prepare_steps(plan: RunPlan) -> None:
    """Load the compiled steps of a plan into this process, so that a standby need not when it takes over."""
    for each in plan.instances:
        if isinstance(each.strategy, CompiledStrategy):
            each.strategy.prepare()


def main() -> None:
    """Run the service until SIGTERM; the exit code says how it ended."""
    sys.exit(run_service(SERVICE, serve))

"""Strategies that say what a test wants to hear, and an engine loop around them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
import structlog
from prometheus_client import CollectorRegistry

from shared.broker_memory import MemoryBroker
from shared.clock import Clock, ManualClock
from shared.db import Database
from shared.metrics import ServiceMetrics
from shared.models import Candle, InstanceKey, OrderSide, Signal, to_milliseconds
from shared.strategy import BaseStrategy
from shared.strategy_runner import InstanceStamp, StrategyRunner
from shared.testing.waiting import until, until_done
from shared.watchdog import CallGuard
from strategy_engine.config import StrategyConfig
from strategy_engine.engine import StrategyEngine
from strategy_engine.loop import EngineLoop

type Store = Callable[[Sequence[Candle]], Awaitable[None]]
type BuildLoop = Callable[..., EngineLoop]


class SwingStrategy(BaseStrategy):
    """BUY when a close is above the one before, SELL when below; keeps the last close and how many it saw."""

    warmup = 2

    @property
    def warmup_period(self) -> int:
        return self.warmup

    def reset(self) -> None:
        self.last: Decimal | None = None
        self.seen = 0

    def on_candle(self, candle: Candle) -> Signal | None:
        before, self.last = self.last, candle.close
        self.seen += 1
        if before is None or before == candle.close:
            return None
        side = OrderSide.BUY if candle.close > before else OrderSide.SELL
        return self.signal(candle, side, f"candle {self.seen}: {before} to {candle.close}")


def runner(
    key: InstanceKey, strategy: BaseStrategy | None = None, *, config_hash: str = "", call_seconds_max: float = 2.0
) -> StrategyRunner:
    stamp = InstanceStamp(age_max=timedelta(minutes=5), config_hash=config_hash)
    return StrategyRunner(key, strategy or SwingStrategy(), stamp, guard=CallGuard(call_seconds_max))


@pytest.fixture
def bus() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def store(database: Database) -> Store:
    """Store candles as a deterministic feed does: with the close time up to which every stream is whole."""

    async def write(candles: Sequence[Candle], watermark: datetime | None = None) -> None:
        until = watermark or max(candle.close_time for candle in candles)
        async with database.get_session() as session:
            await database.upsert_candles(candles, session)
            await database.write_cursors(session, {"collector/watermark": to_milliseconds(until)})

    return write


@pytest.fixture
def loop_of(database: Database, bus: MemoryBroker, registry: CollectorRegistry) -> BuildLoop:
    def build(
        runners: Sequence[StrategyRunner],
        *,
        clock: Clock | None = None,
        streams: Sequence[tuple[str, str]] | None = None,
        **changes: object,
    ) -> EngineLoop:
        clock = clock or ManualClock()
        known: Mapping[str, object] = {
            "streams": streams or sorted({(each.key.symbol, each.key.timeframe) for each in runners}),
            "strategies": (),
            "strategy_params": {},
            "mode": "paper",
            "is_deterministic": True,
            "signal_age_max": None,
            "wait_seconds": 2.0,
            "batch_rows_max": 500,
            "checkpoint_candles_max": 1000,
        }
        return EngineLoop(
            StrategyEngine(bus, runners=runners),
            database,
            bus,
            StrategyConfig(**{**known, **changes}),
            clock=clock,
            log=structlog.stdlib.get_logger("test"),
            metrics=ServiceMetrics("strategy-engine", registry, clock=clock),
        )

    return build


@pytest.fixture
def until_handled() -> Callable[..., Awaitable[None]]:
    """Run a loop on a manual clock until a stream's messages are acknowledged, or until `is_done`."""

    async def wait(
        loop: EngineLoop,
        clock: ManualClock,
        bus: MemoryBroker,
        stream: str = "",
        is_done: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        async def acknowledged() -> bool:
            return await bus.lag("strategy-engine", stream) == 0

        stop = asyncio.Event()
        task = asyncio.create_task(loop.run(stop))
        await until(is_done or acknowledged, clock=clock)
        stop.set()
        await until_done(task, clock)

    return wait

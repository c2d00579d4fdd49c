"""An executor around a database of the test, and market and engine as they would have written into it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry
from sqlalchemy import select

from order_executor.config import ExecutorConfig
from order_executor.executor import OrderExecutor
from order_executor.loop import ExecutorLoop
from order_executor.risk_manager import RiskManager
from shared.broker_memory import MemoryBroker
from shared.clock import Clock, ManualClock
from shared.db import Database
from shared.domain.book import InstanceRules
from shared.events import SignalEvent
from shared.metrics import ServiceMetrics
from shared.models import Candle, InstanceKey, Signal, to_milliseconds
from shared.notifier import TelegramNotifier
from shared.sa_models import SignalRow
from shared.testing.builders import ALPHA, FREE_OF_COST, instance_rules

type Market = Callable[..., Awaitable[None]]
type BuildLoop = Callable[..., ExecutorLoop]


def config_of(instances: Mapping[InstanceKey, InstanceRules] | None = None, **changes: Any) -> ExecutorConfig:
    """Return a run of `instances` (by default ALPHA) with equal shares of 10,000, free of cost and limits."""
    owners = {ALPHA: instance_rules()} if instances is None else instances
    plain = {
        "rules": FREE_OF_COST,
        "instances": owners,
        "shares": {key: Decimal(1) / len(owners) for key in owners},
        "streams": sorted({(key.symbol, key.timeframe) for key in owners}),
    }
    return ExecutorConfig(**{**plain, **changes})


async def rows_of(database: Database, row: Any, *order: str) -> list[Any]:
    """Return every row of a table."""
    async with database.read() as session:
        query = select(row).order_by(*(getattr(row, name) for name in order))
        return list((await session.execute(query)).scalars())


async def run_dry(loop: ExecutorLoop) -> None:
    """Step until there is nothing left to do."""
    while await loop.step():
        pass


@pytest.fixture
def bus() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def market(database: Database) -> Market:
    """Store candles and signals as collector and engine do, and the engine's watermark behind them."""

    async def write(
        candles: Sequence[Candle] = (), signals: Sequence[Signal] = (), watermark: datetime | None = None
    ) -> None:
        until = watermark or max(candle.close_time for candle in candles)
        rows = [{name: getattr(each, name) for name in each.__struct_fields__} for each in signals]
        messages = [
            {
                "topic": "signals",
                "key": each.id,
                "payload": SignalEvent(data=each).encode().decode(),
                "as_of": each.created_at,
            }
            for each in signals
        ]
        async with database.get_session() as session:
            if candles:
                await database.upsert_candles(candles, session)
            await database.insert_rows(session, SignalRow, rows, ignore_conflicts=True)
            await database.append_outbox(session, messages)
            await database.write_cursors(session, {"engine/watermark": to_milliseconds(until)})

    return write


@pytest.fixture
def loop_of(database: Database, bus: MemoryBroker, registry: CollectorRegistry) -> BuildLoop:
    def build(
        config: ExecutorConfig | None = None, *, clock: Clock | None = None, notifier: TelegramNotifier | None = None
    ) -> ExecutorLoop:
        clock = clock or ManualClock()
        executor = OrderExecutor(None, RiskManager(), bus, database, notifier, config=config or config_of())
        return ExecutorLoop(
            executor,
            database,
            bus,
            clock=clock,
            log=structlog.stdlib.get_logger("test"),
            metrics=ServiceMetrics("order-executor", registry, clock=clock),
        )

    return build

"""A market that a real executor has traded, and a portfolio behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
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
from portfolio_manager.config import PortfolioConfig
from portfolio_manager.loop import PortfolioLoop
from shared.broker_memory import MemoryBroker
from shared.clock import ManualClock
from shared.db import Database
from shared.domain.book import BookRules
from shared.domain.fees import FeeSchedule
from shared.events import SignalEvent
from shared.metrics import ServiceMetrics
from shared.models import Candle, InstanceKey, Signal, to_milliseconds
from shared.notifier import TelegramNotifier
from shared.sa_models import SignalRow
from shared.testing.builders import ALPHA, BETA, BTC, ETH, candle, instance_rules, signal

type Trade = Callable[..., Awaitable[None]]
type BuildPortfolio = Callable[..., PortfolioLoop]

GAMMA = InstanceKey("gamma", ETH, "1m")
KEYS = (ALPHA, BETA, GAMMA)
COSTS = BookRules(fees=FeeSchedule(maker=Decimal("0.001"), taker=Decimal("0.001")), slippage_bps=Decimal(10))
CONFIG = ExecutorConfig(
    rules=COSTS,
    instances={key: instance_rules(key, max_entries=2, stop_loss_pct=Decimal(5)) for key in KEYS},
    shares={key: Decimal(1) / 3 for key in KEYS},
    streams=[(BTC, "1m"), (ETH, "1m")],
)


def lively(numbers: range) -> tuple[list[Candle], list[Signal]]:
    """Return candles of two symbols that make entries, exits and stops, and signals at every close."""
    candles = [
        candle(n, 100 + n % 9, 100 + (n + 1) % 9, low=96, high=110, symbol=symbol)
        for n in numbers
        for symbol in (BTC, ETH)
    ]
    signals = [
        signal("BUY" if (n + place) % 5 < 3 else "SELL", n, 100 + (n + 1) % 9, instance=key)
        for n in numbers
        for place, key in enumerate(KEYS)
    ]
    return candles, signals


async def rows_of(database: Database, row: Any, *order: str) -> list[Any]:
    """Return every row of a table."""
    async with database.read() as session:
        query = select(row).order_by(*(getattr(row, name) for name in order))
        return list((await session.execute(query)).scalars())


async def run_dry(loop: PortfolioLoop) -> None:
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
def trade(database: Database, bus: MemoryBroker) -> Trade:
    """Let a fresh executor trade candles and signals: a start, everything there is, and an end."""

    async def run(candles: Sequence[Candle], signals: Sequence[Signal] = ()) -> None:
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
            await database.upsert_candles(candles, session)
            await database.insert_rows(session, SignalRow, rows, ignore_conflicts=True)
            await database.append_outbox(session, messages)
            until = max(each.close_time for each in candles)
            await database.write_cursors(session, {"engine/watermark": to_milliseconds(until)})
        clock = ManualClock()
        loop = ExecutorLoop(
            OrderExecutor(None, RiskManager(), bus, database, config=CONFIG),
            database,
            bus,
            clock=clock,
            log=structlog.stdlib.get_logger("test"),
            metrics=ServiceMetrics("order-executor", CollectorRegistry(), clock=clock),
        )
        while await loop.step():
            pass

    return run


@pytest.fixture
def portfolio_of(database: Database, bus: MemoryBroker, registry: CollectorRegistry) -> BuildPortfolio:
    def build(
        *,
        interval: timedelta = timedelta(minutes=1),
        batch_rows_max: int = 500,
        notifier: TelegramNotifier | None = None,
        clock: ManualClock | None = None,
    ) -> PortfolioLoop:
        clock = clock or ManualClock()
        config = PortfolioConfig([(BTC, "1m"), (ETH, "1m")], interval, batch_rows_max)
        return PortfolioLoop(
            database,
            bus,
            config,
            notifier=notifier,
            clock=clock,
            log=structlog.stdlib.get_logger("test"),
            metrics=ServiceMetrics("portfolio-manager", registry, clock=clock),
        )

    return build

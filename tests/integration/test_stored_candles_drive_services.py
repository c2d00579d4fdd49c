"""Candles stored by the collector's own storage drive engine, executor and portfolio, on both databases."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from sqlalchemy import select

from data_collector.storage import CandleStorage, StoreBatch
from order_executor.main import build_executor
from portfolio_manager.main import build_portfolio
from portfolio_manager.verification import verify_database
from shared.broker_memory import MemoryBroker
from shared.clock import ManualClock
from shared.config import load_settings
from shared.db import Database
from shared.healthcheck import HealthCheckServer
from shared.instances import plan_run
from shared.metrics import ServiceMetrics
from shared.models import to_milliseconds
from shared.notifier import TelegramNotifier
from shared.outbox import OutboxRelay
from shared.sa_models import OrderRow, OutboxRow, PortfolioSnapshotRow, SignalRow, TradeRow
from shared.standalone import ServiceParts
from shared.testing.builders import BTC, candle
from strategy_engine.main import build_engine


def parts_of(database: Database, bus: MemoryBroker, service: str) -> ServiceParts:
    clock = ManualClock()
    metrics = ServiceMetrics(service, CollectorRegistry(), clock=clock)
    health = HealthCheckServer(service, 0, clock=clock)
    log = structlog.stdlib.get_logger(service)
    return ServiceParts(database, bus, TelegramNotifier("", ""), health, metrics, clock, log)


async def rows_of(database: Database, row: Any) -> list[Any]:
    async with database.read() as session:
        return list((await session.execute(select(row))).scalars())


async def test_candles_of_the_collectors_storage_become_signals_orders_fills_and_snapshots(database: Database) -> None:
    bus = MemoryBroker()
    settings = load_settings(
        {
            "strategies": "rsi,bollinger",
            "symbols": BTC,
            "sizing": "quote:500",
            "strategy_params": {"rsi": {"period": 5}, "bollinger": {"min_bandwidth": 0}},
        },
        env={},
    )
    plan = plan_run(settings)
    relay = OutboxRelay(database, bus, topics=["signals", "orders"])
    engine = build_engine(settings, plan, parts_of(database, bus, "strategy-engine"), relay)
    executor = build_executor(settings, plan, parts_of(database, bus, "order-executor"), relay)
    portfolio = build_portfolio(settings, parts_of(database, bus, "portfolio-manager"))
    storage = CandleStorage(database, bus)
    prices = [65_000 + 40 * (n * n % 53) - 55 * (n % 31) for n in range(301)]

    for start in range(0, 300, 60):
        candles = [candle(n, prices[n], prices[n + 1]) for n in range(start, start + 60)]
        until = candles[-1].close_time
        written = await storage.write(StoreBatch(candles, cursors={"collector/watermark": to_milliseconds(until)}))
        await storage.announce(written.new, until)
        for loop in (engine, executor, portfolio):
            while await loop.step():
                pass
            await relay.send_due()

    signals, trades = await rows_of(database, SignalRow), await rows_of(database, TradeRow)
    assert {row.strategy for row in signals} == {"rsi", "bollinger"}
    assert len(trades) >= 10
    assert len(await rows_of(database, PortfolioSnapshotRow)) == 300
    assert all(Decimal(490) < row.price * row.quantity < Decimal(510) for row in trades if row.side == "BUY")
    assert (await verify_database(database)).is_clean
    published = [message.event for message in await bus.read("orders", "0", count=10_000)]
    assert {event.data.id for event in published if event} == {row.id for row in await rows_of(database, OrderRow)}
    assert {row.acked_at is None for row in await rows_of(database, OutboxRow)} == {False}

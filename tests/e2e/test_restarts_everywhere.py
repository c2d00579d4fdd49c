"""Every service is ended and begun anew between any two of its transactions, in one process: thousands of restarts."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog

from data_collector.collector import CollectorPorts
from data_collector.main import build_collector
from order_executor.loop import ExecutorLoop
from order_executor.main import build_executor
from portfolio_manager.loop import PortfolioLoop
from portfolio_manager.main import build_portfolio
from portfolio_manager.verification import verify_database
from shared.broker_memory import MemoryBroker
from shared.clock import ManualClock, seeded_random
from shared.config import Settings, load_settings
from shared.db import Database
from shared.healthcheck import HealthCheckServer
from shared.instances import plan_run
from shared.metrics import ServiceMetrics
from shared.notifier import TelegramNotifier
from shared.outbox import OutboxRelay
from shared.standalone import ServiceParts
from shared.testing.reference import reference_path
from shared.testing.state_tables import Tables, read_tables, state_differences
from strategy_engine.loop import EngineLoop
from strategy_engine.main import build_engine

pytestmark = pytest.mark.e2e

FIRST = "2024-08-04T16:00:00"  # the fall, a midnight and part of the way back lie within the next 900 minutes
GRID = '{"grid": {"lower_price": 49000, "upper_price": 61000, "grid_count": 12}}'
ETH_GRID = '{"grid": {"symbols": {"BTC/USDT": {"lower_price": 49000, "upper_price": 61000}, "ETH/USDT": {"lower_price": 2100, "upper_price": 2900}}}}'
SERVICES = ("engine", "executor", "portfolio")
BATCHES = (1, 2, 5, 12, 40)


class Case(NamedTuple):
    """Files by stream, how many rows of each, and the settings that make every kind of memory matter."""

    files: Mapping[str, str]
    rows: int
    options: Mapping[str, Any]
    must_hold: frozenset[str]


BTC = "data/candles/binance-BTCUSDT-1m-2024crash.parquet"
ETH = "data/candles/binance-ETHUSDT-1m-2024crash.parquet"
PLAIN = """
from strategies.base import BaseStrategy


class AnchorStrategy(BaseStrategy):
    name = "anchor"
    warmup_period = 3

    def reset(self):
        self.anchor, self.seen = None, 0

    def on_candle(self, candle):
        self.seen += 1
        close = float(candle.close)
        self.anchor = self.anchor or close
        move = close / self.anchor - 1
        if abs(move) < 0.003:
            return None
        self.anchor = close
        reason = f"moved {move:.5f} by candle {self.seen}"
        return self.buy(candle, reason) if move < 0 else self.sell(candle, reason)


class WaryStrategy(AnchorStrategy):
    name = "wary"

    def on_candle(self, candle):
        if self.seen == 400:
            raise RuntimeError("no further")
        return super().on_candle(candle)
"""
CASES = {
    "defaults": Case(
        {"BTC/USDT:1m": BTC},
        640,
        {"strategy_params": GRID},
        frozenset({"stop_loss", "position_size", "already_in", "nothing_held"}),
    ),
    "exits_and_limits": Case(
        {"BTC/USDT:1m": BTC},
        900,
        {
            "strategy_params": GRID,
            "fee_asset": "received",
            "sizing": "equity_fraction:0.9",
            "risk_max_position_size": "0.6",
            "risk_stop_loss_pct": "1.5",
            "trailing_pct": "1",
            "take_profit_pct": "2",
            "stop_cooldown_candles": "45",
            "risk_order_rate_max": "1",
            "notional_per_hour_max": "60000",
            "risk_daily_loss_limit_pct": "0.7",
            "risk_max_drawdown_pct": "1.2",
            "snapshot_interval": "90",
        },
        frozenset({"trailing_stop", "stop_cooldown", "order_rate", "notional_rate", "daily_loss", "drawdown"}),
    ),
    "two_symbols_three_streams": Case(
        {"BTC/USDT:1m": BTC, "BTC/USDT:5m": BTC, "ETH/USDT:5m": ETH},
        400,
        {
            "strategy_params": ETH_GRID,
            "fee_asset": "bnb",
            "max_entries": "0",
            "sizing": "quote:700",
            "trailing_pct": "2",
        },
        frozenset({"trailing_stop", "nothing_held"}),
    ),
    "plain_python": Case(
        {"BTC/USDT:1m": BTC, "ETH/USDT:1m": ETH},
        600,
        {"strategies_dir": "plugins", "sizing": "risk:2", "fee_taker": "0.0004"},
        frozenset({"position_size", "nothing_held"}),
    ),
}


def write_slice(source: str, timeframe: str, rows: int, path: Path) -> None:
    """Write `rows` minutes from FIRST, or candles made of them, with holes of their own."""
    import polars

    frame = polars.read_parquet(reference_path(source))
    first = polars.lit(FIRST).str.to_datetime(time_unit="ms", time_zone="UTC")
    frame = frame.filter(polars.col("open_time") >= first).head(rows)
    if timeframe != "1m":
        columns = polars.col
        frame = frame.group_by_dynamic("open_time", every=timeframe).agg(
            columns("open").first(),
            columns("high").max(),
            columns("low").min(),
            columns("close").last(),
            columns("volume").sum(),
        )
    place = polars.int_range(polars.len()) % 149
    hole = sum(path.name.encode()) % 120  # each stream has its own
    frame.filter((place < hole) | (place > hole + 25)).write_parquet(path)


def settings_of(case: Case, folder: Path, batch_rows_max: int) -> Settings:
    data = []
    for stream, source in case.files.items():
        path = folder / f"{stream.replace('/', '').replace(':', '-')}.parquet"
        if not path.exists():
            write_slice(source, stream.rpartition(":")[2], case.rows, path)
        data.append(f"{stream}={path}")
    plugins = folder / "plugins"
    if not plugins.exists():
        plugins.mkdir()
        (plugins / "anchor_strategy.py").write_text(PLAIN)
    changes = {"batch_rows_max": str(batch_rows_max)}
    if "strategies_dir" in case.options:
        changes["strategies_dir"] = str(plugins)
    options = {"feed": "replay", "data": ",".join(data), "speed": "max", "balance": "100000", "state": folder / "state"}
    return load_settings(options | case.options | changes, env={})


class Services:
    """The three services that trade, each with a memory of its own that is lost when it is begun anew."""

    def __init__(self, database: Database, case: Case, folder: Path) -> None:
        self._database, self._case, self._folder = database, case, folder
        self._broker = MemoryBroker()
        self._loops: dict[str, EngineLoop | ExecutorLoop | PortfolioLoop] = {}

    async def begin(self, name: str, batch_rows_max: int) -> None:
        """Begin a service anew from what is stored."""
        settings = settings_of(self._case, self._folder, batch_rows_max)
        clock, log = ManualClock(), structlog.stdlib.get_logger("restarts")
        notifier, health = TelegramNotifier("", "", enabled=False), HealthCheckServer("restarts", 0)
        parts = ServiceParts(self._database, self._broker, notifier, health, ServiceMetrics("restarts"), clock, log)
        relay = OutboxRelay(self._database, self._broker, topics=["signals", "orders"], clock=clock)
        if name == "engine":
            self._loops[name] = build_engine(settings, plan_run(settings), parts, relay)
        elif name == "executor":
            self._loops[name] = build_executor(settings, plan_run(settings), parts, relay)
        else:
            self._loops[name] = build_portfolio(settings, parts)
        await self._loops[name].load()

    async def step(self, name: str) -> bool:
        """Run one transaction of a service; False when there was nothing to do."""
        return await self._loops[name].step()


@asynccontextmanager
async def open_database(path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{path}", clock=ManualClock())
    try:
        yield database
    finally:
        await database.close()


async def collect(case: Case, folder: Path, template: Path, path: Path) -> None:
    """Store every candle and the watermark of the last one, as the collector does it."""
    import asyncio

    shutil.copyfile(template, path)
    async with open_database(path) as database:
        log = structlog.stdlib.get_logger("restarts")
        ports = CollectorPorts(database, MemoryBroker(), ManualClock(), ServiceMetrics("restarts"), log)
        collector = await build_collector(settings_of(case, folder, 500), ports, consumers=())
        await collector.run(asyncio.Event())


async def play(case: Case, folder: Path, path: Path, seed: int | None) -> int:
    """Run the services to the end in an order of chance, restarted by chance; without a seed in order and undisturbed."""
    rng = seeded_random(seed or 0)
    restarts = 0
    async with open_database(path) as database:
        services = Services(database, case, folder)
        for name in SERVICES:
            await services.begin(name, 500 if seed is None else rng.choice(BATCHES))
        idle: set[str] = set()
        while len(idle) < len(SERVICES):
            name = rng.choice(SERVICES)
            if seed is not None and rng.random() < 0.3:
                await services.begin(name, rng.choice(BATCHES))
                restarts += 1
            if await services.step(name):
                idle.clear()
            else:
                idle.add(name)
        verification = await verify_database(database)
    assert verification.is_clean, verification.differences
    return restarts


def found_words(tables: Tables) -> set[str]:
    """Return the reasons and purposes that a run met."""
    decisions = {row["reason"] for row in tables["decisions"]}
    orders = {row["purpose"] for row in tables["orders"]}
    closed = {row["reason"] for row in tables["orders"] if row["status"] in ("EXPIRED", "REJECTED")}
    return (decisions | orders | closed) - {""}


@pytest.mark.parametrize("name", CASES)
async def test_services_restarted_between_any_transactions_end_with_the_same_state(
    name: str, tmp_path: Path, sqlite_template: Path, is_proof: bool
) -> None:
    case = CASES[name]
    collected = tmp_path / "collected.db"
    await collect(case, tmp_path, sqlite_template, collected)
    undisturbed = tmp_path / "undisturbed.db"
    shutil.copyfile(collected, undisturbed)
    await play(case, tmp_path, undisturbed, None)
    expected = read_tables(undisturbed)
    assert case.must_hold <= found_words(expected), "the run is blind to what it should show"
    for seed in range(1, 6 if is_proof else 2):
        path = tmp_path / f"seed-{seed}.db"
        shutil.copyfile(collected, path)
        assert await play(case, tmp_path, path, seed) >= 30
        assert state_differences(expected, read_tables(path)) == [], f"seed {seed}"

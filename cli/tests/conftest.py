"""A state directory in which two strategies have traded, and a way to run `trading` in this process."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from order_executor.config import ExecutorConfig
from order_executor.executor import OrderExecutor, Step
from order_executor.risk_manager import RiskManager
from shared.broker_memory import MemoryBroker
from shared.db import Database
from shared.domain.book import BookRules
from shared.models import InstanceKey, Signal, to_milliseconds
from shared.testing.builders import ALPHA, BETA, BTC, candle, instance_rules, signal
from trading_cli.main import main
from trading_cli.state_dir import database_url

type Trading = Callable[..., Result]

PRICES = (100, 101, 102, 103, 104, 105, 106, 107)
GAMMA = InstanceKey("gamma", BTC, "1m")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run every test in an empty folder without the settings of whoever runs it."""
    for name in ("TRADING_STATE", "STATE", "DATABASE_URL", "STRATEGIES_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def trading() -> Trading:
    """Give a function that runs `trading` with words and returns what came of it."""

    def run(*words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words], prog_name="trading")

    return run


@pytest.fixture(scope="session")
def state_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a state in which alpha bought and sold, beta still holds, and one signal each was refused and ignored."""
    directory = tmp_path_factory.mktemp("traded") / "state"
    directory.mkdir()
    with ThreadPoolExecutor(max_workers=1) as pool:  # pytest-asyncio owns this thread's loop
        pool.submit(asyncio.run, _trade(directory)).result()
    return directory


@pytest.fixture
def state(state_template: Path, tmp_path: Path) -> Path:
    """Give a copy of that state for one test."""
    return Path(shutil.copytree(state_template, tmp_path / "state"))


@pytest.fixture
def trade_on() -> Callable[[Database], Awaitable[None]]:
    """Give a function that lets the same strategies trade on a migrated database."""
    return _play


async def _trade(directory: Path) -> None:
    database = Database(database_url(directory))
    try:
        await database.init_tables()
        await database.stamp_mode("paper", "USDT")
        await _play(database)
    finally:
        await database.close()


async def _play(database: Database) -> None:
    candles = [candle(number, price) for number, price in enumerate(PRICES)]
    signals = [
        signal("BUY", 0, 100, 2),
        signal("BUY", 0, 100, 1, instance=BETA),
        signal("BUY", 2, 102, 2),  # already in: ignored
        signal("SELL", 3, 103, 2),
        signal("SELL", 5, 105, 2),  # nothing held: ignored
        signal("BUY", 5, 105, 900, instance=GAMMA),  # more than the account may hold: refused
    ]
    instances = {key: instance_rules(key) for key in (ALPHA, BETA, GAMMA)}
    config = ExecutorConfig(
        rules=BookRules(limits=RiskManager("0.5", 0, 0).limits),
        instances=instances,
        shares=dict.fromkeys(instances, Decimal("0.25")),
        streams=[(BTC, "1m")],
    )
    executor = OrderExecutor(None, RiskManager(1, 0, 0), MemoryBroker(), database, config=config)
    await executor.load()
    await database.upsert_candles(candles)
    async with database.get_session() as session:
        for each in signals:
            await database.insert_signal(each, session)
        end = to_milliseconds(candles[-1].close_time)
        await database.write_cursors(session, dict.fromkeys(("collector/watermark", "engine/watermark"), end))
        await database.write_cursors(session, {"portfolio/watermark": end - 60_000})
    steps = [Step(each.close_time, [each], _of(signals, each.close_time)) for each in candles]
    await executor.handle(steps, {"executor/watermark": end}, candles[-1].close_time)


def _of(signals: list[Signal], moment: object) -> list[Signal]:
    return [each for each in signals if each.created_at == moment]

"""Machine code of the compiled engine is found again by the next process, and is never that of another text."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backtester.compiled.engine import CompiledEngine
from backtester.compiled.loop import DESK
from shared.candle_files import CandleFile
from shared.plugins import discover
from shared.step_cache import module_name
from shared.step_compiler import base_source, cache_directory

pytestmark = pytest.mark.thorough

STRATEGY = """
from __future__ import annotations
from collections.abc import Mapping
from typing import Any
from shared.models import OrderSide
from shared.strategy import BUY, HOLD, SELL, CompiledStrategy


def step(state: Any, params: Any, open_time: int, open: float, high: float, low: float, close: float, volume: float) -> int:
    if state.candle_count % 7 == 3:
        return BUY
    return SELL if state.candle_count % 7 == NUMBER else HOLD


class EditedStrategy(CompiledStrategy):
    name = "edited"
    step = staticmethod(step)

    @property
    def warmup_period(self) -> int:
        return 1

    def state_fields(self) -> Mapping[str, int | float]:
        return {}

    def describe(self, state: Any, side: OrderSide) -> str:
        return "by number"
"""
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from backtester.compiled.engine import CompiledEngine
from backtester.compiled.loop import DESK
from shared.candle_files import CandleFile
from shared.plugins import discover
from shared.step_compiler import load_base

strategy = discover(Path(sys.argv[1])).get("edited").create("BTC/USDT", {})
price = 100 + np.arange(40) % 5.0
columns = dict.fromkeys(("open", "high", "low", "close", "volume"), price)
stream = {"path": Path("x"), "symbol": "BTC/USDT", "timeframe": "1m", "sha256": ""}
data = CandleFile(**stream, open_time_ms=1_704_067_200_000 + 60_000 * np.arange(40), **columns)
engine = CompiledEngine(strategy)
engine.prepare(data)
result = engine.run(data)
rows = [int((trade.time.timestamp() - 1_704_067_200) // 60) for trade in result.trades]
made = sum(sum(function.stats.cache_misses.values()) for function in vars(load_base(DESK)).values())
made += sum(sum(function.stats.cache_misses.values()) for function in vars(engine.machine_code).values())
print(*rows[:4], "made", made)
"""


def write_strategy(folder: Path, number: int) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "edited_strategy.py").write_text(STRATEGY.replace("NUMBER", str(number)))


def command_of(folder: Path) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(folder)]


def run(folder: Path, cache: Path) -> str:
    """Return what a new process says: the rows of the first trades, and how many functions it had to compile."""
    environment = {**os.environ, "TRADING_CACHE": str(cache)}
    done = subprocess.run(command_of(folder), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give a folder with the strategy, and a cache that holds what all strategies share and has seen this one once."""
    strategy = discover().get("ema_crossover").create("BTC/USDT", {})
    price = np.full(2, 100.0)
    columns = dict.fromkeys(("open", "high", "low", "close", "volume"), price)
    times = 1_704_067_200_000 + 60_000 * np.arange(2)
    stream = {"path": Path("x"), "symbol": "BTC/USDT", "timeframe": "1m", "sha256": ""}
    CompiledEngine(strategy).prepare(CandleFile(**stream, open_time_ms=times, **columns))
    folder, cache = tmp_path_factory.mktemp("plug-ins"), tmp_path_factory.mktemp("cache")
    shared_module = module_name(base_source(DESK))
    (cache / "steps" / "__pycache__").mkdir(parents=True)
    for path in cache_directory().rglob(f"{shared_module}.*"):
        shutil.copy2(path, cache / "steps" / path.relative_to(cache_directory()))
    write_strategy(folder, 5)
    assert not run(folder, cache).endswith(" made 0")
    return folder, cache


def test_the_next_process_compiles_nothing_and_trades_the_same(warm: tuple[Path, Path]) -> None:
    assert run(*warm) == "3 5 10 12 made 0"


def test_an_edited_step_is_not_served_stale_and_two_processes_may_come_at_once(
    warm: tuple[Path, Path], tmp_path: Path
) -> None:
    write_strategy(tmp_path, 6)
    environment = {**os.environ, "TRADING_CACHE": str(warm[1])}
    at_once = [
        subprocess.Popen(command_of(tmp_path), stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)
    ]
    said = [process.communicate()[0] for process in at_once]
    assert all(words.startswith("3 6 10 13 made ") for words in said)
    assert run(tmp_path, warm[1]) == "3 6 10 13 made 0"
    assert run(*warm) == "3 5 10 12 made 0"


def test_a_damaged_cache_is_mended(warm: tuple[Path, Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(warm[1], cache)
    shared_module = module_name(base_source(DESK))
    own = [path for path in (cache / "steps" / "__pycache__").iterdir() if not path.name.startswith(shared_module)]
    assert own
    for path in own:
        path.write_bytes(path.read_bytes()[:40])
    assert run(warm[0], cache).startswith("3 5 10 12 made ")
    assert run(warm[0], cache) == "3 5 10 12 made 0"

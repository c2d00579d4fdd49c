"""What a plug-in gets from the contract, plain or compiled."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from shared.models import Candle, OrderSide, Signal
from shared.plugins import config_hash, discover
from shared.step_compiler import load_step, step_source
from shared.strategy import (
    Action,
    BaseStrategy,
    CompiledStrategy,
    History,
    PluginError,
    Ring,
    StrategyParams,
    signal_id,
    stamp_signal,
)

pytestmark = pytest.mark.thorough

START = datetime(2024, 3, 1, tzinfo=UTC)
LIMIT = 3.0


def candle(number: int, close: float) -> Candle:
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    return Candle(
        symbol="BTC/USDT", timeframe="5m", open_time=START + timedelta(minutes=5 * number), volume=1, **prices
    )


class Breakout(BaseStrategy):
    """Buys a close above every close of the last `period` candles."""

    class Params(StrategyParams):
        period: int = 3

    params: Params

    @property
    def warmup_period(self) -> int:
        return self.params.period + 1

    def reset(self) -> None:
        self.closes: deque[Decimal] = deque(maxlen=self.params.period)

    def on_candle(self, candle: Candle) -> Signal | None:
        highest = max(self.closes, default=candle.close)
        self.closes.append(candle.close)
        return self.buy(candle, f"{candle.close} > {highest}") if candle.close > highest else None


class AboveMeanParams(StrategyParams):
    length: int = 4
    factor: float = 1.0
    side: Literal["both", "buys"] = "both"


def above(value: float, mean: float) -> bool:
    return value > mean * LIMIT / 3.0


def mean_step(
    state: Any, params: Any, open_time: int, open: float, high: float, low: float, close: float, volume: float
) -> int:
    """Compare a close with the mean of the last ones."""
    state.total += close - state.closes[state.place]
    state.closes[state.place] = close
    state.place = (state.place + 1) % params.length
    if state.candle_count < params.length or not math.isfinite(close):
        return Action.HOLD
    if above(close, params.factor * state.total / params.length):
        return Action.BUY
    return Action.HOLD if params.side == 1 else Action.SELL


class AboveMean(CompiledStrategy):
    name = "above_mean"
    Params = AboveMeanParams
    params: AboveMeanParams
    step = staticmethod(mean_step)

    @property
    def warmup_period(self) -> int:
        return self.params.length

    def state_fields(self) -> Mapping[str, int | float | Ring]:
        return {"place": 0, "total": 0.0, "closes": Ring(self.params.length)}

    def describe(self, state: Any, side: OrderSide) -> str:
        assert side in OrderSide
        return f"mean {state['total'] / self.params.length:g}"


def test_a_plain_strategy_needs_a_rule_and_a_warm_up_alone() -> None:
    strategy = Breakout({"period": 2}, quantity="0.5")
    signals = [strategy.on_candle(candle(n, close)) for n, close in enumerate([5, 4, 6])]
    assert strategy.name == "breakout"
    assert signals == [
        None,
        None,
        Signal(
            id=signal_id("breakout", "BTC/USDT", "5m", START + timedelta(minutes=10)),
            strategy="breakout",
            symbol="BTC/USDT",
            side=OrderSide.BUY,
            price=6,
            quantity="0.5",
            reason="6 > 5",
            created_at=START + timedelta(minutes=15),
            timeframe="5m",
            candle_open_time=START + timedelta(minutes=10),
        ),
    ]
    assert strategy.snapshot() is None
    assert not strategy.restore(b"")
    assert strategy.history(START) == History(candles=3)


def test_configure_resets_and_a_mistake_changes_nothing() -> None:
    strategy = Breakout(period=2)
    strategy.on_candle(candle(0, 5))
    with pytest.raises(PluginError, match="unknown key 'perido'; did you mean 'period'"):
        strategy.configure({"perido": 3})
    assert list(strategy.closes) == [5]
    strategy.configure({"period": 4})
    assert list(strategy.closes) == []
    assert strategy.params.period == 4


def test_a_compiled_strategy_runs_its_step() -> None:
    strategy = AboveMean({"length": 2})
    signals = [strategy.on_candle(candle(n, close)) for n, close in enumerate([5, 7, 3])]
    assert [signal and (signal.side, signal.reason) for signal in signals] == [
        None,
        (OrderSide.BUY, "mean 6"),
        (OrderSide.SELL, "mean 5"),
    ]
    assert strategy.candle_count == 3
    buys = AboveMean({"length": 2, "side": "buys"})
    assert [bool(buys.on_candle(candle(n, close))) for n, close in enumerate([5, 7, 3])] == [False, True, False]


def test_a_ring_has_no_hidden_ceiling() -> None:
    strategy = AboveMean({"length": 5_000})
    for number in range(5_000):
        last = strategy.on_candle(candle(number, 1.0 + number))
    assert last is not None
    assert last.reason == "mean 2500.5"


def test_a_snapshot_of_other_parameters_or_another_length_is_refused() -> None:
    strategy = AboveMean({"length": 2})
    strategy.on_candle(candle(0, 5))
    blob = strategy.snapshot()
    for other in (blob[:-1], blob + b"x", b"", b"OTHER" + blob[5:]):
        assert not strategy.restore(other)
    assert not AboveMean({"length": 3}).restore(blob)
    assert AboveMean({"length": 2, "quantity": 7}).restore(blob)
    assert strategy.candle_count == 1


def test_a_copy_goes_its_own_way() -> None:
    strategy = AboveMean({"length": 2})
    strategy.on_candle(candle(0, 5))
    twin = copy.deepcopy(strategy)
    twin.on_candle(candle(1, 6))
    assert (strategy.candle_count, twin.candle_count) == (1, 2)


def test_a_signal_of_ones_own_making_is_stamped_from_its_candle() -> None:
    own = Signal(strategy="mine", symbol="BTC/USDT", side=OrderSide.SELL, price=5, quantity=1, reason="why")
    stamped = stamp_signal(own, candle(3, 5), strategy="theirs", config_hash="c0ffee")
    assert stamped.id == signal_id("theirs", "BTC/USDT", "5m", candle(3, 5).open_time)
    assert (stamped.created_at, stamped.config_hash, stamped.reason) == (candle(3, 5).close_time, "c0ffee", "why")


def test_an_id_names_strategy_symbol_timeframe_candle_and_leg() -> None:
    facts = [("a", "B/C", "1m", START, 0), ("b", "B/C", "1m", START, 0), ("a", "D/C", "1m", START, 0)]
    facts += [("a", "B/C", "3m", START, 0), ("a", "B/C", "1m", candle(1, 1).open_time, 0), ("a", "B/C", "1m", START, 1)]
    assert len({signal_id(*fact) for fact in facts}) == len(facts)


def test_the_config_hash_follows_the_parameters() -> None:
    assert config_hash(AboveMean()) == config_hash(AboveMean({"length": 4}))
    assert config_hash(AboveMean()) != config_hash(AboveMean({"length": 5}))


def test_history_counts_whole_candles_back_from_the_one_in_progress() -> None:
    now = datetime(2024, 3, 1, 12, 7, 30, tzinfo=UTC)
    assert History(candles=3).start(now, "5m") == datetime(2024, 3, 1, 11, 50, tzinfo=UTC)
    assert History(candles=3, since=START).start(now, "5m") == START


def refused_step(state, params, open_time, open, high, low, close, volume):  # type: ignore[no-untyped-def]
    return 1 if json else 0


def test_a_step_that_cannot_be_compiled_is_refused_by_name() -> None:
    with pytest.raises(PluginError, match=r"refused_step: the step uses 'json' \(module\)"):
        step_source(refused_step)
    edge = 3.0

    def closing_step(state, params, open_time, open, high, low, close, volume):  # type: ignore[no-untyped-def]
        return 1 if close > edge else 0

    with pytest.raises(PluginError, match="closes over edge"):
        step_source(closing_step)


PLUGIN = """
from shared.strategy import BUY, HOLD, CompiledStrategy

def threshold(close):
    return close > {limit}

def step(state, params, open_time, open, high, low, close, volume):
    return BUY if threshold(close) else HOLD

class EditedStrategy(CompiledStrategy):
    step = staticmethod(step)
    warmup_period = 1

    def state_fields(self):
        return {{}}

    def describe(self, state, side):
        return "1"
"""

ASK = """
import sys
from datetime import UTC, datetime
from shared.models import Candle
from shared.plugins import discover
strategy = discover(sys.argv[1]).plugins[0].create()
assert "numba" not in sys.modules, "numba was imported before a step was needed"
candle = Candle(symbol="A/B", timeframe="1m", open_time=datetime(2024, 1, 1, tzinfo=UTC),
                open=5, high=5, low=5, close=5, volume=1)
print(strategy.on_candle(candle) is not None)
from shared.step_compiler import load_step
stats = load_step(type(strategy).step).advance_at.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def asked_in_a_new_process(folder: Path, cache: Path) -> list[str]:
    environment = {**os.environ, "TRADING_CACHE": str(cache)}
    command = [sys.executable, "-c", ASK, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:2]


def test_an_edited_step_is_never_served_stale_and_an_old_one_is_loaded(tmp_path: Path) -> None:
    plugin, cache = tmp_path / "edited_strategy.py", tmp_path / "cache"
    plugin.write_text(PLUGIN.format(limit=4))
    stamp = plugin.stat()
    assert asked_in_a_new_process(tmp_path, cache) == ["True", "0 1"]
    assert asked_in_a_new_process(tmp_path, cache) == ["True", "1 0"]
    plugin.write_text(PLUGIN.format(limit=6))  # in a function that the step calls, in as many letters
    os.utime(plugin, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert asked_in_a_new_process(tmp_path, cache) == ["False", "0 1"]
    plugin.write_text(PLUGIN.format(limit=4))
    assert asked_in_a_new_process(tmp_path, cache) == ["True", "1 0"]


def test_an_edited_step_is_new_within_the_process_too(tmp_path: Path) -> None:
    plugin = tmp_path / "edited_strategy.py"
    said = []
    for limit in (4, 6, 4):
        plugin.write_text(PLUGIN.format(limit=limit))
        said.append(discover(tmp_path).plugins[0].create().on_candle(candle(0, 5)) is not None)
    assert said == [True, False, True]


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    monkeypatch.setenv("TRADING_CACHE", str(occupied))
    (tmp_path / "other_strategy.py").write_text(PLUGIN.format(limit=4.5))
    strategy = discover(tmp_path).plugins[0].create()
    assert strategy.on_candle(candle(0, 5)) is not None


def test_a_damaged_cache_is_mended(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (tmp_path / "edited_strategy.py").write_text(PLUGIN.format(limit=4))
    asked_in_a_new_process(tmp_path, cache)
    for path in (cache / "steps").rglob("*.*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert asked_in_a_new_process(tmp_path, cache)[0] == "True"


def test_machine_code_and_plain_python_agree_bit_for_bit() -> None:
    strategy = AboveMean({"length": 3, "factor": 1.01})
    states, params = strategy.records
    plain, plain_params = np.rec.array(states.copy())[0], np.rec.array(params.copy())[0]
    advance = load_step(mean_step).advance_at
    for number in range(300):
        close = 100 + math.sin(number) * number
        plain.candle_count += 1
        expected = mean_step(plain, plain_params, number, close, close, close, close, 1.0)
        assert advance(states, 0, params, number, close, close, close, close, 1.0) == expected
    assert plain.tobytes() == states.tobytes()

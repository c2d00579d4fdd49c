"""What a strategy may know: nothing of later candles, and no more of the past than `history` gives it."""

from __future__ import annotations

from datetime import timedelta
from functools import cache

import polars as pl
import pytest

from shared.clock import seeded_random
from shared.models import Candle, Signal, to_milliseconds
from shared.plugins import discover
from shared.step_compiler import load_step
from shared.strategy import Action, BaseStrategy, CompiledStrategy
from shared.testing.reference import reference_path

pytestmark = pytest.mark.thorough

ALL = ["bollinger", "ema_crossover", "grid", "macd", "rsi", "volume_profile", "vwap"]
FORGETFUL = ["ema_crossover", "macd", "rsi", "vwap"]
LIVELY = {"grid": {"lower_price": 45_000, "grid_count": 60}, "bollinger": {"min_bandwidth": 0.0}}


@cache
def real_candles(count: int = 6_000) -> list[Candle]:
    path = reference_path("data/candles/binance-BTCUSDT-1m-2024crash.parquet")
    names = ("open_time", "open", "high", "low", "close", "volume")
    rows = pl.read_parquet(path).head(count).iter_rows()
    return [Candle(symbol="BTC/USDT", timeframe="1m", **dict(zip(names, row, strict=True))) for row in rows]


def fresh(name: str) -> BaseStrategy:
    return discover().get(name).create("BTC/USDT", LIVELY.get(name))


def signals_of(strategy: BaseStrategy, candles: list[Candle]) -> list[Signal | None]:
    return [strategy.on_candle(candle) for candle in candles]


@cache
def full_run(name: str) -> list[Signal | None]:
    return signals_of(fresh(name), real_candles())


def altered(candle: Candle, factor: float) -> Candle:
    numbers = {name: float(getattr(candle, name)) * factor for name in ("open", "high", "low", "close", "volume")}
    return Candle(symbol=candle.symbol, timeframe=candle.timeframe, open_time=candle.open_time, **numbers)


@pytest.mark.parametrize("name", ALL)
def test_later_candles_never_change_an_earlier_signal(name: str) -> None:
    candles, chance = real_candles()[:1_500], seeded_random(name)
    expected = full_run(name)[:1_500]
    assert any(expected)
    for _ in range(3):
        cut = chance.randrange(200, 1_400)
        future = [altered(candle, chance.uniform(0.5, 2.0)) for candle in candles[cut:]]
        assert signals_of(fresh(name), candles[:cut] + future)[:cut] == expected[:cut]
        assert signals_of(fresh(name), candles[:cut]) == expected[:cut]


@cache
def real_numbers() -> list[tuple[int | float, ...]]:
    return [
        (to_milliseconds(c.open_time), *(float(n) for n in (c.open, c.high, c.low, c.close, c.volume)))
        for c in real_candles()
    ]


def actions_of(strategy: CompiledStrategy, begin: int, end: int) -> list[int]:
    """Run the step alone: what `on_candle` asks, without making signals of it."""
    advance = load_step(type(strategy).step).advance_at
    states, params = strategy.records
    return [advance(states, 0, params, *numbers) for numbers in real_numbers()[begin:end]]


@pytest.mark.parametrize("name", FORGETFUL)
def test_started_anywhere_with_its_history_a_strategy_says_what_the_full_run_says(name: str) -> None:
    candles, chance, strategy = real_candles(), seeded_random(f"starts {name}"), fresh(name)
    assert isinstance(strategy, CompiledStrategy)
    expected = actions_of(strategy, 0, len(candles))
    assert [signal and Action[signal.side] for signal in full_run(name)] == [action or None for action in expected]
    first, said = candles[0].open_time, 0
    for start in chance.sample(range(2_000, len(candles) - 200), 200):
        now = candles[start - 1].close_time
        begin = max(0, (strategy.history(now).start(now, "1m") - first) // timedelta(minutes=1))
        after = actions_of(strategy, begin, start + 200)[start - begin :]
        assert after == expected[start : start + 200]
        said += sum(action != 0 for action in after)
    assert said > 100


@pytest.mark.parametrize("name", ALL)
def test_a_restart_from_a_snapshot_goes_on_bit_for_bit(name: str) -> None:
    candles, chance = real_candles()[:2_000], seeded_random(f"restart {name}")
    whole = fresh(name)
    signals_of(whole, candles)
    for _ in range(5):
        cut = chance.randrange(1, len(candles))
        before, after = fresh(name), fresh(name)
        early = signals_of(before, candles[:cut])
        blob = before.snapshot()
        assert blob is not None
        assert after.restore(blob)
        assert after.candle_count == cut
        assert early + signals_of(after, candles[cut:]) == full_run(name)[: len(candles)]
        assert after.snapshot() == whole.snapshot()


@pytest.mark.parametrize("name", ALL)
def test_reset_forgets_everything(name: str) -> None:
    strategy = fresh(name)
    signals_of(strategy, real_candles()[300:900])
    strategy.reset()
    assert strategy.candle_count == 0
    assert signals_of(strategy, real_candles()[:600]) == full_run(name)[:600]


@pytest.mark.parametrize("name", ALL)
def test_instances_share_nothing(name: str) -> None:
    one, other = fresh(name), fresh(name)
    for candle, late in zip(real_candles()[:600], real_candles()[1_000:1_600], strict=True):
        one.on_candle(candle)
        other.on_candle(late)
    alone = fresh(name)
    signals_of(alone, real_candles()[:600])
    assert one.snapshot() == alone.snapshot()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("field", ["open", "high", "low", "close", "volume"])
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "sNaN", "1e999"])
def test_a_candle_with_a_number_that_is_not_finite_changes_nothing(name: str, field: str, number: str) -> None:
    strategy = fresh(name)
    signals_of(strategy, real_candles()[:150])
    before = strategy.snapshot()
    good = real_candles()[150]
    numbers = {key: getattr(good, key) for key in ("open", "high", "low", "close", "volume")} | {field: number}
    odd = Candle(symbol=good.symbol, timeframe=good.timeframe, open_time=good.open_time, **numbers)
    assert strategy.on_candle(odd) is None
    assert strategy.snapshot() == before

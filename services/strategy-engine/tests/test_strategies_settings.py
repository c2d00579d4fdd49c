"""What the strategies take, refuse, warn of and report."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from shared.models import Candle
from shared.plugins import discover
from shared.strategy import BaseStrategy, PluginError
from strategies.base import BaseStrategy as PluginBase
from strategies.base import candles_to_forget
from strategy_engine.plugin_loader import load_strategies

pytestmark = pytest.mark.thorough

NOW = datetime(2024, 8, 7, 13, 27, tzinfo=UTC)  # a Wednesday


def make(name: str, **params: Any) -> BaseStrategy:
    strategy = discover().get(name).cls()
    strategy.configure(params)
    return strategy


def test_the_seven_strategies_come_sorted_by_file() -> None:
    names = [strategy.name for strategy in load_strategies()]
    assert names == ["bollinger", "ema_crossover", "grid", "macd", "rsi", "volume_profile", "vwap"]
    assert PluginBase is BaseStrategy


@pytest.mark.parametrize(
    ("name", "params", "warmup"),
    [
        ("rsi", {"period": 9}, 10),
        ("grid", {}, 2),
        ("macd", {"slow_period": 30, "signal_period": 5}, 35),
        ("bollinger", {"period": 33}, 33),
        ("ema_crossover", {"long_period": 40}, 40),
        ("vwap", {}, 30),
        ("volume_profile", {"lookback_period": 77}, 77),
    ],
)
def test_the_warm_up_follows_the_parameters(name: str, params: dict[str, Any], warmup: int) -> None:
    assert make(name, **params).warmup_period == warmup


@pytest.mark.parametrize("name", ["bollinger", "ema_crossover", "grid", "macd", "rsi", "volume_profile", "vwap"])
def test_the_yaml_holds_the_defaults(name: str) -> None:
    plugin = discover().get(name)
    assert plugin.enabled
    assert plugin.create().params == plugin.cls().params
    assert plugin.create().params.quantity == Decimal("0.01")


def test_the_grid_has_a_range_for_each_symbol() -> None:
    plugin = discover().get("grid")
    assert plugin.create("BTC/USDT").params.model_dump()["lower_price"] == 60_000
    low, high = (plugin.create("ETH/USDT").params.model_dump()[f"{end}_price"] for end in ("lower", "upper"))
    assert low < 3_200 < high


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("rsi", {"period": 0}, "period"),
        ("rsi", {"perod": 14}, "did you mean 'period'"),
        ("rsi", {"oversold": 70, "overbought": 30}, "oversold"),
        ("rsi", {"trigger": "both"}, "trigger"),
        ("rsi", {"quantity": 0}, "quantity"),
        ("rsi", {"quantity": "-1"}, "quantity"),
        ("rsi", {"quantity": "NaN"}, "quantity"),
        ("rsi", {"period": True}, "period"),
        ("rsi", {"period": 2.5}, "period"),
        ("macd", {"fast_period": 26}, "fast_period"),
        ("macd", {"signal_period": -1}, "signal_period"),
        ("ema_crossover", {"short_period": 30}, "short_period"),
        ("grid", {"grid_count": 0}, "grid_count"),
        ("grid", {"lower_price": 70_000}, "lower_price"),
        ("grid", {"upper_price": float("inf")}, "upper_price"),
        ("bollinger", {"period": 1}, "period"),
        ("bollinger", {"num_std": 0}, "num_std"),
        ("bollinger", {"window": "current", "period": 4, "num_std": 1.5}, "never fire"),
        ("bollinger", {"window": "next"}, "window"),
        ("vwap", {"anchor": "year"}, "anchor"),
        ("vwap", {"min_candles": -1}, "min_candles"),
        ("volume_profile", {"value_area_pct": 1.1}, "value_area_pct"),
        ("volume_profile", {"num_bins": 0}, "num_bins"),
        ("volume_profile", {"lookback_period": 10**12}, "memory"),
        ("bollinger", {"period": 10**400}, "memory"),
    ],
)
def test_an_impossible_parameter_is_refused_by_its_name(name: str, params: dict[str, Any], words: str) -> None:
    strategy = make(name)
    before = strategy.params
    with pytest.raises(PluginError, match=words) as refusal:
        strategy.configure(params)
    assert name in str(refusal.value)
    assert strategy.params == before


def test_text_from_a_command_line_is_taken_as_numbers() -> None:
    params = make("grid", lower_price="100.5", upper_price="200", grid_count="4", quantity="0.5").params.model_dump()
    assert params == {"quantity": Decimal("0.5"), "lower_price": 100.5, "upper_price": 200.0, "grid_count": 4}


def test_history_is_what_the_past_still_weighs() -> None:
    assert candles_to_forget(1 - 2 / 22) == 218
    assert make("ema_crossover").history(NOW).candles == 218
    assert make("rsi").history(NOW).candles == 280
    assert make("macd").history(NOW).candles == 270 + 93
    assert make("rsi", period=1).history(NOW).candles == 2
    assert make("grid").history(NOW).candles == 2
    assert make("volume_profile").history(NOW).candles == 100


@pytest.mark.parametrize(
    ("anchor", "since"),
    [
        ("day", datetime(2024, 8, 7, tzinfo=UTC)),
        ("week", datetime(2024, 8, 5, tzinfo=UTC)),
        ("month", datetime(2024, 8, 1, tzinfo=UTC)),
        ("none", NOW - timedelta(days=30)),
    ],
)
def test_vwap_is_fed_from_the_beginning_of_its_anchor_period(anchor: str, since: datetime) -> None:
    history = make("vwap", anchor=anchor).history(NOW)
    assert history.since == since
    assert history.start(NOW, "1m") == since
    assert ("30 days" in history.note) is (anchor == "none")


def test_vwap_refuses_an_anchor_too_short_for_the_timeframe_and_names_the_next_longer() -> None:
    assert make("vwap").check_start("15m") == []
    with pytest.raises(PluginError, match=r"anchor day holds 24 candles of 1h.*use anchor week"):
        make("vwap").check_start("1h")
    with pytest.raises(PluginError, match=r"use anchor month.*week holds 42"):
        make("vwap").check_start("4h")
    assert make("vwap", anchor="none").check_start("1d") == []


def test_a_grid_step_below_twice_the_costs_is_warned_of() -> None:
    assert make("grid").check_start("1m") == []
    (warning,) = make("grid", grid_count=100).check_start("1m", Decimal("0.0024"))
    assert "round-trip" in warning


def test_the_grid_works_with_an_entry_a_zone_and_a_stop_below_its_range() -> None:
    grid = make("grid", grid_count=8)
    assert grid.max_entries_default == 8
    assert grid.stop_reference == Decimal(60_000)
    assert make("rsi").max_entries_default == 1
    assert make("rsi").stop_reference is None


def flat_candles(price: int, count: int) -> list[Candle]:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    numbers = dict.fromkeys(("open", "high", "low", "close"), price)
    return [
        Candle(symbol="BTC/USDT", timeframe="1h", open_time=start + timedelta(hours=n), volume=1, **numbers)
        for n in range(count)
    ]


def test_a_range_that_never_held_the_price_for_a_day_is_reported() -> None:
    grid = make("grid")
    for candle in flat_candles(1_000, 24):
        grid.on_candle(candle)
    assert grid.notices() == []
    grid.on_candle(flat_candles(1_000, 25)[-1])
    assert "never held the price" in grid.notices()[0]


def test_a_filter_that_mutes_nearly_everything_is_reported() -> None:
    bands = make("bollinger")
    for candle in flat_candles(1_000, 200):
        bands.on_candle(candle)
    assert "min_bandwidth" in bands.notices()[0]

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shared.config import load_settings
from shared.domain.sizing import SizingRule
from shared.errors import ConfigError, PluginError
from shared.instances import RunPlan, plan_run
from shared.models import InstanceKey

D = Decimal
SEVEN = ["bollinger", "ema_crossover", "grid", "macd", "rsi", "volume_profile", "vwap"]
PLUGIN = '''
from shared.models import Candle, Signal
from shared.strategy import BaseStrategy


class OwnStrategy(BaseStrategy):
    """Says nothing."""

    @property
    def warmup_period(self) -> int:
        return 1

    def on_candle(self, candle: Candle) -> Signal | None:
        return None
'''


def plan(**options: Any) -> RunPlan:
    return plan_run(load_settings(options, env={}))


def test_every_strategy_runs_on_every_stream_in_business_order() -> None:
    found = plan(symbols="ETH/USDT,BTC/USDT", timeframes="5m,1m")

    keys = [each.key for each in found.instances]
    assert len(keys) == 7 * 4
    assert keys == sorted(keys, key=lambda key: (key.symbol, key.timeframe, key.strategy))
    assert {key.strategy for key in keys} == set(SEVEN)
    assert sum(found.shares.values()) <= 1
    assert set(found.shares) == set(found.rules) == set(keys)


def test_the_rules_of_an_instance_are_those_of_the_settings_and_of_its_strategy() -> None:
    rules = plan(strategies="grid,rsi", symbols="BTC/USDT").rules

    grid, rsi = rules[InstanceKey("grid", "BTC/USDT", "1m")], rules[InstanceKey("rsi", "BTC/USDT", "1m")]
    assert (rsi.sizing.rule, rsi.sizing.amount) == (SizingRule.EQUITY_FRACTION, D("0.12"))
    assert (rsi.max_entries, rsi.stop_loss_pct, rsi.stop_anchor_price) == (1, 5, None)
    assert (rsi.instrument.tick_size, rsi.age_max.total_seconds()) == (D("0.01"), 300)
    assert grid.max_entries == 5
    assert grid.stop_anchor_price == 60_000


@pytest.mark.parametrize(("given", "entries"), [("0", 0), ("3", 3)])
def test_max_entries_of_the_settings_hold_for_all(given: str, entries: int) -> None:
    found = plan(strategies="grid,rsi", max_entries=given)

    assert {rules.max_entries for rules in found.rules.values()} == {entries}


def test_an_unknown_strategy_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="macd"):
        plan(strategies="mcad")


def test_parameters_for_an_unknown_strategy_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="rsi"):
        plan(strategy_params='{"rsy": {"period": 7}}')


def test_parameters_reach_their_strategy_and_a_misspelt_one_is_refused() -> None:
    found = plan(strategies="rsi", strategy_params='{"rsi": {"period": 7}}', symbols="BTC/USDT")
    assert found.instances[0].strategy.warmup_period == 8

    with pytest.raises(PluginError, match="period"):
        plan(strategies="rsi", strategy_params='{"rsi": {"perod": 7}}')


def test_parameters_of_a_symbol_hold_for_it_alone() -> None:
    found = plan(strategies="rsi", strategy_params='{"rsi": {"symbols": {"ETH/USDT": {"period": 20}}}}')

    warmups = {each.key.symbol: each.strategy.warmup_period for each in found.instances}
    assert warmups == {"BTC/USDT": 15, "ETH/USDT": 21}


def test_a_disabled_strategy_is_left_out_and_none_at_all_is_an_error() -> None:
    off = {name: {"enabled": False} for name in SEVEN}
    kept = plan(strategy_params={**off, "rsi": {}})
    assert {each.key.strategy for each in kept.instances} == {"rsi"}

    with pytest.raises(ConfigError, match="at least one"):
        plan(strategy_params=off)


def test_an_instance_that_is_not_planned_has_rules_too() -> None:
    found = plan(strategies="rsi", symbols="BTC/USDT")

    rules = found.default_rules(InstanceKey("gone", "BTC/USDT", "1m"))

    assert (rules.stop_loss_pct, rules.max_entries, rules.stop_anchor_price) == (5, 1, None)


def test_named_shares_are_given_and_the_rest_is_divided() -> None:
    found = plan(strategies="rsi,macd,grid", symbols="BTC/USDT", allocation="rsi=0.5")

    shares = {key.strategy: share for key, share in found.shares.items()}
    assert shares == {"rsi": D("0.5"), "macd": D("0.25"), "grid": D("0.25")}


def test_the_more_exact_name_of_a_share_wins() -> None:
    found = plan(strategies="rsi", allocation="rsi=0.2,rsi@ETH/USDT=0.7")

    shares = {key.symbol: share for key, share in found.shares.items()}
    assert shares == {"ETH/USDT": D("0.7"), "BTC/USDT": D("0.2")}


def test_a_share_for_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match="macd"):
        plan(strategies="rsi", allocation="macd=0.5")


def test_positions_that_may_exceed_the_symbol_limit_are_noted_with_the_figure_that_fits() -> None:
    notes = plan(strategies="rsi", symbols="BTC/USDT", sizing="equity_fraction:0.5").notes

    note = next(note for note in notes if "the limit is" in note)
    assert "BTC/USDT" in note
    assert "50.0%" in note
    assert "equity_fraction:0.100" in note


def test_positions_within_the_limit_are_not_noted() -> None:
    notes = plan(strategies="rsi", symbols="BTC/USDT", sizing="equity_fraction:0.1").notes

    assert not any("the limit is" in note for note in notes)
    assert any("an entry costs about 1000.00" in note for note in notes)


def test_a_symbol_without_rules_is_noted_as_free() -> None:
    notes = plan(strategies="rsi", symbols="FOO/USDT").notes

    assert any("FOO/USDT" in note and "free" in note for note in notes)


def test_a_bad_strategy_file_is_noted_and_the_others_run(tmp_path: Path) -> None:
    (tmp_path / "own_strategy.py").write_text(PLUGIN)
    (tmp_path / "bad_strategy.py").write_text("import socket\n")

    found = plan(strategies_dir=str(tmp_path), symbols="BTC/USDT")

    assert [each.key.strategy for each in found.instances] == ["own"]
    assert any("bad_strategy.py" in note for note in found.notes)


def test_a_folder_with_only_bad_files_is_refused_with_the_mistake(tmp_path: Path) -> None:
    (tmp_path / "bad_strategy.py").write_text("import socket\n")

    with pytest.raises(ConfigError, match=r"at least one.*bad_strategy\.py"):
        plan(strategies_dir=str(tmp_path))


def test_a_runner_bears_mode_and_hashes() -> None:
    found = plan(strategies="rsi", symbols="BTC/USDT")
    changed = plan(strategies="rsi", symbols="BTC/USDT", strategy_params='{"rsi": {"period": 9}}')

    stamp, other = (each.instances[0].runner("paper").stamp for each in (found, changed))

    assert stamp.mode == "paper"
    assert stamp.config_hash
    assert stamp.code_hash == other.code_hash
    assert stamp.config_hash != other.config_hash


def test_vwap_refuses_an_anchor_that_holds_too_few_candles() -> None:
    with pytest.raises(PluginError, match=r"week|month"):
        plan(strategies="vwap", timeframes="1h")

"""Finding, checking and importing strategy files: one bad file never harms another."""

from __future__ import annotations

import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from shared.plugins import bundled_strategies_dir, config_hash, discover
from shared.strategy import PluginError

GOOD = """
from strategies.base import BaseStrategy, StrategyParams

class Params(StrategyParams):
    period: int = 3
    level: float = 1.5

class GoodStrategy(BaseStrategy):
    Params = Params

    @property
    def warmup_period(self):
        return self.params.period

    def on_candle(self, candle):
        return self.buy(candle, "always")
"""
OLD_STYLE = """
from decimal import Decimal
from strategies.base import BaseStrategy

class Old(BaseStrategy):
    name = "old"

    def __init__(self, period=14):
        self.period = period

    @property
    def warmup_period(self):
        return self.period

    def configure(self, params):
        self.period = int(params.get("period", self.period))

    def on_candle(self, candle):
        return None
"""

type Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    def write(**files: str) -> Path:
        (tmp_path / "config").mkdir(exist_ok=True)
        for stem, text in files.items():
            target = tmp_path / "config" / f"{stem[:-5]}.yaml" if stem.endswith("_yaml") else tmp_path / f"{stem}.py"
            target.write_text(dedent(text))
        return tmp_path

    return write


def test_a_file_is_found_and_configured_from_defaults_yaml_and_settings(folder: Folder) -> None:
    yaml = "period: 5\nquantity: 0.2\nsymbols:\n  ETH/USDT:\n    level: 9\n"
    found = discover(folder(good_strategy=GOOD, good_strategy_yaml=yaml))
    assert found.problems == []
    plugin = found.get("good")

    def values(*arguments: Any) -> tuple[Any, ...]:
        return tuple(plugin.create(*arguments).params.model_dump().values())

    assert values() == (Decimal("0.2"), 5, 1.5)
    assert values("ETH/USDT") == (Decimal("0.2"), 5, 9.0)
    assert values("BTC/USDT", {"level": "7"}) == (Decimal("0.2"), 5, 7.0)
    settings = {"level": 7, "enabled": True, "symbols": {"ETH/USDT": {"level": 8, "period": 6}}}
    assert values("ETH/USDT", settings) == (Decimal("0.2"), 6, 8.0)
    everywhere = plugin.create(None, settings)
    assert everywhere.for_symbol("ETH/USDT").params == plugin.create("ETH/USDT", settings).params
    assert everywhere.for_symbol("BTC/USDT").params == plugin.create("BTC/USDT", settings).params
    assert config_hash(plugin.create()) != config_hash(plugin.create("ETH/USDT"))


def test_enabled_is_said_by_the_settings_else_by_the_yaml(folder: Folder) -> None:
    off = discover(folder(good_strategy=GOOD, good_strategy_yaml="enabled: false\n")).get("good")
    assert not off.enabled
    assert not off.is_enabled()
    assert off.is_enabled({"enabled": True})
    on = discover(folder(good_strategy_yaml="")).get("good")
    assert on.is_enabled()
    assert not on.is_enabled({"enabled": False})


def test_a_strategy_that_reads_its_own_parameters_is_welcome(folder: Folder) -> None:
    plugin = discover(folder(old_strategy=OLD_STYLE)).get("old")
    assert plugin.create(None, {"period": 9}).warmup_period == 9
    assert config_hash(plugin.create(None, {"period": 9})) != config_hash(plugin.create())
    assert plugin.create().params.quantity == Decimal("0.01")


def test_a_file_is_imported_once_under_a_name_of_its_own(folder: Folder) -> None:
    path = folder(good_strategy=GOOD)
    first, again = discover(path).get("good"), discover(str(path)).get("good")
    assert first.cls is again.cls
    assert first.cls.__module__.startswith("trading_plugins.")
    folder(good_strategy=GOOD.replace("1.5", "2.5"))
    edited = discover(path).get("good")
    assert edited.cls is not first.cls
    assert edited.code_hash != first.code_hash
    bundled = discover()
    assert bundled.problems == []
    assert bundled.get("rsi").cls is sys.modules["strategies.rsi_strategy"].RsiStrategy
    assert bundled_strategies_dir().joinpath("base.py").is_file()


def test_a_bundled_file_copied_elsewhere_is_a_plugin_like_any(folder: Folder) -> None:
    path = folder(mine_strategy=bundled_strategies_dir().joinpath("rsi_strategy.py").read_text())
    assert discover(path).get("rsi").cls.__module__.startswith("trading_plugins.")


BAD = {
    "a syntax error": ("class Broken(:\n", "line 1: is not valid Python"),
    "a null byte": ("x = '\0'\n", "not valid Python"),
    "no class": ("x = 1\n", "holds no strategy class"),
    "only the contract": ("from strategies.base import BaseStrategy\n", "holds no strategy class"),
    "two classes": (GOOD + GOOD.replace("GoodStrategy", "OtherStrategy"), "holds 2 strategy classes"),
    "no rule": (
        "from strategies.base import BaseStrategy\nclass A(BaseStrategy):\n    warmup_period = 1\n",
        "A lacks on_candle",
    ),
    "a raising import": ("1 / 0\n" + GOOD, "ZeroDivisionError"),
    "an unknown name": ("from strategies.base import Nothing\n", "cannot be imported: ImportError"),
    "a socket": ("import socket\n" + GOOD, "line 1: imports socket"),
    "a file": (GOOD + "\nDATA = open('/etc/passwd').read()\n", "calls open"),
    "a raising constructor": (
        GOOD + "\n    def __init__(self):\n        raise RuntimeError('no luck')\n",
        "RuntimeError: no luck",
    ),
    "a needy constructor": (GOOD + "\n    def __init__(self, broker):\n        pass\n", "TypeError"),
    "an odd warm-up": (GOOD.replace("return self.params.period", "return 'soon'"), "warmup_period must be"),
    "a raising warm-up": (GOOD.replace("return self.params.period", "return self.gone"), "warmup_period raises"),
    "an odd name": (GOOD.replace("    Params = Params", "    Params = Params\n    name = 'a b'"), "name must be"),
    "a second of the name": (GOOD, "second strategy named 'good'"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_reported_and_the_others_go_on(folder: Folder, what: str) -> None:
    source, words = BAD[what]
    found = discover(folder(a_strategy=GOOD, z_strategy=source))
    assert found.names == ["good"]
    (problem,) = found.problems
    assert problem.path.name == "z_strategy.py"
    assert words in str(problem)
    assert problem.fix
    assert "\n" not in str(problem)


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("perod: 3\n", "unknown key 'perod'; did you mean 'period'"),
        ("period: x\n", "period"),
        ("period: [1\n", "line 2: is not valid YAML"),
        ("- 1\n", "expected `key: value` lines, was a list"),
        ("enabled: maybe\n", "enabled must be true or false"),
        ("symbols: [BTC/USDT]\n", "symbols must map"),
        ("symbols:\n  BTCUSDT: {period: 3}\n", "BASE/QUOTE"),
        ("symbols:\n  BTC/USDT: 3\n", "expected parameters by name"),
        ("symbols:\n  BTC/USDT: {perod: 3}\n", "did you mean 'period'"),
        ("!!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("quantity: -1\n", "quantity"),
    ],
)
def test_a_bad_yaml_is_reported_with_file_and_key(folder: Folder, yaml: str, words: str) -> None:
    found = discover(folder(a_strategy=OLD_STYLE, good_strategy=GOOD, good_strategy_yaml=yaml))
    assert found.names == ["old"]
    (problem,) = found.problems
    assert words in str(problem)
    assert "good_strategy.yaml" in str(problem)


def test_a_mistake_in_the_settings_names_the_setting(folder: Folder) -> None:
    plugin = discover(folder(good_strategy=GOOD)).get("good")
    with pytest.raises(PluginError, match="strategy_params good: unknown key 'leve'; did you mean 'level'"):
        plugin.create("BTC/USDT", {"leve": 3})
    with pytest.raises(PluginError, match="strategy_params good: expected parameters by name"):
        plugin.create("BTC/USDT", 3)  # type: ignore[arg-type]


def test_an_unknown_strategy_is_refused_with_the_nearest(folder: Folder) -> None:
    found = discover(folder(good_strategy=GOOD, bad_strategy="x = 1"))
    with pytest.raises(PluginError, match="unknown strategy 'god'; did you mean 'good'"):
        found.get("god")
    with pytest.raises(PluginError, match="holds no strategy class"):
        found.get("bad")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no such folder"):
        discover(tmp_path / "gone")
    assert discover(tmp_path).plugins == []

"""A strategy file or its YAML that is wrong is named and left out, or refused; the others trade on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from shared.plugins import bundled_strategies_dir
from trading_cli.main import main  # noqa: F401 - loaded before the watchdog measures a strategy's import

GOOD = """from shared.strategy import BaseStrategy
from shared.models import Candle, OrderSide, Signal


class Bad(BaseStrategy):
    name = "bad"
    seen = 0

    @property
    def warmup_period(self) -> int:
        return 1

    def reset(self) -> None:
        self.seen = 0

    def on_candle(self, candle: Candle):
        self.seen += 1
        {body}
"""


class Row(NamedTuple):
    """What a strategy file holds, and what is said of it."""

    source: str
    fragments: tuple[str, ...]


def body(text: str) -> str:
    return GOOD.replace("{body}", text)


LEFT_OUT = {
    "raises at import": Row("raise RuntimeError('no luck')", ("cannot be imported", "no luck")),
    "exits at import": Row("raise SystemExit(0)", ("cannot be imported",)),
    "imports os": Row("import os\n" + body("return None"), ("line 1", "imports os", "a strategy may import")),
    "imports socket": Row("from socket import socket\n" + body("return None"), ("imports socket",)),
    "imports requests": Row("import requests\n" + body("return None"), ("imports requests",)),
    "imports late": Row(body("import subprocess"), ("imports subprocess",)),
    "opens a file": Row(body("return open('/etc/passwd').read()"), ("calls open",)),
    "reads the clock": Row("import datetime\n" + body("return datetime.datetime.now()"), ("clock", "close_time")),
    "a syntax error": Row("class Bad(BaseStrategy)\n", ("line 1", "not valid Python")),
    "a NUL byte": Row("x = 1\0", ("not valid Python",)),
    "no class": Row("x = 1\n", ("no strategy class", "extends BaseStrategy")),
    "two classes": Row(body("return None") + body("return None").replace("Bad(", "Worse("), ("2 strategy classes",)),
    "an abstract class": Row(
        "from shared.strategy import BaseStrategy\nclass Bad(BaseStrategy):\n    name = 'bad'\n", ("lacks", "on_candle")
    ),
    "a name taken": Row(body("return None").replace('"bad"', '"rsi"'), ("second strategy named 'rsi'", "rename")),
    "raises when it is made": Row(
        body("return None").replace('name = "bad"', "name = property(lambda self: 1 / 0)"), ("ZeroDivisionError",)
    ),
    "a warm-up that is no number": Row(body("return None").replace("return 1", "return 'a'"), ("warmup_period",)),
}

SILENCED = {
    "raises": ("raise ValueError('odd candle')", "ValueError: odd candle"),
    "raises late": ("return None if self.seen < 40 else 1 / 0", "ZeroDivisionError"),
    "exits": ("raise SystemExit(7)", "SystemExit"),
    "returns rubbish": ("return 'BUY'", "must return a Signal or None"),
    "buys another symbol": (
        "return Signal(strategy='bad', symbol='ETH/USDT', side='BUY', price='1', quantity='1')",
        "ETH/USDT",
    ),
    "prices with NaN": (
        "return Signal(strategy='bad', symbol=candle.symbol, side='BUY', price=float('nan'), quantity='1')",
        "price",
    ),
    "sells less than nothing": (
        "return Signal(strategy='bad', symbol=candle.symbol, side='SELL', price='1', quantity='-1')",
        "quantity",
    ),
    "changes its candle": ("candle.close = candle.close * 2", "immutable"),
}

YAML = {
    "an unknown key": ("perod: 14\n", ("rsi_strategy.yaml", "perod", "period")),
    "a wrong type": ("period: fourteen\n", ("rsi_strategy.yaml", "period", "fourteen")),
    "a period of zero": ("period: 0\n", ("rsi_strategy.yaml", "period")),
    "a number without end": (f"period: {'9' * 400}\n", ("rsi_strategy", "lower them")),
    "not a mapping": ("- period\n- 14\n", ("rsi_strategy.yaml", "key: value", "list")),
    "a tab": ("symbols:\n\tBTC/USDT: {}\n", ("rsi_strategy.yaml", "line 2", "not valid YAML")),
    "an open bracket": ("symbols: {BTC/USDT: \n", ("rsi_strategy.yaml", "not valid YAML")),
    "symbols as a list": ("symbols: [BTC/USDT]\n", ("rsi_strategy.yaml", "symbols must map")),
    "a bare symbol": ("symbols: {BTCUSDT: {period: 9}}\n", ("'BTCUSDT'", "BASE/QUOTE")),
    "an unknown key of a symbol": ("symbols: {BTC/USDT: {perid: 9}}\n", ("rsi_strategy.yaml", "perid", "period")),
    "enabled as a word": ("enabled: maybe\n", ("enabled must be true or false", "'maybe'")),
    "bytes that are no text": ("period: \udcff\n", ("rsi_strategy.yaml", "cannot be read")),
    "a tag that runs code": ("!!python/object/apply:os.system ['true']\n", ("rsi_strategy.yaml", "not valid YAML")),
}


@pytest.fixture
def strategies(clean_place: Path) -> Path:
    """Return a folder with two good strategies."""
    folder = clean_place / "strategies"
    (folder / "config").mkdir(parents=True)
    for stem in ("rsi_strategy", "macd_strategy"):
        shutil.copy(bundled_strategies_dir() / f"{stem}.py", folder)
        shutil.copy(bundled_strategies_dir() / "config" / f"{stem}.yaml", folder / "config")
    return folder


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_strategy_file_that_cannot_be_used_is_named_and_the_others_run(
    name: str, trading: Any, strategies: Path, refused: Any
) -> None:
    (strategies / "bad_strategy.py").write_text(LEFT_OUT[name].source)
    named = ("--strategies-dir", str(strategies), "--health-port", "0", "--strategies", "bad")
    if name != "a name taken":
        refused(trading("up", *named), "bad_strategy.py", *LEFT_OUT[name].fragments)
    from shared.config import load_settings
    from shared.instances import plan_run

    plan = plan_run(load_settings({"strategies_dir": str(strategies), "symbols": "BTC/USDT"}, env={}))
    assert [each.key.strategy for each in plan.instances] == ["macd", "rsi"]
    notes = "\n".join(plan.notes)
    for fragment in ("bad_strategy.py", *LEFT_OUT[name].fragments):
        assert fragment in notes


@pytest.mark.parametrize("name", YAML)
def test_a_wrong_yaml_is_refused_where_the_strategy_is_named(
    name: str, trading: Any, strategies: Path, refused: Any
) -> None:
    text, fragments = YAML[name]
    (strategies / "config" / "rsi_strategy.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(trading("up", "--strategies-dir", str(strategies), "--health-port", "0", "--strategies", "rsi"), *fragments)


def test_an_empty_yaml_means_the_defaults(trading: Any, strategies: Path, replay: Any) -> None:
    (strategies / "config" / "rsi_strategy.yaml").write_text("")
    outcome = trading(*replay(60), "--strategies-dir", str(strategies), "--strategies", "rsi")
    assert outcome.code == 0, outcome.said


def test_strategies_that_fail_while_running_are_put_aside_and_the_others_trade_on(
    trading: Any, strategies: Path, replay: Any
) -> None:
    for number, (source, _) in enumerate(SILENCED.values()):
        text = body(source).replace('"bad"', f'"bad_{number}"').replace("Bad(", f"Bad{number}(")
        (strategies / f"bad_{number}_strategy.py").write_text(text)
    outcome = trading(*replay(400), "--strategies-dir", str(strategies))
    assert outcome.code == 0, outcome.said
    assert "ledger check: clean" in outcome.said
    for number, (_, fault) in enumerate(SILENCED.values()):
        line = next(line for line in outcome.said.splitlines() if f"bad_{number} " in line and "isolated" in line)
        assert fault in line
    listed = trading("signals").said
    assert "bad_" not in listed
    assert "rsi" in listed
    assert trading("verify").code == 0


def test_a_strategy_that_never_answers_is_interrupted_and_the_others_trade_on(
    trading: Any, strategies: Path, replay: Any
) -> None:
    stubborn = "while True:\n            try:\n                self.seen += 1\n            except Exception:\n                pass"
    (strategies / "bad_strategy.py").write_text(body(stubborn))
    outcome = trading(*replay(200), "--strategies-dir", str(strategies))
    assert outcome.code == 0, outcome.said
    assert "no answer within" in outcome.said
    assert "rsi" in trading("signals").said
    assert trading("verify").code == 0


def test_a_strategy_that_never_ends_its_import_is_left_out(
    trading: Any, strategies: Path, replay: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.plugins.IMPORT_SECONDS_MAX", 0.3)
    (strategies / "bad_strategy.py").write_text("while True:\n    pass\n")
    outcome = trading(*replay(60), "--strategies-dir", str(strategies))
    assert outcome.code == 0, outcome.said
    assert "bad_strategy.py: its import gives no answer" in outcome.said


def test_a_run_without_any_usable_strategy_is_refused(trading: Any, clean_place: Path, refused: Any) -> None:
    folder = clean_place / "mine"
    folder.mkdir()
    (folder / "mine.py").write_text("import os\n")
    refused(trading("up", "--strategies-dir", str(folder), "--health-port", "0"), "at least one", "imports os")


def test_a_filter_that_mutes_nearly_every_candle_is_told_at_the_end_of_the_run(trading: Any, replay: Any) -> None:
    outcome = trading(*replay(400), "--strategies", "bollinger")
    assert outcome.code == 0, outcome.said
    assert "note: bollinger BTC/USDT 1m: bollinger: min_bandwidth 0.02 muted" in outcome.said

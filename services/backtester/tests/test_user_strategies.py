"""What a person's own strategy may get wrong: one sentence that says where, in every engine, and never a wrong trade."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from backtester.command import backtest
from shared.errors import TradingError

pytestmark = pytest.mark.thorough

STRATEGY = """
from shared.strategy import BUY, HOLD, SELL, CompiledStrategy


def step(state, params, open_time, open, high, low, close, volume):
    {body}


class OwnStrategy(CompiledStrategy):
    name = "own"
    step = staticmethod(step)
    warmup_period = 1

    def state_fields(self):
        return {{"seen": 0.0}}

    def describe(self, state, side):
        return "own"
"""

PLAIN = """
from strategies.base import BaseStrategy


class OwnStrategy(BaseStrategy):
    name = "own"
    warmup_period = 1

    def on_candle(self, candle):
        return None
"""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TRADING_STATE", "STATE", "DATABASE_URL", "STRATEGIES_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def refusal(candles: Path, body: str, *words: str) -> str:
    """Return the sentence that a run of a step with this body is refused with."""
    Path("own").mkdir()
    Path("own/own_strategy.py").write_text(STRATEGY.format(body=body))
    fixed = ["--strategy", "own", "--strategies-dir", "own", "--symbol", "BTC/USDT", "--no-trials"]
    result = CliRunner().invoke(backtest, [*fixed, "--data", str(candles), *words])
    assert isinstance(result.exception, TradingError), repr(result.exception) + result.output[-400:]
    assert result.exception.exit_code == 2
    return str(result.exception)


RAISES = "if close > 102:\n        raise ValueError('too dear')\n    return HOLD"
SEVEN = "return 7 if state.candle_count == 3 else HOLD"
FORGETS = "if close > 102:\n        return BUY"


@pytest.mark.parametrize(
    ("engine", "body", "sentence"),
    [
        ("compiled", RAISES, "own: its step raised ValueError: too dear (candle of 2024-"),
        ("event", RAISES, "ValueError: too dear (candle of 2024-"),
        ("compiled", SEVEN, "HOLD (0), BUY (1) or SELL (2)"),
        ("event", SEVEN, "HOLD (0), BUY (1) or SELL (2), was 7"),
        ("event", FORGETS, "expected int64, got None"),
        ("compiled", "state.seen = close", "it answers none, where HOLD, BUY or SELL is needed on every path"),
        ("event", "return 'BUY'", "where HOLD, BUY or SELL is needed on every path"),
        (
            "compiled",
            "state.sen = close\n    return HOLD",
            "'sen'; correct the step, which may use fields of state_fields",
        ),
    ],
)
def test_a_step_that_fails_or_answers_no_action_ends_the_run_and_is_never_taken_for_a_sale(
    write_csv: Callable[..., Path], engine: str, body: str, sentence: str
) -> None:
    assert sentence in refusal(write_csv([100.0 + number for number in range(9)]), body, "--engine", engine)


def test_why_the_event_engine_ran_is_a_sentence(write_csv: Callable[..., Path]) -> None:
    Path("own").mkdir()
    Path("own/own_strategy.py").write_text(PLAIN)
    fixed = ["--strategy", "own", "--strategies-dir", "own", "--symbol", "BTC/USDT", "--no-trials"]
    result = CliRunner().invoke(backtest, [*fixed, "--data", str(write_csv([100.0, 101.0]))])
    assert "engine event: the compiled one does not run own, which has no step" in result.output

"""A recorded result is run again: equal, different field by field, or impossible."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from backtester.command import backtest
from shared.errors import TradingError

pytestmark = pytest.mark.thorough

# plain Python: nothing is compiled for a test of words and figures
FLIP = """from strategies.base import BaseStrategy


class FlipStrategy(BaseStrategy):
    name = "flip"
    warmup_period = 1

    def reset(self):
        self.last = None

    def on_candle(self, candle):
        jump, self.last = 0 if self.last is None else candle.close - self.last, candle.close
        if abs(jump) < 2:
            return None
        return self.buy(candle, "up") if jump > 0 else self.sell(candle, "down")
"""
BASE = ("--strategies-dir", "own", "--strategy", "flip", "--data", "candles.csv", "--symbol", "BTC/USDT")
WAVE = [100.0 + 5 * ((number // 30) % 2) + 0.1 * (number % 30) for number in range(200)]


@pytest.fixture(autouse=True)
def recorded(write_csv: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give the file of a recorded run, in an empty folder without the settings of whoever runs the test."""
    for name in ("TRADING_STATE", "STATE", "DATABASE_URL", "STRATEGIES_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    write_csv(WAVE)
    Path("own").mkdir()
    Path("own/flip_strategy.py").write_text(FLIP)
    assert run(*BASE, "--json", "run.json").exit_code == 0
    return tmp_path / "run.json"


def run(*words: str) -> Result:
    result = CliRunner().invoke(backtest, list(words), prog_name="trading backtest")
    assert result.exception is None or isinstance(result.exception, TradingError | SystemExit), repr(result.exception)
    return result


def outcome(result: Result) -> tuple[int, str]:
    if isinstance(result.exception, TradingError):
        return result.exception.exit_code, str(result.exception)
    return result.exit_code, result.output


def change(path: Path, *names: str | int, to: Any) -> None:
    document = json.loads(path.read_text())
    place = document
    for name in names[:-1]:
        place = place[name]
    place[names[-1]] = to
    path.write_text(json.dumps(document))


def test_the_same_data_and_code_give_the_same_figures_and_no_new_trial(recorded: Path) -> None:
    code, text = outcome(run("--verify", "run.json"))
    assert (code, "the same again" in text) == (0, True), text
    assert json.loads(recorded.read_text())["trial"] == 1
    assert "trial 2 on this data" in run(*BASE).output


def test_a_file_that_another_program_wrote_anew_is_the_same_again(recorded: Path) -> None:
    digits = recorded.read_text()
    change(recorded, "notes", to=[])  # json has float64's digits, the result had all
    assert digits != recorded.read_text()
    code, text = outcome(run("--verify", "run.json"))
    assert (code, "the same again" in text) == (0, True), text


@pytest.mark.parametrize(
    ("names", "value", "line"),
    [
        (("final_balance",), 12_345, "final_balance: recorded 12345, now "),
        (("metrics", "win_rate"), 99.5, "metrics.win_rate: recorded 99.5, now "),
        (("metrics", "sharpe_ratio"), 1, "metrics.sharpe_ratio: recorded 1, now null"),
        (("trades", 1, "price"), 1, "trades[1].price: recorded 1, now "),
        (("trades",), [], "trades: recorded 0 rows, now "),
        (("data", "sha256"), "0000", "data.sha256: recorded 0000, now "),
        (("code_hash",), "0000", "code_hash: recorded 0000, now "),
        (("options", "gap"), "fill", "options.gap: recorded fill, now refuse"),
    ],
)
def test_a_difference_is_named_with_both_values(
    recorded: Path, names: tuple[str | int, ...], value: Any, line: str
) -> None:
    change(recorded, *names, to=value)
    code, text = outcome(run("--verify=run.json"))
    assert (code, line in text) == (1, True), text


def test_other_data_under_the_same_name_shows_in_hash_and_figures(
    recorded: Path, write_csv: Callable[..., Path]
) -> None:
    write_csv([close * 1.01 for close in WAVE])
    code, text = outcome(run("--verify", "run.json"))
    assert code == 1
    assert "data.sha256" in text
    assert "final_balance" in text


def test_data_that_moved_is_found_where_one_says(recorded: Path) -> None:
    Path("candles.csv").rename("moved.csv")
    code, text = outcome(run("--verify", "run.json"))
    assert (code, "cannot be run again" in text and "candles.csv" in text) == (2, True), text
    assert outcome(run("--verify", "run.json", "--data", "moved.csv"))[0] == 0


def test_code_that_is_gone_cannot_be_verified(recorded: Path) -> None:
    Path("own/flip_strategy.py").rename("own/other_strategy.py")
    change(recorded, "command", to=json.loads(recorded.read_text())["command"].replace("flip", "gone"))
    code, text = outcome(run("--verify", "run.json"))
    assert (code, "unknown strategy" in text) == (2, True), text


def test_code_that_was_changed_is_named_beside_what_it_changed(recorded: Path) -> None:
    Path("own/flip_strategy.py").write_text(FLIP.replace("< 2", "< 6"))
    code, text = outcome(run("--verify", "run.json"))
    assert code == 1
    assert "code_hash: recorded" in text
    assert "trades: recorded" in text


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read"),
        ("", "is not JSON"),
        ("[]", "is no result of the schema"),
        ('{"schema": "up/1"}', "found 'up/1'"),
        ('{"schema": "backtest/1"}', "carries no command"),
        ('{"schema": "backtest/1", "command": "trading \'"}', "carries no command"),
    ],
)
def test_a_file_that_is_no_result_is_refused(content: str | None, sentence: str) -> None:
    if content is not None:
        Path("other.json").write_text(content)
    code, text = outcome(run("--verify", "other.json"))
    assert (code, sentence in text) == (2, True), text


def test_what_the_file_says_cannot_be_changed_on_the_way() -> None:
    code, text = outcome(run("--verify", "run.json", "--fee", "0"))
    assert (code, "found --fee" in text) == (2, True), text


def test_a_password_is_not_recorded() -> None:
    url = "postgresql://me:hunter2@127.0.0.1:1/none"
    assert run(*BASE, "--database-url", url, "--json", "secret.json").exit_code == 0
    assert "hunter2" not in Path("secret.json").read_text()
    assert outcome(run("--verify", "secret.json"))[0] == 0

"""The command line of a backtest: its JSON contract, and a clear sentence for every mistake."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from backtester.command import backtest
from backtester.data import DATABASE_SOURCE
from backtester.metrics import DetailedMetrics
from backtester.trials import read_trials
from shared.db import Database
from shared.errors import TradingError
from shared.testing.builders import candle

pytestmark = pytest.mark.thorough

CONTRACT = {
    *("schema", "version", "engine", "strategy", "symbol", "timeframe", "params", "command", "config_hash", "fill"),
    *("fee", "fee_asset", "slippage_bps", "sizing", "max_entries", "risk", "data", "initial_balance", "final_balance"),
    *("fees_paid", "signals", "refused", "ignored", "metrics", "trades", "seconds"),
}
TRADE_FIELDS = {"time", "signal_time", "symbol", "strategy", "side", "price", "quantity", "fee", "balance_after"}
HEAD = "from strategies.base import BaseStrategy\n\n\n"
WAVE = [100.0 + 5 * ((number // 30) % 2) + 0.1 * (number % 30) for number in range(300)]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run every test in an empty folder without the settings of whoever runs it."""
    for name in ("TRADING_STATE", "STATE", "DATABASE_URL", "STRATEGIES_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def candles(write_csv: Callable[..., Path]) -> Path:
    return write_csv(WAVE)


def run(*words: object) -> Result:
    result = CliRunner().invoke(backtest, [str(word) for word in words], prog_name="backtester")
    unexpected = result.exception
    assert unexpected is None or isinstance(unexpected, TradingError | SystemExit), repr(unexpected)
    return result


def run_over(path: Path, *words: object) -> Result:
    strategy = () if "--strategy" in words else ("--strategy", "ema_crossover")
    return run(*strategy, "--data", path, "--symbol", "BTC/USDT", *words)


def said(result: Result) -> tuple[int, str]:
    """Return the exit code that `trading` gives this outcome, and what it says on standard error."""
    if isinstance(result.exception, TradingError):
        return result.exception.exit_code, f"{result.stderr}{result.exception}"
    return result.exit_code, result.stderr


def reject_constant(word: str) -> Any:
    raise AssertionError(f"{word} is no JSON")


# --- what is written ----------------------------------------------------------------------------------------------


def test_the_json_has_every_name_of_the_contract_and_is_strict(candles: Path) -> None:
    result = run_over(candles, "--json", "out.json", "--param", "short_period=5", "--param", "quantity=0.5")
    assert result.exit_code == 0, said(result)
    document = json.loads(Path("out.json").read_text(), parse_constant=reject_constant)
    assert set(document) >= CONTRACT
    assert document["schema"] == "backtest/1"
    assert set(document["data"]) >= {"path", "rows", "first", "last", "gaps", "sha256"}
    assert set(document["seconds"]) == {"load", "compile", "run"}
    assert set(document["metrics"]) == set(DetailedMetrics.__struct_fields__)
    assert document["trades"]
    assert all(set(trade) >= TRADE_FIELDS for trade in document["trades"])
    assert document["params"] == {"short_period": 5, "long_period": 21, "quantity": "0.5"}
    assert (document["engine"], document["risk"], document["sizing"]) == ("compiled", "off", "fixed")


def test_the_command_in_the_json_gives_the_same_run_again(candles: Path) -> None:
    run_over(candles, "--json", "out.json", "--fee", "0.002")
    first = json.loads(Path("out.json").read_text())
    words = shlex.split(first["command"])
    assert words[0] == "backtester"
    Path("out.json").unlink()
    run(*words[1:])
    again = json.loads(Path("out.json").read_text())
    volatile = ("seconds", "trial")
    assert {key: value for key, value in first.items() if key not in volatile} == {
        key: value for key, value in again.items() if key not in volatile
    }
    assert (first["trial"], again["trial"]) == (1, 2)


def test_every_run_is_one_row_of_the_trial_ledger(candles: Path) -> None:
    assert run_over(candles, "--state", "here").stdout.endswith("trial 1 on this data\n")
    assert "trial 2 on this data" in run_over(candles, "--state", "here", "--end", "2024-03-04T03:00Z").stdout
    assert "not counted" in run_over(candles, "--state", "here", "--no-trials").stdout
    assert read_trials(Path("here"))["candles"].to_list() == [300, 180]


def test_csv_holds_the_closed_pairs(candles: Path) -> None:
    assert run_over(candles, "--csv", "pairs.csv").exit_code == 0
    header, *pairs = Path("pairs.csv").read_text().splitlines()
    assert header.split(",")[:3] == ["entry_time", "exit_time", "entry_price"]
    assert header.split(",")[-3:] == ["symbol", "strategy", "fees"]
    assert pairs


def test_json_on_standard_output_is_nothing_else(candles: Path) -> None:
    assert json.loads(run_over(candles, "--json", "-").stdout)["schema"] == "backtest/1"


def test_a_report_goes_to_the_terminal(candles: Path) -> None:
    page = run_over(candles).stdout
    assert "BACKTEST REPORT" in page
    assert "COST LADDER" in page


def test_the_limits_of_live_trading_are_asked_for_by_name(candles: Path) -> None:
    result = run_over(candles, "--risk", "live", "--sizing", "equity_fraction:0.5", "--json", "-")
    document = json.loads(result.stdout)
    assert document["risk"] == "live"
    assert document["refused"].get("position_size", 0) > 0
    assert document["trades"] == []


def test_venue_rules_come_from_a_file_or_ship_with_the_platform(candles: Path) -> None:
    rules = "instruments:\n  BTC/USDT: {tick_size: '0.5', step_size: '0.004', notional_min: '0'}\n"
    Path("rules.yaml").write_text(rules)
    document = json.loads(run_over(candles, "--instrument", "rules.yaml", "--json", "-").stdout)
    assert {trade["quantity"] for trade in document["trades"]} == {0.008}
    known = json.loads(run_over(candles, "--instrument", "known", "--json", "-").stdout)
    assert known["refused"].get("min_notional", 0) or not known["trades"]


def test_the_window_ends_before_its_end_and_begins_at_its_start(candles: Path) -> None:
    result = run_over(candles, "--start", "2024-03-04T01:00:00Z", "--end", "2024-03-04T02:00:00", "--json", "-")
    data = json.loads(result.stdout)["data"]
    assert (data["rows"], data["first"], data["last"]) == (60, "2024-03-04T01:00:00Z", "2024-03-04T01:59:00Z")


async def test_candles_of_the_states_own_database(tmp_path: Path) -> None:
    from asyncio import to_thread

    (tmp_path / "var").mkdir()
    database = Database(f"sqlite:///{tmp_path}/var/trading.db")
    await database.init_tables()
    await database.upsert_candles([candle(number, close) for number, close in enumerate(WAVE)])
    await database.close()
    result = await to_thread(run_over, Path(DATABASE_SOURCE), "--json", "-")
    assert json.loads(result.stdout)["data"]["rows"] == 300


# --- a mistake is one clear sentence ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--strategy", "ema_crosover"), "did you mean 'ema_crossover'?"),
        (("--strategy", ""), "unknown strategy"),
        (("--param", "short_perod=5"), "did you mean 'short_period'?"),
        (("--param", "short_period=0"), "short_period"),
        (("--param", "short_period=30"), "short_period"),
        (("--param", "short_period=many"), "short_period"),
        (("--param", "quantity=-1"), "quantity"),
        (("--param", "quantity=nan"), "quantity"),
        (("--param", "short_period"), "not of the form key=value"),
        (("--param", "short_period=5", "--param", "short_period=6"), "given twice"),
        (("--symbol", "BTCUSDT"), "BTC/USDT"),
        (("--timeframe", "7m"), "'7m' is unknown"),
        (("--timeframe", "1M"), "did you mean '1m'?"),
        (("--timeframe", "5m"), "grid"),
        (("--initial-balance", "0"), "initial balance"),
        (("--initial-balance", "nan"), "not a finite number"),
        (("--initial-balance", "ten"), "is not a number"),
        (("--fee", "-0.1"), "fee"),
        (("--fee", "1.5"), "fee"),
        (("--fee-asset", "gold"), "is not one of"),
        (("--slippage-bps", "-1"), "slippage_bps"),
        (("--slippage-bps", "10000"), "slippage_bps"),
        (("--fill", "never"), "is not one of"),
        (("--gap", "maybe"), "is not one of"),
        (("--sizing", "half"), "write fixed, quote:N"),
        (("--sizing", "quote:-5"), "out of range"),
        (("--sizing", "equity_fraction:1.5"), "out of range"),
        (("--sizing", "risk:1"), "needs a stop"),
        (("--max-entries", "-1"), "is not in the range"),
        (("--stop-loss-pct", "100"), "stop_loss_pct"),
        (("--take-profit-pct", "-1"), "take_profit_pct"),
        (("--trailing-pct", "inf"), "not a finite number"),
        (("--risk", "some"), "is not one of"),
        (("--engine", "compiled", "--risk", "live"), "account limits (--risk live); use auto or event"),
        (("--engine", "warp"), "is not one of"),
        (("--instrument", "nofile.yaml"), "is no file"),
        (("--start", "yesterday"), "is not a time"),
        (("--start", "2024-03-05", "--end", "2024-03-04"), "is not after start"),
        (("--start", "2030-01-01"), "no candle from"),
        (("--json", "missing/out.json"), "is not a folder"),
        (("--json", "same", "--csv", "same"), "a file of its own"),
        (("--html", "missing/report.html"), "is not a folder"),
        (("--strategies-dir", "missing"), "no such folder of strategies"),
        (("--speed", "3"), "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_option_is_refused_before_anything_happens(
    candles: Path, words: tuple[str, ...], sentence: str
) -> None:
    code, text = said(run_over(candles, *words))
    assert code == 2
    assert sentence in text
    assert not Path("var").exists()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("candle.csv", "no such file; did you mean 'candles.csv'?"),
        ("folder.csv", "is a folder"),
        ("candles.txt", "expected a .parquet or .csv file"),
        ("db:", "does not exist; give --state"),
    ],
)
def test_data_that_is_not_there_is_refused(candles: Path, data: str, sentence: str) -> None:
    Path("folder.csv").mkdir()
    code, text = said(run_over(Path(data)))
    assert (code, sentence in text) == (2, True), text


HEADER = "open_time,open,high,low,close,volume\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "the file is empty"),
        (HEADER, "no rows"),
        ("time,o,h,l,c,v\n1,1,1,1,1,1\n", "open_time"),
        (HEADER.replace("close,", "") + "2024-03-04T00:00:00Z,1,1,1,1\n", "close"),
        (HEADER + "2024-03-04T00:00:00Z,1,1,1,nan,1\n", "line 2"),
        (HEADER + "2024-03-04T00:00:00Z,1,1,1,inf,1\n", "line 2"),
        (HEADER + "2024-03-04T00:00:00Z,1,1,1,,1\n", "line 2"),
        (HEADER + "2024-03-04T00:00:00Z,1,1,1,0,1\n", "line 2"),
        (HEADER + "2024-03-04T00:00:00Z,1,1,2,1,1\n", "line 2"),
        (HEADER + "2024-03-04T00:00:00Z,1,1,1,1,-1\n", "line 2"),
        (HEADER + "2024-03-04T00:00:00Z,1,1,1,one,1\n", "close"),
        (HEADER + "2024-03-04T00:00:30Z,1,1,1,1,1\n", "grid"),
        (HEADER + 2 * "2024-03-04T00:00:00Z,1,1,1,1,1\n", "line 3"),
        (HEADER + "2024-03-04T00:01:00Z,1,1,1,1,1\n2024-03-04T00:00:00Z,1,1,1,1,1\n", "line 3"),
        (HEADER + "yesterday,1,1,1,1,1\n", "open_time"),
        ("\x00\x01\x02" * 50, "wrong.csv"),
    ],
)
def test_a_candle_file_that_cannot_be_true_is_refused_with_its_place(content: str, sentence: str) -> None:
    Path("wrong.csv").write_text(content)
    code, text = said(run_over(Path("wrong.csv")))
    assert (code, sentence in text) == (2, True), text
    assert not Path("var").exists()


def test_one_candle_and_gaps_are_run_and_said(write_csv: Callable[..., Path]) -> None:
    assert run_over(write_csv([100.0], "one.csv")).exit_code == 0
    path = write_csv(WAVE)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:100] + lines[140:]) + "\n")
    document = json.loads(run_over(path, "--json", "-").stdout)
    assert (document["data"]["gaps"], document["data"]["candles_missing"]) == (1, 40)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("class Bad(BaseStrategy:\n    pass\n", "is not valid Python"),
        ("import os\n", "imports os"),
        ("import socket\nclass Bad(BaseStrategy):\n    pass\n", "imports socket"),
        ("x = open('secret')\n", "calls open"),
        ("x = 1 / 0\n", "ZeroDivisionError"),
        ("while True:\n    pass\n", "gives no answer"),
        ("y = 2\n", "no strategy class"),
        ("class Bad(BaseStrategy):\n    name = 'bad'\n", "on_candle"),
        (
            "class Bad(BaseStrategy):\n    name = 'bad'\n    warmup_period = 'x'\n\n"
            "    def on_candle(self, candle):\n        return None\n",
            "warmup_period",
        ),
        (
            "class Bad(BaseStrategy):\n    name = 'bad'\n    warmup_period = 1\n\n"
            "    def on_candle(self, candle):\n        raise KeyError('close')\n",
            "KeyError: 'close'",
        ),
        (
            "class Bad(BaseStrategy):\n    name = 'bad'\n    warmup_period = 1\n\n"
            "    def on_candle(self, candle):\n        while True:\n            pass\n",
            "no answer within",
        ),
        (
            "class Bad(BaseStrategy):\n    name = 'bad'\n    warmup_period = 1\n\n"
            "    def on_candle(self, candle):\n        return 'BUY'\n",
            "must return a Signal or None",
        ),
    ],
)
def test_a_broken_plugin_is_one_clear_sentence(
    candles: Path, body: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.plugins.IMPORT_SECONDS_MAX", 0.3)
    Path("own").mkdir()
    Path("own/bad_strategy.py").write_text(HEAD + body)
    code, text = said(run_over(candles, "--strategies-dir", "own", "--strategy", "bad"))
    assert (code, sentence in text) == (2, True), text
    assert "bad_strategy.py" in text
    assert not Path("var").exists()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("STRATEGIES_DRI", "own", "did you mean STRATEGIES_DIR?"),
        ("RISK_MAX_DRAWDOWN", "5", "no such setting"),
        ("PAPER_BALANCE", "-5", "paper_balance"),
        ("SIZING", "half", "sizing"),
        ("TRADING_MODE", "live", "live"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(
    candles: Path, name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    code, text = said(run_over(candles))
    assert (code, sentence in text) == (2, True), text


def test_a_ledger_that_cannot_be_written_does_not_cost_the_result(candles: Path) -> None:
    Path("state").write_text("a file where a folder should be")
    result = run_over(candles, "--state", "state", "--json", "out.json")
    assert result.exit_code == 0
    assert "cannot be recorded" in json.loads(Path("out.json").read_text())["notes"][-1]

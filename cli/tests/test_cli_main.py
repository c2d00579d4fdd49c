"""`trading` itself: help without loading anything, errors as one line, a strategy of one's own."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click
import pytest
from click.testing import CliRunner, Result

from backtester.command import DATABASE_FILE as BACKTEST_DATABASE_FILE
from shared.errors import ConfigError, PluginError, StateLocked, VenueUnavailable
from trading_cli import main as root
from trading_cli.main import COMMANDS, main
from trading_cli.state_dir import DATABASE_FILE

pytestmark = pytest.mark.thorough

type Trading = Callable[..., Result]

HEAVY = (
    "numpy",
    "numba",
    "sqlalchemy",
    "pydantic",
    "msgspec",
    "rich",
    "polars",
    "shared.models",
    "backtester",
    "asyncio",
)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_help_loads_nothing_but_click() -> None:
    code = f"""
import sys
from trading_cli.main import main
try:
    main(["--help"])
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    ended = run_python(code)
    assert ended.stderr.strip() == "[]"
    assert all(f"  {name} " in ended.stdout for name in COMMANDS)


def test_version_is_that_of_the_installed_package(trading: Trading) -> None:
    result = trading("--version")
    assert (result.exit_code, result.stdout) == (0, "trading 0.1.0\n")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("up", "run")])
def test_every_command_has_help(trading: Trading, name: str) -> None:
    result = trading(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: trading {name}")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("speed: was -1;\n  give another"), 2, "trading: speed: was -1; give another\n"),
        (PluginError("x.py: broken"), 2, "trading: x.py: broken\n"),
        (StateLocked("in use"), 3, "trading: in use\n"),
        (VenueUnavailable("paper", "away"), 1, "trading: paper: away\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.json"),
            2,
            "trading: out.json: No space left on device\n",
        ),
        (KeyboardInterrupt(), 130, "\n"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def fail() -> NoReturn:
        raise error

    monkeypatch.setattr(root.TradingGroup, "get_command", lambda *_: fail)
    result = CliRunner().invoke(main, ["status"], prog_name="trading")
    assert (result.exit_code, result.stderr) == (code, said)


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def fail() -> NoReturn:
        raise AssertionError("an invariant")

    monkeypatch.setattr(root.TradingGroup, "get_command", lambda *_: fail)
    assert isinstance(CliRunner().invoke(main, ["status"]).exception, AssertionError)


def test_a_reader_that_goes_away_is_no_error(state: Path) -> None:
    command = f"{sys.executable} -c 'from trading_cli.main import main; main()' trades --csv --state {state} | true"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr == ""


# --- new-strategy -------------------------------------------------------------------------------------------------


def write_candles(path: Path, closes: list[float]) -> Path:
    rows = ["open_time,open,high,low,close,volume"]
    for number, close in enumerate(closes):
        moment = f"2024-01-01T{number // 60:02d}:{number % 60:02d}:00Z"
        rows.append(f"{moment},{close},{close},{close},{close},1")
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_new_strategy_runs_as_it_was_written(trading: Trading, tmp_path: Path) -> None:
    written = trading("new-strategy", "dip_buyer", "--dir", "mine")
    assert written.exit_code == 0
    assert "trading backtest --strategies-dir mine --strategy dip_buyer" in written.stdout
    candles = write_candles(tmp_path / "candles.csv", [100, 100, 99, 99, 100, 100, 100])
    result = trading(
        *("backtest", "--strategies-dir", "mine", "--strategy", "dip_buyer", "--data", candles),
        *("--symbol", "BTC/USDT", "--timeframe", "1m", "--json", "out.json"),
    )
    assert result.exit_code == 0, result.output
    document = json.loads(Path("out.json").read_text())
    assert [(trade["side"], trade["time"][11:16]) for trade in document["trades"]] == [
        ("BUY", "00:03"),
        ("SELL", "00:05"),
    ]
    assert document["params"] == {"quantity": "0.01", "move_pct": 0.3}
    source = Path("mine/dip_buyer_strategy.py").read_text().splitlines()
    assert len([line for line in source if line.strip()]) <= 20


def test_a_new_strategy_overwrites_nothing(trading: Trading) -> None:
    assert trading("new-strategy", "mine").exit_code == 0
    before = Path("strategies/mine_strategy.py").read_text()
    again = trading("new-strategy", "mine")
    assert (again.exit_code, "is there already" in again.stderr) == (2, True)
    assert Path("strategies/mine_strategy.py").read_text() == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("class", "cannot name a strategy"),
        ("My-Breakout", "for example my_breakout"),
        ("1st", "cannot name a strategy"),
        ("a" * 61, "at most 60"),
        ("rsi", "comes with the platform"),
        ("dip_strategy", "leave out the ending"),
        ("../evil", "for example evil"),
    ],
)
def test_a_name_that_no_strategy_can_bear_is_refused(trading: Trading, name: str, said: str) -> None:
    result = trading("new-strategy", name)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    assert not Path("strategies").exists()


def test_backtest_and_state_mean_the_same_database_file() -> None:
    assert DATABASE_FILE == BACKTEST_DATABASE_FILE

"""The trial ledger: one row a run, counted by data, safe when runs end together."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest

from backtester.trials import TRIALS_FILE, Recorded, Trial, read_trials, record_trials
from shared.errors import ConfigError
from shared.testing.builders import START

pytestmark = pytest.mark.thorough

ONE = Trial(
    recorded_at=START,
    strategy="rsi",
    code_hash="c0de",
    config_hash="c0ff",
    params='{"period": 14}',
    data_sha256="da7a",
    symbol="BTC/USDT",
    timeframe="1m",
    first=START,
    last=START + timedelta(days=1),
    candles=1_440,
    engine="event",
    costs="next-open 0.001",
    trades=12,
    initial_balance=10_000.0,
    final_balance=9_990.0,
    sharpe_daily=None,
)


def test_trials_are_counted_by_the_data_they_looked_at(tmp_path: Path) -> None:
    other = msgspec.structs.replace(ONE, data_sha256="beef")
    assert [record_trials(tmp_path, [trial]).number for trial in (ONE, ONE, other, ONE)] == [1, 2, 1, 3]


def test_a_row_says_all_that_is_needed_to_judge_a_result(tmp_path: Path) -> None:
    record_trials(tmp_path / "new" / "state", [msgspec.structs.replace(ONE, sharpe_daily=0.1)])
    (row,) = pl.read_parquet(tmp_path / "new" / "state" / TRIALS_FILE).to_dicts()
    assert row == msgspec.structs.asdict(ONE) | {"sharpe_daily": 0.1}


def test_runs_that_end_together_lose_nothing(tmp_path: Path) -> None:
    numbers: list[int] = []
    threads = [threading.Thread(target=lambda: numbers.append(record_trials(tmp_path, [ONE]).number)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 9))
    assert read_trials(tmp_path).height == 8


def test_only_the_newest_rows_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtester.trials.TRIALS_MAX", 2)
    for number in range(4):
        record_trials(tmp_path, [msgspec.structs.replace(ONE, trades=number)])
    assert read_trials(tmp_path)["trades"].to_list() == [2, 3]


@pytest.mark.parametrize("content", [b"PAR1 cut off", b"", b"PAR1" + bytes(40) + b"PAR1"])
def test_a_file_that_is_no_ledger_is_moved_aside_and_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / TRIALS_FILE).write_bytes(content)
    number, notice = record_trials(tmp_path, [ONE])
    (aside,) = tmp_path.glob("trials.unreadable-*.parquet")
    assert number == 1
    assert aside.name in notice
    assert aside.read_bytes() == content
    assert read_trials(tmp_path).height == 1


def test_a_table_of_something_else_is_moved_aside_too(tmp_path: Path) -> None:
    for _ in range(2):
        pl.DataFrame({"open_time": [1]}).write_parquet(tmp_path / TRIALS_FILE)
        assert "no column data_sha256" in record_trials(tmp_path, [ONE]).notice
    assert len(list(tmp_path.glob("trials.unreadable-*"))) == 2


def test_a_ledger_of_an_older_build_goes_on(tmp_path: Path) -> None:
    record_trials(tmp_path, [ONE])
    read_trials(tmp_path).drop("engine").write_parquet(tmp_path / TRIALS_FILE)
    assert record_trials(tmp_path, [ONE]) == Recorded(2)
    assert read_trials(tmp_path)["engine"].to_list() == [None, "event"]


def test_many_rows_are_one_visit(tmp_path: Path) -> None:
    assert record_trials(tmp_path, [ONE] * 400).number == 400
    assert record_trials(tmp_path, [ONE]).number == 401


def test_processes_that_end_together_lose_nothing(tmp_path: Path) -> None:
    lines = (
        "import pathlib, pickle, sys",
        "from backtester.trials import record_trials",
        "trial = pickle.loads(sys.stdin.buffer.read())",
        "for _ in range(20): record_trials(pathlib.Path(sys.argv[1]), [trial])",
    )
    command = [sys.executable, "-c", "\n".join(lines), str(tmp_path)]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(2)]
    for process in running:
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(ONE))
        process.stdin.close()
    assert [process.wait() for process in running] == [0, 0]
    assert read_trials(tmp_path).height == 40


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be recorded"):
        record_trials(tmp_path / "file", [ONE])

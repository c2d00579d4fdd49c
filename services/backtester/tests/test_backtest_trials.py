"""The trial ledger: one row a run, counted by data, safe when runs end together."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest

from backtester.trials import TRIALS_FILE, Trial, read_trials, record_trial
from shared.errors import ConfigError
from shared.testing.builders import START

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
    assert [record_trial(tmp_path, trial) for trial in (ONE, ONE, other, ONE)] == [1, 2, 1, 3]


def test_a_row_says_all_that_is_needed_to_judge_a_result(tmp_path: Path) -> None:
    record_trial(tmp_path / "new" / "state", msgspec.structs.replace(ONE, sharpe_daily=0.1))
    (row,) = pl.read_parquet(tmp_path / "new" / "state" / TRIALS_FILE).to_dicts()
    assert row == msgspec.structs.asdict(ONE) | {"sharpe_daily": 0.1}


def test_runs_that_end_together_lose_nothing(tmp_path: Path) -> None:
    numbers: list[int] = []
    threads = [threading.Thread(target=lambda: numbers.append(record_trial(tmp_path, ONE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 9))
    assert read_trials(tmp_path).height == 8


def test_only_the_newest_rows_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtester.trials.TRIALS_MAX", 2)
    for number in range(4):
        record_trial(tmp_path, msgspec.structs.replace(ONE, trades=number))
    assert read_trials(tmp_path)["trades"].to_list() == [2, 3]


def test_a_file_that_is_no_ledger_is_left_alone_and_named(tmp_path: Path) -> None:
    (tmp_path / TRIALS_FILE).write_bytes(b"PAR1 cut off")
    with pytest.raises(ConfigError, match="is no trial ledger"):
        record_trial(tmp_path, ONE)
    assert (tmp_path / TRIALS_FILE).read_bytes() == b"PAR1 cut off"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be recorded"):
        record_trial(tmp_path / "file", ONE)

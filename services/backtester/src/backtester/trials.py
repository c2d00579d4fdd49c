"""The trial ledger: one row a run, so that nobody forgets how often the same data was looked at."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shared.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

TRIALS_FILE = "trials.parquet"
LOCK_FILE = "trials.lock"
TRIALS_MAX = 200_000


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One run: what ran, on which data, at which costs, and what came of it; `sharpe_daily` is not annual."""

    recorded_at: datetime
    strategy: str
    code_hash: str
    config_hash: str
    params: str
    data_sha256: str
    symbol: str
    timeframe: str
    first: datetime
    last: datetime
    candles: int
    engine: str
    costs: str
    trades: int
    initial_balance: float
    final_balance: float
    sharpe_daily: float | None


def record_trial(state: Path, trial: Trial) -> int:
    """Append one row to the ledger in `state`; return which trial on this data it is, counted from 1.

    Runs that end at the same instant wait for one another; the file is replaced in one step, so a reader never meets
    half of it. The newest `TRIALS_MAX` rows are kept.
    """
    import polars as pl

    path = state / TRIALS_FILE
    try:
        state.mkdir(parents=True, exist_ok=True)
        with _only_writer(state / LOCK_FILE):
            row = pl.DataFrame([msgspec.structs.asdict(trial)], schema=_schema())
            table = pl.concat([read_trials(state), row]).tail(TRIALS_MAX)
            fresh = path.with_suffix(".new")
            with fresh.open("wb") as file:
                table.write_parquet(file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: the trial cannot be recorded ({error.strerror or error}); give another --state or --no-trials"
        ) from error
    same = (pl.col("data_sha256") == trial.data_sha256) & (pl.col("symbol") == trial.symbol)
    return table.filter(same).height


def read_trials(state: Path) -> pl.DataFrame:
    """Return every recorded trial, oldest first; no rows before the first one."""
    import polars as pl

    path = state / TRIALS_FILE
    if not path.is_file():
        return pl.DataFrame(schema=_schema())
    try:
        return pl.read_parquet(path).select(list(_schema())).cast(_schema())  # type: ignore[arg-type]
    except (pl.exceptions.PolarsError, OSError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"{path}: is no trial ledger ({said}); move it away, a new one is begun") from error


def _schema() -> dict[str, pl.DataType]:
    import polars as pl

    moments = ("recorded_at", "first", "last")
    numbers: dict[str, pl.DataType] = {"candles": pl.Int64(), "trades": pl.Int64()}
    numbers |= {name: pl.Float64() for name in ("initial_balance", "final_balance", "sharpe_daily")}
    return {
        name: pl.Datetime("us", "UTC") if name in moments else numbers.get(name, pl.String())
        for name in Trial.__struct_fields__
    }


@contextmanager
def _only_writer(lock_path: Path) -> Iterator[None]:
    with lock_path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file closes, also by a death
        yield

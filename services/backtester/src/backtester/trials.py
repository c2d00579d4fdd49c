"""The trial ledger: one row a run, so that nobody forgets how often the same data was looked at."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from shared.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

TRIALS_FILE = "trials.parquet"
LOCK_FILE = "trials.lock"
TRIALS_MAX = 200_000
_MOVE = "move it away, a new one is begun"


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


class Recorded(NamedTuple):
    """Which look at its data the last recorded trial was, counted from 1; `notice` says what a person should know."""

    number: int
    notice: str = ""


def record_trials(state: Path, trials: Sequence[Trial], *, once_since: datetime | None = None) -> Recorded:
    """Append rows to the ledger in `state`, all or none; at least one.

    Runs that end at the same instant wait for one another; the file is replaced in one step, so a reader never meets
    half of it. A file that is no ledger is moved aside, nothing of it is lost. The newest `TRIALS_MAX` rows are kept.
    Of a row that was recorded at `once_since` or later, in all but its time, there is no second one.
    """
    import polars as pl

    path, last = state / TRIALS_FILE, trials[-1]
    try:
        state.mkdir(parents=True, exist_ok=True)
        with _only_writer(state / LOCK_FILE):
            kept, notice = _kept(path, last.recorded_at)
            rows = pl.DataFrame([msgspec.structs.asdict(trial) for trial in trials], schema=_schema())
            if once_since is not None:
                recent = kept.filter(pl.col("recorded_at") >= once_since)
                rows = rows.join(
                    recent, on=[name for name in _schema() if name != "recorded_at"], how="anti", nulls_equal=True
                )
            table = pl.concat([kept, rows]).tail(TRIALS_MAX)
            _replace(path, table)
    except OSError as error:
        raise ConfigError(
            f"{path}: the trial cannot be recorded ({error.strerror or error}); give another --state or --no-trials"
        ) from error
    same = (pl.col("data_sha256") == last.data_sha256) & (pl.col("symbol") == last.symbol)
    return Recorded(table.filter(same).height, notice)


def read_trials(state: Path) -> pl.DataFrame:
    """Return every recorded trial, oldest first; no rows before the first one. A file that is none is a ConfigError."""
    import polars as pl

    path = state / TRIALS_FILE
    if not path.is_file():
        return pl.DataFrame(schema=_schema())
    try:
        found = pl.read_parquet(path)
        if not found.columns or "data_sha256" not in found.columns:
            raise ConfigError(f"{path}: is no trial ledger (no column data_sha256); {_MOVE}")
        columns = [pl.col(name) if name in found.columns else pl.lit(None).alias(name) for name in _schema()]
        return found.select(columns).cast(_schema())  # type: ignore[arg-type]
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"{path}: is no trial ledger ({said}); {_MOVE}") from error


def _kept(path: Path, now: datetime) -> tuple[pl.DataFrame, str]:
    """Return the rows so far; a file that cannot be read makes room for a new ledger, under a name that says when."""
    try:
        return read_trials(path.parent), ""
    except ConfigError as error:
        aside = path.with_name(f"{path.stem}.unreadable-{now:%Y%m%dT%H%M%S}{path.suffix}")
        while aside.exists():
            aside = aside.with_name(f"{aside.stem}-again{aside.suffix}")
        path.rename(aside)
        return read_trials(path.parent), f"{error.args[0].split(';')[0]}; moved to {aside.name}, counting begins anew"


def _replace(path: Path, table: pl.DataFrame) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        table.write_parquet(file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


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

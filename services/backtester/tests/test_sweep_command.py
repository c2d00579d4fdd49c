from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from backtester.sweep.command import sweep
from backtester.sweep.store import SweepStore, schema
from shared.errors import TradingError

pytestmark = pytest.mark.thorough
COMMAND = [sys.executable, "-c", "from trading_cli.main import main; main()", "sweep"]
WAIT_SECONDS_MAX = 300


@pytest.fixture(scope="module")
def candles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(2)
    rows = 24 * 60
    close = (50_000 * np.exp(np.cumsum(random.normal(0, 0.005, rows)))).round(2)
    opened = np.concatenate(([50_000.0], close[:-1]))
    times = pl.Series("open_time", 1_704_067_200_000 + np.arange(rows) * 3_600_000).cast(pl.Datetime("ms", "UTC"))
    columns = {"open": opened, "high": np.maximum(opened, close), "low": np.minimum(opened, close), "close": close}
    path = tmp_path_factory.mktemp("candles") / "hours.parquet"
    pl.DataFrame({"open_time": times, **columns, "volume": np.ones(rows)}).write_parquet(path)
    return path


def words(candles: Path, folder: Path, *more: str, grid: tuple[str, ...] = ()) -> list[str]:
    grids = grid or ("short_period=3:12:3", "long_period=10,20,40")
    given = ["--strategy", "ema_crossover", "--data", str(candles), "--symbol", "BTC/USDT", "--timeframe", "1h"]
    given += [word for text in grids for word in ("--grid", text)]
    return [*given, "--state", str(folder), "--out", str(folder / "out.parquet"), *more]


def run(candles: Path, folder: Path, *more: str, grid: tuple[str, ...] = ()) -> Result:
    return CliRunner().invoke(sweep, words(candles, folder, *more, grid=grid))


def refusal(result: Result) -> str:
    """Return the words of a refusal that ends the command with exit code 2."""
    if isinstance(result.exception, TradingError):
        assert result.exception.exit_code == 2
        return str(result.exception)
    assert result.exit_code == 2
    return result.output


def test_the_best_set_stands_beside_the_best_of_noise(candles: Path, tmp_path: Path) -> None:
    result = run(candles, tmp_path, "--null", "3")
    assert result.exit_code == 0, result.output
    head = next(line for line in result.output.splitlines() if line.startswith("best Sharpe"))
    assert "best of noise" in head
    assert "(3 shuffles)" in head
    assert "1 combination is not valid: 1 short_period must be below long_period" in result.output
    assert "long_period (across, 10 to 40)" in result.output


def test_no_best_figure_is_printed_or_written_without_noise(candles: Path, tmp_path: Path) -> None:
    result = run(candles, tmp_path, "--null", "0", "--json", str(tmp_path / "out.json"))
    assert "noise was not measured" in result.output
    assert "BEST" not in result.output
    assert "Sharpe" not in result.output
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["best"], report["noise"], report["top"]) == (None, None, [])
    head = json.loads(pl.read_parquet_metadata(tmp_path / "out.parquet")["sweep"])
    assert head["best"] is None


def test_a_set_that_never_trades_is_no_find(candles: Path, tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    lost = run(candles, tmp_path, "--fee", "0.05", "--null", "2", "--json", str(report), grid=("quantity=0.01,1e6",))
    assert "best Sharpe 0.00" in lost.output
    assert "the best set never trades, so nothing was found" in json.loads(report.read_text())["verdict"]
    idle = run(candles, tmp_path, "--null", "2", "--json", str(report), grid=("quantity=1e6,2e6",))
    assert "no set made a trade (" in idle.output
    assert "BEST" not in idle.output
    assert json.loads(report.read_text())["best"] is None


def test_json_and_parquet_tell_the_same_sets_with_the_noise_beside_the_best(candles: Path, tmp_path: Path) -> None:
    result = run(candles, tmp_path, "--null", "2", "--metric", "total_return", "--json", "-")
    report = json.loads(result.stdout)
    table = pl.read_parquet(tmp_path / "out.parquet")
    assert (len(table), report["trials"], report["skipped"]) == (
        11,
        11,
        {"short_period must be below long_period": 1},
    )
    best = table.sort("total_return", descending=True).row(0, named=True)
    assert report["best"]["value"] == best["total_return"]
    assert report["best"]["params"] == {"short_period": best["short_period"], "long_period": best["long_period"]}
    assert report["noise"]["low"] <= report["noise"]["high"]
    assert "sharpe" in report["top"][0]
    assert "psr" not in result.stdout


def test_slippage_by_size_is_named_with_the_largest_fill_and_noted_in_the_ledger(candles: Path, tmp_path: Path) -> None:
    result = run(candles, tmp_path, "--null", "1", "--half-spread-bps", "1", "--impact-bps", "20")
    assert "slippage 1 bps + 20 bps x sqrt(size / median volume)" in result.output
    assert "largest fill of any set: 1 % of a candle's usual volume" in result.output  # 0.01 of candles that trade 1
    assert pl.read_parquet(tmp_path / "out.parquet")["participation_max"].to_list() == pytest.approx([0.01] * 11)
    costs = pl.read_parquet(tmp_path / "trials.parquet")["costs"]
    assert set(costs) == {"next-open 0.001 quote 1 bps + 20 bps x sqrt(size / median volume) refuse fixed"}


def test_every_set_is_a_trial_in_the_ledger(candles: Path, tmp_path: Path) -> None:
    result = run(candles, tmp_path, "--null", "1")
    assert "11 trials on this data so far" in result.output
    assert len(pl.read_parquet(tmp_path / "trials.parquet")) == 11
    assert "22 trials on this data so far" in run(candles, tmp_path, "--null", "1").output


BAD_INPUT: list[tuple[tuple[str, ...], tuple[str, ...], str]] = [
    (("shrt_period=3:9",), (), "did you mean 'short_period'?"),
    (("short_period=9:3:1",), (), "the range is reversed"),
    (("short_period=3:9:0",), (), "the step must be above 0"),
    (("short_period=3:9:x",), (), "'x' is not a number"),
    (("short_period=3:nan",), (), "is not a finite number"),
    (("short_period=1:2:3:4",), (), "was 4 parts"),
    (("short_period=",), (), "is not name=first:last:step"),
    (("short_period=3,,4",), (), "a value is empty"),
    (("short_period=3,3",), (), "stands there twice"),
    (("short_period=3,4", "short_period=5"), (), "given twice"),
    (("short_period=3,4",), ("--param", "short_period=3"), "either fixed or swept"),
    (("short_period=1:1000", "long_period=1:1000"), (), "1,000,000 combinations, at most 100,000 (trials_max)"),
    (("short_period=1:20", "long_period=30:50"), ("--trials-max", "10"), "420 combinations, at most 10"),
    (("short_period=30,40", "long_period=10,20"), (), "none of 4 combinations is valid"),
    (("short_period=a,b",), (), "none of 2 combinations is valid"),
    (("short_period=3,4",), ("--strategy", "ema_crosover"), "did you mean 'ema_crossover'?"),
    (("short_period=3,4",), ("--param", "long=30"), "did you mean 'long_period'?"),
    (("short_period=3,4",), ("--param", "enabled=false"), "enabled: is no parameter of a run"),
    (("enabled=true,false",), (), "ema_crossover has no such parameter"),
    (("short_period=3,4",), ("--symbol", "BTC/USDT:1m"), "write it like BTC/USDT, the timeframe apart"),
    (("short_period=3,4",), ("--initial-balance", "0"), "initial balance: must be > 0"),
    (("short_period=3,4",), ("--slippage-bps", "1", "--impact-bps", "5"), "two models of the same cost"),
    (("short_period=3,4",), ("--initial-balance", "1e-19"), "initial balance: must be in"),
    (("short_period=1:1e9999999",), (), "a number is out of range"),
    (("quantity=1,1e9999999",), (), "a number is out of range"),
    (("short_period=1:2:1e-9999999",), (), "a number is out of range"),
    (("short_period=3,4",), ("--strategy", "RSI"), "did you mean 'rsi'?"),
    (("short_period=3,4",), ("--out", ""), "--out: names no file"),
    (("short_period=3,4",), ("--json", ""), "--json: names no file"),
    (("short_period=3,4",), ("--html", ""), "--html: names no file"),
    (("short_period=3,4",), ("--data", "absent.parquet"), "absent.parquet"),
    (("short_period=3,4",), ("--threads", "0"), "--threads"),
    (("short_period=3,4",), ("--null", "-1"), "--null"),
    (("short_period=3,4",), ("--out", "absent/out.parquet"), "make it first"),
    (("short_period=3,4",), ("--html", "absent/out.html"), "make it first"),
    (("short_period=3,4",), ("--html", "-.html", "--json", "-.html"), "two go to the same place"),
]


@pytest.mark.parametrize(("grid", "more", "said"), BAD_INPUT, ids=lambda value: str(value)[:40])
def test_bad_input_is_refused_with_its_place(
    grid: tuple[str, ...], more: tuple[str, ...], said: str, candles: Path, tmp_path: Path
) -> None:
    assert said in refusal(run(candles, tmp_path, *more, grid=grid))
    assert not (tmp_path / "out.parquet").exists()


def test_a_result_never_takes_the_place_of_the_candles(candles: Path, tmp_path: Path) -> None:
    before = candles.read_bytes()
    for option in ("--out", "--json", "--html"):
        assert f"{option} {candles}: would take the place of" in refusal(run(candles, tmp_path, option, str(candles)))
    assert candles.read_bytes() == before


def test_what_is_no_file_is_never_replaced_by_a_result(candles: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is no file that a result could take the place of" in refusal(
        run(candles, tmp_path, "--out", str(tmp_path / "pipe"), grid=("short_period=3",))
    )
    assert (tmp_path / "pipe").is_fifo()


def test_only_what_holds_no_finished_trial_is_let_go_of(tmp_path: Path) -> None:
    store = SweepStore(tmp_path / "out.parquet")
    store.begin({}, resume=False)
    store.forsake()
    assert not store.folder.exists()
    store.begin({}, resume=False)
    store.add(pl.DataFrame({name: [0] for name in schema()}))
    store.forsake()
    assert len(store.begin({}, resume=True)) == 1


def test_a_sweep_that_fails_before_its_first_trial_leaves_nothing_to_resume(candles: Path, tmp_path: Path) -> None:
    assert "take a smaller quantity" in refusal(run(candles, tmp_path, grid=("quantity=1e17,2e17",)))
    assert not (tmp_path / "out.parquet.parts").exists()


def test_a_sweep_without_a_grid_is_refused(candles: Path, tmp_path: Path) -> None:
    given = words(candles, tmp_path, grid=("short_period=3",))
    place = given.index("--grid")
    assert "there is none" in refusal(CliRunner().invoke(sweep, given[:place] + given[place + 2 :]))


def test_a_strategy_without_a_step_is_refused(candles: Path, tmp_path: Path) -> None:
    (tmp_path / "quiet_strategy.py").write_text(
        "from shared.strategy import BaseStrategy\n\n\nclass QuietStrategy(BaseStrategy):\n"
        "    warmup_period = 1\n\n    def on_candle(self, candle):\n        return None\n"
    )
    result = run(candles, tmp_path, "--strategies-dir", str(tmp_path), "--strategy", "quiet", grid=("quantity=1,2",))
    assert "quiet has no step" in refusal(result)


def interrupted(candles: Path, folder: Path, how: signal.Signals) -> tuple[int, str, pl.DataFrame]:
    """Start a long sweep, end it once parts are written; return exit code, last words and what it had finished."""
    command = [*COMMAND, *words(candles, folder, "--null", "120", "--threads", "2")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    parts = folder / "out.parquet.parts"
    give_up = time.perf_counter() + WAIT_SECONDS_MAX
    while len(list(parts.glob("part-*.parquet"))) < 3 and process.poll() is None and time.perf_counter() < give_up:
        os.sched_yield()
    process.send_signal(how)
    _, said = process.communicate(timeout=WAIT_SECONDS_MAX)
    kept = pl.concat([pl.read_parquet(path) for path in parts.glob("part-*.parquet")])
    return process.returncode, said, kept


@pytest.fixture(scope="module")
def undisturbed(candles: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the long sweep says when nobody interrupts it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    report: dict[str, Any] = json.loads(run(candles, folder, "--null", "120", "--json", "-").stdout)
    return report


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_sweep_goes_on_without_losing_a_finished_trial(
    how: signal.Signals, candles: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    code, said, kept = interrupted(candles, tmp_path, how)
    assert code == (130 if how is signal.SIGINT else -signal.SIGKILL)
    assert how is signal.SIGKILL or "--resume goes on" in said
    assert len(kept) >= 22

    assert "--resume" in refusal(run(candles, tmp_path, "--null", "120"))
    assert "slippage_bps was '2' and is '3'" in refusal(
        run(candles, tmp_path, "--null", "120", "--slippage-bps", "3", "--resume")
    )
    assert "null was 120 and is 4" in refusal(run(candles, tmp_path, "--null", "4", "--resume"))

    result = run(candles, tmp_path, "--null", "120", "--resume", "--json", "-")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["resumed"] == len(kept)
    assert not (tmp_path / "out.parquet.parts").exists()
    assert len(pl.read_parquet(tmp_path / "trials.parquet")) == 11
    assert [report[name] for name in ("best", "noise", "top")] == [
        undisturbed[name] for name in ("best", "noise", "top")
    ]


def test_a_kill_between_the_ledger_and_the_parts_counts_no_trial_twice(candles: Path, tmp_path: Path) -> None:
    _, _, kept = interrupted(candles, tmp_path, signal.SIGKILL)
    for part in (tmp_path / "out.parquet.parts").glob("part-*.parquet"):
        part.unlink()  # as if it had died with the ledger written and nothing else
    assert len(pl.read_parquet(tmp_path / "trials.parquet")) == 11 <= len(kept)
    result = run(candles, tmp_path, "--null", "120", "--resume")
    assert result.exit_code == 0, result.output
    assert "11 trials on this data so far" in result.output
    assert len(pl.read_parquet(tmp_path / "trials.parquet")) == 11

from __future__ import annotations

import math
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtester.compiled.engine import CompiledEngine
from backtester.data import load_candles
from backtester.engine import BacktestEngine
from backtester.history import history_start
from backtester.options import BacktestOptions
from backtester.result import BacktestResult
from backtester.sweep.request import SweepRequest
from backtester.sweep.run import Swept, run_sweep
from shared.clock import SystemClock
from shared.models import from_milliseconds
from shared.plugins import discover
from shared.testing.reference import reference_path

pytestmark = pytest.mark.thorough
DAYS = 70
MINUTES = 60


def random_walk(path: Path, rows: int, seed: int, *, holes: bool = False) -> Path:
    random = np.random.default_rng(seed)
    points = 50_000 * np.exp(np.cumsum(random.normal(0, 0.003, rows * 4))).reshape(rows, 4)
    close = points[:, 3].round(2)
    opened = np.concatenate(([50_000.0], close[:-1]))
    high = np.maximum(points.max(axis=1).round(2), np.maximum(opened, close))
    low = np.minimum(points.min(axis=1).round(2), np.minimum(opened, close))
    places = np.arange(rows, dtype=np.int64)
    if holes:
        places = places + np.cumsum(random.random(rows) < 0.02) * 3
    columns = {"open": opened, "high": high, "low": low, "close": close, "volume": random.lognormal(1, 1, rows)}
    times = pl.Series("open_time", 1_704_067_200_000 + places * MINUTES * 60_000).cast(pl.Datetime("ms", "UTC"))
    pl.DataFrame({"open_time": times, **columns}).write_parquet(path)
    return path


def swept(path: Path, out: Path, timeframe: str = "1h", **changes: Any) -> Swept:
    request: dict[str, Any] = {
        "strategy": "ema_crossover",
        "data": str(path),
        "symbol": "BTC/USDT",
        "timeframe": timeframe,
        "grid": {"short_period": (3, 9, 14), "long_period": (10, 21, 50)},
        "out": out / "sweep.parquet",
        "null": 0,
    }
    return run_sweep(SweepRequest(**request | changes), SystemClock())


def single(done: Swept, trial: int) -> BacktestResult:
    """Run one set of a sweep as `trading backtest` does."""
    strategy = discover().get(done.request.strategy).create(done.request.symbol, done.sets.given[trial])
    engine = CompiledEngine(strategy, done.request.initial_balance, done.request.options)  # type: ignore[arg-type]
    return engine.run(done.data, history_start(strategy, done.data))


def assert_every_figure_is_the_single_run_s(done: Swept, trials: int | None = None) -> None:
    rows = done.table.filter(pl.col("market") == 0).to_dicts()
    assert len(rows) == len(done.sets.given)
    for row in rows[:trials]:
        result = single(done, row["trial"])
        found, balance = result.detailed, float(done.request.initial_balance)
        assert found is not None
        assert (row["trades"], row["signals"]) == (result.total_trades, result.signals)
        assert (row["refused"], row["ignored"]) == (sum(result.refused.values()), sum(result.ignored.values()))
        assert row["final_balance"] == pytest.approx(float(result.final_balance), abs=1e-9 * balance)
        assert row["fees_paid"] == pytest.approx(float(result.fees_paid), abs=1e-9 * balance)
        assert row["total_return"] == pytest.approx(found.total_return, abs=1e-7)
        if done.request.options.impact is not None:
            assert row["participation_max"] == pytest.approx(result.participation_max, rel=1e-9)
        for name in ("sharpe", "sortino", "calmar"):
            assert_same_ratio(row[name], getattr(found, f"{name}_ratio"))
        assert_same_ratio(row["cagr"], found.cagr)


def assert_same_ratio(figure: float, ratio: float | None) -> None:
    if ratio is None:
        assert math.isnan(figure)
    else:
        assert figure == pytest.approx(ratio, rel=1e-6, abs=1e-9)


OPTIONS = [
    BacktestOptions(),
    BacktestOptions(slippage_bps=Decimal(0), gap="fill", max_entries=0),
    BacktestOptions(stop_loss_pct=Decimal("1.5"), take_profit_pct=Decimal(3), fee=Decimal("0.002")),
    BacktestOptions(trailing_pct=Decimal(1), sizing="equity_fraction:0.5", close_at_end=True),  # type: ignore[arg-type]
    BacktestOptions(fill="close", fee_asset="received", sizing="quote:500", close_at_end=True),  # type: ignore[arg-type]
    BacktestOptions(partial_cash=True, sizing="quote:9990", slippage_bps=Decimal(30)),  # type: ignore[arg-type]
    BacktestOptions(take_profit_pct=Decimal(2), fee_maker=Decimal("0.0002")),
    BacktestOptions(stop_loss_pct=Decimal(2), sizing="risk:1", fee_asset="bnb"),  # type: ignore[arg-type]
]
BY_SIZE: dict[str, Any] = {"slippage_bps": Decimal(0), "half_spread_bps": Decimal(1), "impact_bps": Decimal(25)}
CROSSINGS = {"short_period": (1, 3), "long_period": (4, 30)}
BANDS = {"period": (2, 5, 30), "num_std": (0.5,), "min_bandwidth": (0.0,)}  # is fed as many candles as its period


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: f"{options.sizing} {options.fill}")
def test_every_set_comes_to_what_its_own_backtest_comes_to(options: BacktestOptions, tmp_path: Path) -> None:
    path = random_walk(tmp_path / "walk.parquet", 24 * DAYS, seed=7, holes=True)
    assert_every_figure_is_the_single_run_s(swept(path, tmp_path, options=options))


@pytest.mark.parametrize(
    ("strategy", "grid"),
    [
        ("grid", {"lower_price": (40_000, 45_000), "upper_price": (60_000,), "grid_count": (5, 40)}),
        ("bollinger", {"period": (20, 80), "num_std": (1.5, 2.0), "min_bandwidth": (0.0,)}),
    ],
)
def test_so_it_is_for_strategies_of_other_state(strategy: str, grid: dict[str, Any], tmp_path: Path) -> None:
    path = random_walk(tmp_path / "walk.parquet", 24 * DAYS, seed=11)
    assert_every_figure_is_the_single_run_s(swept(path, tmp_path, strategy=strategy, grid=grid))


def test_so_it_is_with_history_before_the_start(tmp_path: Path) -> None:
    path = random_walk(tmp_path / "walk.parquet", 24 * DAYS, seed=3)
    data = load_candles(path, "BTC/USDT", "1h")
    done = swept(path, tmp_path, start=data.first.replace(day=20), options=OPTIONS[2])
    assert done.data.history is not None
    assert_every_figure_is_the_single_run_s(done)


@given(
    seed=st.integers(0, 10**6),
    stop=st.sampled_from(["0", "0.7", "5"]),
    target=st.sampled_from(["0", "1.1"]),
    trailing=st.sampled_from(["0", "2.5"]),
    sizing=st.sampled_from(["fixed", "equity_fraction:0.99", "quote:9000"]),
    entries=st.sampled_from([None, 0, 3]),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_so_it_is_for_any_options(
    seed: int, stop: str, target: str, trailing: str, sizing: str, entries: int | None, tmp_path: Path
) -> None:
    options = BacktestOptions(
        stop_loss_pct=Decimal(stop),
        take_profit_pct=Decimal(target),
        trailing_pct=Decimal(trailing),
        sizing=sizing,  # type: ignore[arg-type]
        max_entries=entries,
    )
    path = random_walk(tmp_path / f"walk{seed}.parquet", 24 * 40, seed=seed, holes=True)
    out = tmp_path / f"{seed}{stop}{target}{trailing}{sizing}{entries}"
    out.mkdir(exist_ok=True)
    assert_every_figure_is_the_single_run_s(swept(path, out, options=options), trials=3)


@given(
    seed=st.integers(0, 10**6),
    grid=st.sampled_from([CROSSINGS, BANDS]),
    rows=st.sampled_from([12, 200]),
    start=st.sampled_from([None, 3, 15, 90]),
    stop=st.sampled_from(["0", "0.7"]),
    target=st.sampled_from(["0", "1.1"]),
    rules=st.fixed_dictionaries(
        {
            "fee_asset": st.sampled_from(["quote", "received", "bnb"]),
            "fill": st.sampled_from(["next-open", "close"]),
            "sizing": st.sampled_from(["fixed", "equity_fraction:0.9", "quote:9990"]),
            "partial_cash": st.booleans(),
            "close_at_end": st.booleans(),
        }
    ),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_so_it_is_with_slippage_by_size_whatever_history_and_window_hold(
    seed: int,
    grid: dict[str, Any],
    rows: int,
    start: int | None,
    stop: str,
    target: str,
    rules: dict[str, Any],
    tmp_path: Path,
) -> None:
    out = Path(tempfile.mkdtemp(dir=tmp_path))
    path = random_walk(out / "walk.parquet", rows + (start or 0), seed=seed, holes=True)
    begin = None if start is None else from_milliseconds(int(load_candles(path, "BTC/USDT", "1h").open_time_ms[start]))
    options = BacktestOptions(**BY_SIZE | rules, stop_loss_pct=Decimal(stop), take_profit_pct=Decimal(target))
    strategy = "ema_crossover" if grid is CROSSINGS else "bollinger"
    done = swept(path, out, options=options, start=begin, strategy=strategy, grid=grid, params={"quantity": "0.7"})
    assert_every_figure_is_the_single_run_s(done)


def test_with_slippage_by_size_a_set_is_also_what_the_event_engine_makes_of_it(tmp_path: Path) -> None:
    path = random_walk(tmp_path / "walk.parquet", 24 * 40, seed=9, holes=True)
    start = load_candles(path, "BTC/USDT", "1h").first.replace(day=10)
    options = BacktestOptions(**BY_SIZE, stop_loss_pct=Decimal(1), close_at_end=True)
    done = swept(path, tmp_path, options=options, start=start, params={"quantity": "2"}, initial_balance=Decimal(10**6))
    for row in done.table.filter(pl.col("market") == 0).to_dicts():
        strategy = discover().get("ema_crossover").create("BTC/USDT", done.sets.given[row["trial"]])
        assert done.data.history is not None
        past = list(done.data.history.candles(history_start(strategy, done.data) or 0))
        result = BacktestEngine(strategy, Decimal(10**6), options).run(list(done.data.candles()), past)
        assert (row["trades"], row["signals"]) == (result.total_trades, result.signals)
        assert row["final_balance"] == pytest.approx(float(result.final_balance), abs=1e-3)
        assert row["participation_max"] == pytest.approx(result.participation_max, rel=1e-9)


def test_so_it_is_on_recorded_candles(tmp_path: Path) -> None:
    path = reference_path("data/candles/binance-BTCUSDT-1h.parquet")
    done = swept(path, tmp_path, options=OPTIONS[2])
    assert_every_figure_is_the_single_run_s(done)


@pytest.mark.parametrize("options", [OPTIONS[3], BacktestOptions(**BY_SIZE)], ids=["guarded", "by size"])
def test_more_signals_than_one_window_holds_change_nothing(
    options: BacktestOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = random_walk(tmp_path / "walk.parquet", 6000, seed=5)
    whole = swept(path, tmp_path, options=options)
    monkeypatch.setattr("backtester.sweep.batch.SIGNALS_MAX", 1100)
    (tmp_path / "windows").mkdir()
    parts = swept(path, tmp_path / "windows", options=options)
    assert parts.table.drop("fees_paid").equals(whole.table.drop("fees_paid"))

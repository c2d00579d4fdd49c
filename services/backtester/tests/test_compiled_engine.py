"""The compiled engine gives what the event engine gives: every trade, to the last of 18 decimals."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtester.compiled.engine import CompiledEngine, StepsOverflowError
from backtester.compiled.run import CHUNK_ROWS
from backtester.engine import BacktestEngine
from backtester.options import BacktestOptions
from backtester.result import BacktestResult
from shared.candle_files import CandleFile, read_candle_file
from shared.domain.rounding import Instrument
from shared.models import TIMEFRAME_SECONDS
from shared.plugins import discover
from shared.testing.reference import reference_path

pytestmark = pytest.mark.thorough

EXACT_FIELDS = (
    *("trades", "total_trades", "final_balance", "fees_paid", "slippage_paid", "signals", "refused", "ignored"),
    *(
        "open_positions",
        "notes",
        "exits_contested",
        "entries_cut",
        "slippage_bps",
        "max_entries",
        "fee_asset",
        "sizing",
        "params",
    ),
)
SMALL: dict[str, dict[str, Any]] = {
    "rsi": {"period": 5},
    "grid": {"lower_price": 95.0, "upper_price": 105.0, "grid_count": 8},
    "macd": {"fast_period": 3, "slow_period": 7, "signal_period": 3},
    "bollinger": {"period": 8, "num_std": 1.0, "min_bandwidth": 0.0},
    "ema_crossover": {"short_period": 3, "long_period": 8},
    "vwap": {"deviation_threshold": 0.001, "min_candles": 5},
    "volume_profile": {"lookback_period": 15, "num_bins": 12},
}
SLIPPAGES: list[dict[str, Any]] = [
    {"slippage_bps": 0},
    {"slippage_bps": "37.5"},
    {},
    {"slippage_bps": 0, "half_spread_bps": "1", "impact_bps": "12.5"},
]
PERCENTS = st.sampled_from(["0", "0", "0.3", "2"])


def walk(seed: int, rows: int, *, decimals: int = 2, level: float = 100.0, holes: float = 0.0) -> CandleFile:
    """Return a random walk with `decimals` places and the odd hole."""
    random = np.random.default_rng(seed)
    points = level * np.exp(np.cumsum(random.normal(0, 0.002, 4 * rows))).reshape(rows, 4)
    points = np.maximum(points.round(decimals), 10.0**-decimals)
    opening = np.concatenate([[points[0, 0]], points[:-1, 3]])
    steps = np.where(random.random(rows) < holes, random.integers(2, 20, rows), 1)
    return CandleFile(
        path=Path("walk"),
        symbol="BTC/USDT",
        timeframe="1m",
        sha256="",
        open_time_ms=1_704_067_200_000 + np.cumsum(steps) * TIMEFRAME_SECONDS["1m"] * 1000,
        open=opening,
        high=np.maximum(points.max(axis=1), opening),
        low=np.minimum(points.min(axis=1), opening),
        close=points[:, 3].copy(),
        volume=random.lognormal(1, 1, rows).round(3),
    )


def rows_of(data: CandleFile, start: int, end: int) -> CandleFile:
    """Return some rows of candles."""
    names = ("open_time_ms", "open", "high", "low", "close", "volume")
    return replace(data, history=None, **{name: getattr(data, name)[start:end] for name in names})


def both(
    name: str, data: CandleFile, options: BacktestOptions, balance: str = "10000", **params: Any
) -> tuple[BacktestResult, BacktestResult]:
    """Return the result of the compiled and of the event engine; all history is fed."""
    strategy = discover().get(name).create(data.symbol, {**SMALL[name], **params})
    start = None if data.history is None else 0
    compiled = CompiledEngine(strategy, balance, options).run(data, start)
    end_state = strategy.snapshot()
    history = () if data.history is None else data.history.candles()
    event = BacktestEngine(strategy, balance, options).run(list(data.candles()), history)
    assert not event.faults
    assert strategy.snapshot() == end_state
    return compiled, event


def assert_equal(compiled: BacktestResult, event: BacktestResult) -> None:
    """Compare what is exact exactly, and the equity at each candle within 1e-9 of the initial balance."""
    for name in EXACT_FIELDS:
        assert getattr(compiled, name) == getattr(event, name), name
    assert compiled.detailed is not None
    assert event.detailed is not None
    assert compiled.detailed.trade_pairs == event.detailed.trade_pairs
    assert compiled.equity.time_ms.tolist() == event.equity.time_ms.tolist()  # type: ignore[union-attr]
    distance = np.abs(compiled.equity.value - event.equity.value)  # type: ignore[union-attr]
    assert distance.max() <= 1e-9 * float(event.initial_balance)


@st.composite
def trading(draw: st.DrawFn) -> BacktestOptions:
    sizing = draw(st.sampled_from(["fixed", "quote:333.33", "quote:10000", "equity_fraction:0.9", "risk:1"]))
    instrument = None
    if draw(st.booleans()):
        tick, step, least = (draw(st.sampled_from(row)) for row in (("0", "0.01"), ("0.001", "1"), ("0", "10")))
        instrument = Instrument(
            symbol="BTC/USDT", tick_size=Decimal(tick), step_size=Decimal(step), notional_min=Decimal(least)
        )
    return BacktestOptions(
        fee=Decimal(draw(st.sampled_from(["0", "0.001", "0.00075"]))),
        fee_maker=draw(st.sampled_from([None, Decimal("0.0002")])),
        fee_asset=draw(st.sampled_from(["quote", "received", "bnb"])),
        **draw(st.sampled_from(SLIPPAGES)),
        partial_cash=draw(st.booleans()),
        fill=draw(st.sampled_from(["next-open", "close"])),
        gap=draw(st.sampled_from(["refuse", "fill"])),
        sizing=sizing,
        max_entries=draw(st.sampled_from([None, 0, 1, 3])),
        stop_loss_pct=Decimal("0.5") if sizing.startswith("risk") else Decimal(draw(PERCENTS)),
        take_profit_pct=Decimal(draw(PERCENTS)),
        trailing_pct=Decimal(draw(PERCENTS)),
        stop_cooldown_candles=draw(st.sampled_from([0, 1, 5])),
        close_at_end=draw(st.booleans()),
        instrument=instrument,
    )


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(data=st.data())
def test_both_engines_make_the_same_trades(name: str, data: st.DataObject) -> None:
    draw = data.draw
    candles = walk(
        draw(st.integers(0, 10_000)),
        draw(st.sampled_from([1, 2, 60, 400])),
        decimals=draw(st.sampled_from([0, 2, 5, 15])),
        holes=draw(st.sampled_from([0.0, 0.05])),
    )
    if candles.rows > 100 and draw(st.booleans()):
        candles = replace(rows_of(candles, 40, candles.rows), history=rows_of(candles, 0, 40))
    quantity = draw(st.sampled_from(["0.01", "1", "7.77", "0.000000004", "100"]))
    balance = draw(st.sampled_from(["10000", "0.5", "123456.789"]))
    assert_equal(*both(name, candles, draw(trading()), balance, quantity=quantity))


@pytest.mark.parametrize(
    ("file", "symbol", "timeframe", "name"),
    [
        ("binance-ETHUSDT-1m-2024crash", "ETH/USDT", "1m", "macd"),
        ("binance-DOGEUSDT-5m", "DOGE/USDT", "5m", "bollinger"),
        ("bitfinex-LTCUSD-1m", "LTC/USD", "1m", "rsi"),
    ],
)
def test_both_engines_agree_on_recorded_candles(file: str, symbol: str, timeframe: str, name: str) -> None:
    path = reference_path(f"data/candles/{file}.parquet")
    candles = rows_of(read_candle_file(path, symbol=symbol, timeframe=timeframe), 3_000, 7_000)
    plain = BacktestOptions()
    full = BacktestOptions(sizing="equity_fraction:0.5", stop_loss_pct=1, take_profit_pct=2, trailing_pct="1.5")  # type: ignore[arg-type]
    for options in (plain, full):
        compiled, event = both(name, candles, options)
        assert compiled.total_trades > 20
        assert_equal(compiled, event)


def test_a_balance_that_covers_an_order_to_the_last_unit_buys_it_in_both() -> None:
    candles = walk(3, 300, decimals=1)
    options = BacktestOptions(fee=0, slippage_bps=0, sizing="quote:1000", max_entries=0)  # type: ignore[arg-type]
    compiled, event = both("ema_crossover", candles, options, "1000")
    assert_equal(compiled, event)
    assert compiled.refused.get("insufficient_cash", 0) > 0


def test_a_tiny_price_is_sized_by_risk_to_the_same_step_in_both() -> None:
    candles = walk(3, 600, decimals=17, level=1.78e-6)
    options = BacktestOptions(sizing="risk:1", stop_loss_pct=3)  # type: ignore[arg-type]
    compiled, event = both("ema_crossover", candles, options, "0.5")
    assert compiled.total_trades > 20
    assert_equal(compiled, event)


def test_candles_beyond_one_piece_of_the_loop_are_one_run() -> None:
    small = walk(5, 300)
    repeats = CHUNK_ROWS // small.rows + 2
    names = ("open", "high", "low", "close", "volume")
    long = replace(
        small,
        open_time_ms=small.open_time_ms[0] + np.arange(repeats * small.rows) * 60_000,
        **{name: np.tile(getattr(small, name), repeats) for name in names},
    )
    strategy = discover().get("ema_crossover").create("BTC/USDT", SMALL["ema_crossover"])
    whole = CompiledEngine(strategy, 10_000, BacktestOptions()).run(long)
    rows = np.diff([trade.time.timestamp() for trade in whole.trades])
    assert (rows > 0).all()
    assert whole.signals == whole.total_trades + sum(whole.ignored.values()) + sum(whole.refused.values())
    assert whole.trades[-1].time.timestamp() * 1000 > long.open_time_ms[CHUNK_ROWS]


def test_more_steps_than_are_counted_are_refused_rather_than_wrapped() -> None:
    strategy = discover().get("ema_crossover").create("BTC/USDT", SMALL["ema_crossover"])
    options = BacktestOptions(sizing="quote:1000000000000")  # type: ignore[arg-type]
    candles = walk(1, 200, decimals=8, level=1e-6)
    with pytest.raises(StepsOverflowError, match="more steps"):
        CompiledEngine(strategy, "1e13", options).run(candles)


def test_a_gap_refuses_what_would_open_too_late_in_both() -> None:
    candles = walk(8, 400, holes=0.3)
    compiled, event = both("ema_crossover", candles, BacktestOptions(age_max=timedelta(minutes=1)))
    assert_equal(compiled, event)
    assert compiled.refused["gap"] > 0

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtester.data import CandleData
from backtester.sweep.grid import combinations, parse_axis, parse_grid
from backtester.sweep.market import shuffled, sweep_market
from shared.candle_files import CandleFile

pytestmark = pytest.mark.thorough


def candles(rows: int, seed: int) -> CandleData:
    random = np.random.default_rng(seed)
    close = (100 * np.exp(np.cumsum(random.normal(0, 0.01, rows)))).round(2)
    opened = np.concatenate(([100.0], close[:-1] * random.choice([1.0, 1.001, 0.99], rows - 1)))
    high = np.maximum(opened, close) * random.choice([1.0, 1.004], rows)
    low = np.minimum(opened, close) * random.choice([1.0, 0.99], rows)
    start = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
    return CandleFile(
        path=Path("made"),
        symbol="BTC/USDT",
        timeframe="1h",
        sha256="0" * 64,
        open_time_ms=start + np.arange(rows, dtype=np.int64) * 3_600_000,
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=random.integers(0, 5, rows).astype(np.float64),
    )


@given(rows=st.integers(1, 300), data_seed=st.integers(0, 1000), seed=st.integers(0, 1000))
def test_a_shuffled_market_has_valid_candles_and_the_market_s_first_and_last_price(
    rows: int, data_seed: int, seed: int
) -> None:
    market = sweep_market(candles(rows, data_seed))
    times, opened, high, low, close, volume = shuffled(market, seed).columns
    body_top, body_foot = np.maximum(opened, close), np.minimum(opened, close)
    assert (high >= body_top).all()
    assert (low <= body_foot).all()
    assert (low > 0).all()
    assert (times == market.columns[0]).all()
    assert [column[0] for column in (opened, high, low, close)] == [column[0] for column in market.columns[1:5]]
    assert close[-1] == market.columns[4][-1]
    assert sorted(volume) == sorted(market.columns[5])


def moves(columns: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return gap, high, low and close of each later candle, relative, with its volume; sorted."""
    _, opened, high, low, close, volume = columns
    rows = zip(
        opened[1:] / close[:-1], high[1:] / opened[1:], low[1:] / opened[1:], close[1:] / opened[1:], volume[1:],
        strict=True,
    )  # fmt: skip
    return np.array(sorted(rows, key=lambda row: tuple(round(part, 9) for part in row)))


def test_each_move_occurs_as_often_as_before_in_another_order() -> None:
    market = sweep_market(candles(200, 1))
    other = shuffled(market, 5)
    np.testing.assert_allclose(moves(other.columns), moves(market.columns), rtol=1e-9)
    assert not np.array_equal(other.columns[4], market.columns[4])


def test_equal_seeds_give_equal_markets_and_others_do_not() -> None:
    market = sweep_market(candles(200, 1))
    assert np.array_equal(shuffled(market, 5).columns[4], shuffled(market, 5).columns[4])
    assert not np.array_equal(shuffled(market, 5).columns[4], shuffled(market, 6).columns[4])


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("period=5:20:5", "period", (5, 10, 15, 20)),
        ("period=5:7", "period", (5, 6, 7)),
        ("num_std=1:2:0.5", "num_std", (1, 1.5, 2)),
        ("period=5:9:3", "period", (5, 8)),
        ("trigger=enter,leave", "trigger", ("enter", "leave")),
        ("x=0.1:0.3:0.1", "x", (0.1, 0.2, 0.3)),
    ],
)
def test_an_axis_is_a_range_with_its_last_value_or_a_list(text: str, name: str, values: tuple[object, ...]) -> None:
    assert parse_axis(text) == (name, values)


def test_a_grid_is_every_combination_the_last_axis_turning_fastest() -> None:
    axes = parse_grid(["a=1,2", "b=3:4"], {})
    assert list(combinations(axes)) == [{"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4}]

"""The interval of a Sharpe ratio and its probability, against arch and against the papers' formulas."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap
from arch.bootstrap import optimal_block_length as arch_block_length
from scipy import stats

from backtester.metrics import TradeRecord, compute_detailed_metrics
from backtester.statistics.bootstrap import optimal_block_length, sharpe_interval
from backtester.statistics.probabilistic import probabilistic_sharpe
from shared.domain.performance import FloatArray, sharpe_ratio, simple_returns

pytestmark = pytest.mark.thorough

START = datetime(2024, 1, 1, tzinfo=UTC)


def remembering(days: int, memory: float, seed: int = 5) -> FloatArray:
    """Return daily returns of which each keeps a part of the one before."""
    noise = np.random.default_rng(seed).normal(0.001, 0.02, days)
    series = np.zeros(days)
    for day in range(days):
        series[day] = noise[day] + (memory * series[day - 1] if day else 0.0)
    return series


@pytest.mark.parametrize("days", [60, 61, 97, 365, 1_500])
@pytest.mark.parametrize("memory", [-0.5, 0.0, 0.4, 0.9, 0.99])
def test_the_block_length_is_that_of_arch(days: int, memory: float) -> None:
    returns = remembering(days, memory)
    expected = max(1.0, float(arch_block_length(returns)["stationary"].iloc[0]))
    assert optimal_block_length(returns) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_the_interval_is_that_of_archs_stationary_bootstrap(memory: float) -> None:
    returns = remembering(400, memory)
    length = optimal_block_length(returns)
    oracle = StationaryBootstrap(length, returns, seed=11)
    low, high = oracle.conf_int(lambda sample: np.array([sharpe_ratio(sample)]), 5_000, method="percentile").ravel()
    found = sharpe_interval(returns)
    assert found is not None
    tolerance = 0.05 * (high - low)  # two sets of 5,000 draws differ by about 0.02 of their width
    assert found == pytest.approx((low, high), abs=tolerance)


def test_the_same_days_give_the_same_interval_and_another_seed_nearly_so() -> None:
    returns = remembering(200, 0.3)
    assert sharpe_interval(returns) == sharpe_interval(returns)
    assert sharpe_interval(returns, seed=2) != sharpe_interval(returns)


def test_days_that_hang_together_make_the_interval_wider() -> None:
    returns = remembering(600, 0.8)
    blocks, single = sharpe_interval(returns), sharpe_interval(returns, block_length=1.0)
    assert blocks is not None
    assert single is not None
    assert blocks[1] - blocks[0] > 1.5 * (single[1] - single[0])


@pytest.mark.parametrize(("days", "known"), [(59, False), (60, True)])
def test_sixty_days_are_needed(days: int, known: bool) -> None:
    returns = remembering(days, 0.0)
    assert (sharpe_interval(returns) is not None) is known
    assert (probabilistic_sharpe(returns) is not None) is known


def test_days_of_nothing_have_no_interval() -> None:
    assert sharpe_interval(np.zeros(100)) is None
    assert probabilistic_sharpe(np.zeros(100)) is None
    seldom = np.zeros(100)
    seldom[50] = 0.01  # most draws leave the one active day out: they count 0
    low, high = sharpe_interval(seldom) or (math.nan, math.nan)
    assert low == 0.0
    assert high > 0.0


def test_a_return_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        sharpe_interval(np.array([0.1, math.nan] * 40))
    with pytest.raises(ValueError, match="block_length"):
        sharpe_interval(remembering(100, 0.0), block_length=0.5)


def test_the_probability_is_the_papers_formula() -> None:
    returns = remembering(250, 0.2, seed=9) + np.where(np.arange(250) % 40 == 0, -0.05, 0.0)
    daily = returns.mean() / returns.std(ddof=1)
    error = math.sqrt(
        (1 - stats.skew(returns) * daily + (stats.kurtosis(returns, fisher=False) - 1) / 4 * daily**2)
        / (len(returns) - 1)
    )
    assert probabilistic_sharpe(returns) == pytest.approx(stats.norm.cdf(daily / error))
    assert probabilistic_sharpe(returns, 1.0) == pytest.approx(stats.norm.cdf((daily - 1 / math.sqrt(365)) / error))


def test_the_metrics_carry_the_interval_of_their_own_daily_returns() -> None:
    values = 10_000 * np.cumprod(1 + remembering(90, 0.0))
    marks = [(START + timedelta(days=day + 1), float(value)) for day, value in enumerate(values)]
    trade = TradeRecord(START, "BTC/USDT", "BUY", Decimal(100), Decimal(1))
    metrics = compute_detailed_metrics([trade], 10_000, float(values[-1]), marks)
    assert metrics.sharpe_ci95 == sharpe_interval(simple_returns(np.concatenate(([10_000.0], values))))
    short = compute_detailed_metrics([trade], 10_000, marks[58][1], marks[:59])
    assert short.sharpe_ratio is not None
    assert short.sharpe_ci95 is None

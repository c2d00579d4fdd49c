"""The interval of a Sharpe ratio: days are resampled in blocks, so that what hangs together stays together."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from shared.domain.performance import DAYS_A_YEAR, FloatArray

INTERVAL_DAYS_MIN = 60
DRAWS = 5_000
SEED = 1994
_CELLS_MAX = 500_000  # of one array of draws: 4 MB
_CUTOFF = 2.0  # deviations beyond which an autocorrelation counts
_FLAT_MIN = 1e-15  # a spread of returns below this is float64 noise


def sharpe_interval(
    returns: FloatArray, *, draws: int = DRAWS, seed: int = SEED, block_length: float | None = None
) -> tuple[float, float] | None:
    """Return the 95 % interval of the annual Sharpe ratio.

    Parameters
    ----------
    returns : ndarray of shape (n_days,)
        Simple daily returns, oldest first, finite.
    draws : int
        Resampled histories, >= 1.
    seed : int
        The same seed gives the same interval.
    block_length : float, optional
        Mean days in a block, >= 1; by default what `optimal_block_length` finds.

    Returns
    -------
    tuple of (low, high) or None
        The 2.5 % and 97.5 % quantiles over the draws, 365 days a year, risk-free rate 0. A draw in which nothing
        happens counts 0. None below 60 days and for returns without any spread.

    Raises
    ------
    ValueError
        If a return is not finite or the block length is below 1.

    Source: Politis & Romano, "The Stationary Bootstrap", Journal of the American Statistical Association 89, 1994.
    Example: 365 days of mean 0.001 and deviation 0.02 -> about (-1, 3): a year says little.
    """
    if not np.isfinite(returns).all():
        raise ValueError("returns: every one must be finite")
    if len(returns) < INTERVAL_DAYS_MIN or float(np.ptp(returns)) < _FLAT_MIN:
        return None
    length = optimal_block_length(returns) if block_length is None else block_length
    if not length >= 1:
        raise ValueError(f"block_length: must be at least 1 day, was {length}")
    generator = np.random.default_rng(seed)
    ratios = np.concatenate([_ratios(sample) for sample in _resamples(returns, length, draws, generator)])
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


def optimal_block_length(returns: FloatArray) -> float:
    """Return the mean block length that suits the stationary bootstrap of a series.

    Parameters
    ----------
    returns : ndarray of shape (n,)
        Oldest first, finite, n >= 2.

    Returns
    -------
    float
        Between 1 (no memory, or no spread) and min(3 sqrt(n), n / 3).

    Source: Politis & White, "Automatic Block-Length Selection for the Dependent Bootstrap", Econometric Reviews 23,
    2004, with the correction of Patton, Politis & White, Econometric Reviews 28, 2009.
    Example: white noise -> close to 1; an autoregression of 0.8 over 1,000 days -> about 20.
    """
    count = len(returns)
    spread = returns - returns.mean()
    if count < 2 or float(np.ptp(returns)) < _FLAT_MIN:
        return 1.0
    run = max(5, int(math.log10(count)))
    lag_max = min(math.ceil(math.sqrt(count)) + run, count - 2)
    products = np.array([spread[lag:] @ spread[: count - lag] for lag in range(lag_max + 1)])
    lags = _memory(spread, products, run)
    weighed = np.arange(1, lags + 1)
    covariance = products[1 : lags + 1] / count
    window = np.minimum(1.0, 2.0 * (1.0 - weighed / lags))  # flat to the half, then falling to 0
    slope = 2.0 * float(window @ (weighed * covariance))
    variance = float(products[0] / count + 2.0 * window @ covariance)
    if variance == 0.0:
        return 1.0
    length = (slope / variance) ** 2 * count
    return float(max(1.0, min(math.cbrt(length), math.ceil(min(3 * math.sqrt(count), count / 3)))))


def _memory(spread: FloatArray, products: FloatArray, run: int) -> int:
    """Return how many lags are weighed: twice the last one that counts before a `run` of such as do not."""
    count, lag_max = len(spread), len(products) - 1
    squares = np.concatenate(([0.0], np.cumsum(spread**2)))
    lags = np.arange(lag_max + 1)
    later, earlier = squares[-1] - squares[lags + 1], squares[count - lags - 1]
    scale = np.sqrt(later * earlier)
    correlation = np.divide(np.abs(products), scale, out=np.zeros_like(scale), where=scale > 0)
    quiet = correlation < _CUTOFF * math.sqrt(math.log10(count) / count)
    for first in range(lag_max + 1 - run):
        if quiet[first : first + run].all():
            return min(2 * max(first, 1), lag_max)
    return lag_max


def _resamples(returns: FloatArray, length: float, draws: int, generator: np.random.Generator) -> Iterator[FloatArray]:
    """Yield resampled histories, some rows at a time: each day follows the one before, or begins a block anywhere."""
    days = len(returns)
    rows_max = max(1, _CELLS_MAX // days)
    for done in range(0, draws, rows_max):
        rows = min(rows_max, draws - done)
        begins = generator.random(rows * days) < 1.0 / length
        begins[::days] = True
        places = np.flatnonzero(begins)
        shifts = generator.integers(0, days, len(places)) - places
        chosen = np.repeat(shifts, np.diff(places, append=rows * days)) + np.arange(rows * days)
        yield np.take(returns, chosen, mode="wrap").reshape(rows, days)


def _ratios(samples: FloatArray) -> FloatArray:
    deviation = samples.std(axis=1, ddof=1)
    alive = deviation > _FLAT_MIN
    daily = np.divide(samples.mean(axis=1), deviation, out=np.zeros_like(deviation), where=alive)
    return np.asarray(daily * math.sqrt(DAYS_A_YEAR))

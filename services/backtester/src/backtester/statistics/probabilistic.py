"""How probable it is that a Sharpe ratio is above a mark, given how long and how crooked its history is."""

from __future__ import annotations

import math
from statistics import NormalDist

from backtester.statistics.bootstrap import INTERVAL_DAYS_MIN
from shared.domain.performance import DAYS_A_YEAR, FloatArray


def probabilistic_sharpe(returns: FloatArray, benchmark: float = 0.0) -> float | None:
    """Return the probability that the true Sharpe ratio is above `benchmark`, for ONE run that was not chosen.

    Parameters
    ----------
    returns : ndarray of shape (n_days,)
        Simple daily returns, finite.
    benchmark : float
        Annual Sharpe ratio (365 days).

    Returns
    -------
    float or None
        0..1; None below 60 days, without any spread, or where the moments leave no variance. The best of many runs
        needs another figure: this one does not know how many were looked at.

    Source: Bailey & Lopez de Prado, "The Sharpe Ratio Efficient Frontier", Journal of Risk 15(2), 2012.
    Example: 730 days of a daily ratio of 0.1, skew 0, kurtosis 3 -> 0.9965.
    """
    if len(returns) < INTERVAL_DAYS_MIN:
        return None
    deviation = float(returns.std(ddof=1))
    if not deviation > 1e-15:
        return None
    ratio = float(returns.mean()) / deviation
    scaled = (returns - returns.mean()) / returns.std()
    skew, kurtosis = float((scaled**3).mean()), float((scaled**4).mean())
    variance = 1.0 - skew * ratio + (kurtosis - 1.0) / 4.0 * ratio**2
    if not variance > 0:
        return None
    distance = ratio - benchmark / math.sqrt(DAYS_A_YEAR)
    return NormalDist().cdf(distance * math.sqrt(len(returns) - 1) / math.sqrt(variance))

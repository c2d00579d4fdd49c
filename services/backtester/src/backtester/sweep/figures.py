"""What each set of a sweep came to: the figures of a single run that follow from its daily marks, many sets at once."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.domain.performance import (
    DAILY_RETURNS_MIN,
    DAYS_A_YEAR,
    EquityCurve,
    FloatArray,
    IntArray,
    annual_growth,
    daily_equity,
)

_SPREAD_MIN = 1e-15
METRICS = ("sharpe", "sortino", "calmar", "cagr", "total_return")


class SetFigures(NamedTuple):
    """Columns of figures, one row a set; a ratio that is not defined, or too short to be told, is NaN."""

    sharpe: FloatArray
    sortino: FloatArray
    calmar: FloatArray
    cagr: FloatArray
    total_return: FloatArray


def measure_sets(
    close_times: IntArray, marks: FloatArray, balance: float, finals: FloatArray, trades: npt.NDArray[np.int64]
) -> SetFigures:
    """Return the figures of many accounts.

    Parameters
    ----------
    close_times : ndarray of shape (n_days,)
        Milliseconds since 1970 UTC of each marked day's last candle, oldest first.
    marks : ndarray of shape (n_sets, n_days)
        Each account at those times, quote.
    balance : float
        What each began with, > 0.
    finals : ndarray of shape (n_sets,)
        The accounts at the end.
    trades : ndarray of shape (n_sets,)
        Fills.

    Returns
    -------
    SetFigures
        As `backtester.ratios.annual_figures` gives them one by one: 365 days, ddof 1, calmar by the daily drawdown.
        Ratios are NaN below 30 daily returns, 0 without a trade; `total_return` is a percent.

    Example: marks that never move, with a trade -> sharpe NaN, total_return 0.
    """
    daily = _every_day(close_times, marks, balance)
    before = daily[:, :-1]
    alive = before > 0
    returns = np.where(alive, daily[:, 1:] / np.where(alive, before, 1.0) - 1.0, 0.0)
    total = (finals - balance) / balance * 100
    none = np.full(len(marks), math.nan)
    days = returns.shape[1]
    if days < DAILY_RETURNS_MIN:
        nothing = _without_trades(none, trades)
        return SetFigures(nothing, nothing, nothing, nothing, total)
    mean = returns.mean(axis=1)
    root = math.sqrt(DAYS_A_YEAR)
    with np.errstate(divide="ignore", invalid="ignore"):
        sharpe = np.where(np.ptp(returns, axis=1) < _SPREAD_MIN, math.nan, mean / returns.std(axis=1, ddof=1) * root)
        downside = np.sqrt(np.square(np.minimum(returns, 0.0)).mean(axis=1))
        sortino = np.where(downside > 0, mean / downside * root, math.nan)
        growths = (annual_growth(balance, float(final), days) for final in finals)
        cagr = np.array([math.nan if growth is None else growth for growth in growths])
        depth = (1.0 - daily / np.maximum.accumulate(daily, axis=1)).max(axis=1)
        calmar = np.where(depth > 0, cagr / depth, math.nan)
    sharpe, sortino, calmar, cagr = (_without_trades(figure, trades) for figure in (sharpe, sortino, calmar, cagr))
    return SetFigures(sharpe, sortino, calmar, cagr, total)


def _without_trades(figure: FloatArray, trades: npt.NDArray[np.int64]) -> FloatArray:
    return np.where(trades > 0, figure, 0.0)


def _every_day(close_times: IntArray, marks: FloatArray, balance: float) -> FloatArray:
    """Return the accounts at the end of each calendar day, the initial balance first; a day without a mark carries."""
    places = np.arange(len(close_times), dtype=np.float64)
    carried = daily_equity(EquityCurve(close_times, places), -1.0)[1:].astype(np.int64)
    return np.concatenate((np.full((len(marks), 1), balance), marks[:, carried]), axis=1)

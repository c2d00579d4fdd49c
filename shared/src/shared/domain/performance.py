"""What an equity curve was worth: daily and monthly returns, drawdowns, ratios. float64; crypto trades 365 days a year.

A mark at an instant belongs to what ended there: the close at exactly 00:00 UTC is the last one of the day before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.models import to_milliseconds

DAYS_A_YEAR = 365
DAILY_RETURNS_MIN = 30
# a spread of returns below this is float64 noise, not risk
_SPREAD_MIN = 1e-15
_DAY_MS = 86_400_000

type FloatArray = npt.NDArray[np.float64]
type IntArray = npt.NDArray[np.int64]


class EquityCurve(NamedTuple):
    """Account values in quote at close times (int64 ms since 1970 UTC), oldest first."""

    time_ms: IntArray
    value: FloatArray

    @classmethod
    def from_marks(cls, marks: Iterable[tuple[datetime, Decimal | float]]) -> EquityCurve:
        """Return the curve of (close time, value) marks in any order; a value that is not finite is a ValueError."""
        pairs = list(marks)
        times = np.fromiter((to_milliseconds(moment) for moment, _ in pairs), dtype=np.int64, count=len(pairs))
        values = np.fromiter((float(value) for _, value in pairs), dtype=np.float64, count=len(pairs))
        return cls(times, values).sorted()

    def sorted(self) -> EquityCurve:
        """Return the curve oldest first (marks of one instant keep their order: the last one counts)."""
        bad = np.flatnonzero(~np.isfinite(self.value))
        if len(bad):
            raise ValueError(f"equity mark {int(bad[0])}: must be finite, was {self.value[bad[0]]}")
        if len(self.time_ms) < 2 or bool((np.diff(self.time_ms) >= 0).all()):
            return self
        order = np.argsort(self.time_ms, kind="stable")
        return EquityCurve(self.time_ms[order], self.value[order])


class Drawdown(NamedTuple):
    """The deepest fall as a positive fraction of its peak, and the longest time from a peak to its recovery or the end."""

    depth: float
    longest: timedelta


def daily_equity(curve: EquityCurve, initial_balance: float) -> FloatArray:
    """Return the account value at the end of each UTC day, the initial balance first.

    Parameters
    ----------
    curve : EquityCurve
        Marks, oldest first.
    initial_balance : float
        Quote; the value of day 0, before the first marked day.

    Returns
    -------
    ndarray of shape (n_days + 1,)
        Last mark of each day from the first marked to the last one; a day without a mark carries the day before.
        Only day 0 when there is no mark. Entry t uses marks up to day t. NaN cannot occur.

    Example: marks 101 on Monday, 103 on Wednesday, start 100 -> [100, 101, 101, 103].
    """
    _, values = _last_values(curve, (curve.time_ms - 1) // _DAY_MS)
    return np.concatenate(([initial_balance], values))


def monthly_equity(curve: EquityCurve, initial_balance: float) -> dict[str, tuple[float, float]]:
    """Return the account value at the start and the end of each UTC month.

    Parameters
    ----------
    curve : EquityCurve
        Marks, oldest first.
    initial_balance : float
        Quote; the start of the first month.

    Returns
    -------
    dict of 'YYYY-MM' to (start, end)
        Every month from the first marked to the last one; a month without a mark ends where it began.

    Example: marks 110 in January and 99 in February, start 100 -> {'..-01': (100, 110), '..-02': (110, 99)}.
    """
    numbers = (curve.time_ms - 1).astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
    months, ends = _last_values(curve, numbers)
    starts = np.concatenate(([initial_balance], ends[:-1])) if len(ends) else ends
    names = np.datetime_as_string(months.astype("datetime64[M]")).tolist()
    return dict(zip(names, zip(starts.tolist(), ends.tolist(), strict=True), strict=True))


def _last_values(curve: EquityCurve, bucket: IntArray) -> tuple[IntArray, FloatArray]:
    if len(bucket) == 0:
        return np.empty(0, dtype=np.int64), np.empty(0)
    every = np.arange(bucket[0], bucket[-1] + 1, dtype=np.int64)
    return every, curve.value[np.searchsorted(bucket, every, side="right") - 1]


def simple_returns(values: FloatArray) -> FloatArray:
    """Return the relative change from each value to the next.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Account values, oldest first; a fall to 0 or below ends the account.

    Returns
    -------
    ndarray of shape (n - 1,)
        `values[t] / values[t - 1] - 1`; 0 once the value before was 0 or below (there is nothing left to lose).

    Example: [100, 110, 99] -> [0.1, -0.1].
    """
    if len(values) < 2:
        return np.empty(0)
    before = values[:-1]
    alive = before > 0
    return np.where(alive, values[1:] / np.where(alive, before, 1.0) - 1.0, 0.0)


def sharpe_ratio(returns: FloatArray) -> float | None:
    """Return the annual Sharpe ratio of daily returns, risk-free rate 0.

    Parameters
    ----------
    returns : ndarray of shape (n_days,)
        Simple daily returns.

    Returns
    -------
    float or None
        mean / deviation (ddof 1) x sqrt(365); None below two returns or without any deviation.

    Source: Sharpe, "The Sharpe Ratio", Journal of Portfolio Management 21(1), 1994.
    Example: [0.01, -0.01, 0.02] -> 8.34.
    """
    if len(returns) < 2 or float(np.ptp(returns)) < _SPREAD_MIN:
        return None
    return float(returns.mean() / returns.std(ddof=1) * math.sqrt(DAYS_A_YEAR))


def sortino_ratio(returns: FloatArray) -> float | None:
    """Return the annual Sortino ratio of daily returns, target 0.

    Parameters
    ----------
    returns : ndarray of shape (n_days,)
        Simple daily returns.

    Returns
    -------
    float or None
        mean / sqrt(mean of squared losses over ALL days) x sqrt(365); None without a losing day or below two returns.

    Source: Sortino & Price, "Performance Measurement in a Downside Risk Framework", Journal of Investing 3(3), 1994.
    Example: [0.01, -0.01, 0.02] -> 22.06.
    """
    if len(returns) < 2:
        return None
    downside = math.sqrt(float(np.square(np.minimum(returns, 0.0)).mean()))
    return float(returns.mean()) / downside * math.sqrt(DAYS_A_YEAR) if downside > 0 else None


def drawdown_series(values: FloatArray) -> FloatArray:
    """Return the fall from the running peak, as a positive fraction.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Account values, oldest first; the first one > 0.

    Returns
    -------
    ndarray of shape (n,)
        `1 - value / running peak`, >= 0 (above 1 only for a negative value). Row t uses rows 0..t.

    Raises
    ------
    ValueError
        If the first value is not > 0. NaN stays NaN from there on.

    Source: Magdon-Ismail & Atiya, "Maximum Drawdown", Risk 17(10), 2004.
    Example: [100, 120, 90] -> [0, 0, 0.25].
    """
    if len(values) and not values[0] > 0:
        raise ValueError(f"equity must begin above 0, was {values[0]}")
    return 1.0 - values / np.maximum.accumulate(values)


def measure_drawdown(curve: EquityCurve, initial_balance: float) -> Drawdown:
    """Return the deepest and the longest drawdown of the marks, the initial balance counted as their first peak.

    Parameters
    ----------
    curve : EquityCurve
        Marks, oldest first: what happened between two marks is not seen.
    initial_balance : float
        Quote, > 0; it stands at the time of the first mark.

    Returns
    -------
    Drawdown
        Depth in [0, 1]; `longest` runs from the last time at a peak to the first time at or above it again, or to the
        last mark. (0, 0) without marks.

    Example: start 100, daily marks 120, 90, 110, 130 -> depth 0.25, three days (120 to 130).
    """
    if len(curve.value) == 0:
        return Drawdown(0.0, timedelta(0))
    values = np.concatenate(([initial_balance], curve.value))
    times = np.concatenate((curve.time_ms[:1], curve.time_ms))
    falls = drawdown_series(values)
    under = np.concatenate((falls > 0, [False]))
    edges = np.flatnonzero(np.diff(np.concatenate(([False], under)).astype(np.int8)))
    begins, recoveries = edges[::2] - 1, np.minimum(edges[1::2], len(times) - 1)
    longest = int((times[recoveries] - times[begins]).max()) if len(begins) else 0
    return Drawdown(float(falls.max()), timedelta(milliseconds=longest))


def annual_growth(initial_balance: float, final_balance: float, days: int) -> float | None:
    """Return the compound annual growth rate, as a fraction.

    Parameters
    ----------
    initial_balance, final_balance : float
        Quote, the first > 0.
    days : int
        Calendar days between them.

    Returns
    -------
    float or None
        `(final / initial) ** (365 / days) - 1`; -1 when nothing is left; None for no days or beyond float64.

    Example: 100 -> 110 in 730 days: 0.0488.
    """
    if days <= 0 or not initial_balance > 0:
        return None
    try:
        growth = float(max(final_balance / initial_balance, 0.0) ** (DAYS_A_YEAR / days) - 1.0)
    except OverflowError:
        return None
    return growth if math.isfinite(growth) else None

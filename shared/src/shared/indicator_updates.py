"""Indicators one value at a time: O(1) updates over float64 that a step takes into its own machine code.

Plain Python, so that a step's generated module can hold them. Steps never see a number that is not finite; a NaN given
here stays in every value that depends on it.
"""

from __future__ import annotations

from typing import Any

DAY_MS = 86_400_000
ROLLING_HEAD = 5


# --- averages -------------------------------------------------------------------------------------------------


def ema_alpha(period: int) -> float:
    """Return the weight of the newest value in an EMA of `period`: 2 / (period + 1).

    Example: 9 -> 0.2.
    """
    return 2.0 / (period + 1.0)


def ema_update(previous: float, value: float, alpha: float) -> float:
    """Return the exponential moving average after one more value.

    Parameters
    ----------
    previous : float
        The average so far; the first value itself seeds it.
    value : float
        The newest value, in any unit.
    alpha : float
        Its weight, in (0, 1].

    Returns
    -------
    float
        previous + alpha x (value - previous): exactly `value` when both are equal. All of the past counts, fading.

    Example: 10, 20, 0.2 -> 12.
    """
    return previous + alpha * (value - previous)


def wilder_update(previous: float, value: float, period: int) -> float:
    """Return Wilder's average after one more value.

    Parameters
    ----------
    previous : float
        The average so far; the mean of the first `period` values seeds it.
    value : float
        The newest value.
    period : int
        >= 1.

    Returns
    -------
    float
        (previous x (period - 1) + value) / period. All of the past counts, fading.

    Source: Wilder, "New Concepts in Technical Trading Systems", 1978.
    Example: 1, 15, 14 -> 2.
    """
    return (previous * (period - 1) + value) / period


def rsi_value(gain: float, loss: float) -> float:
    """Return the relative strength index of an average gain and an average loss, both >= 0.

    Returns
    -------
    float
        100 x gain / (gain + loss), in [0, 100]: 100 without a loss, 50 without any change.

    Source: Wilder, "New Concepts in Technical Trading Systems", 1978.
    Example: 3, 1 -> 75.
    """
    total = gain + loss
    if total == 0.0:
        return 50.0
    return 100.0 * gain / total


# --- rolling mean and deviation -------------------------------------------------------------------------------


def rolling_room(period: int) -> int:
    """Return how many float64 the window of `period` values needs (a `Ring` of the state)."""
    return ROLLING_HEAD + 3 * period


def rolling_push(window: Any, period: int, value: float) -> None:
    """Put `value` into the window of the last `period` values.

    Every `period` values the window is summed anew from its newest value backwards, so each later window is the join
    of a tail of that sum and a head of new values: nothing is ever subtracted, no error piles up.

    Parameters
    ----------
    window : ndarray of float64, at least `rolling_room(period)` long, zeros at first
        Head: new values, 1 once full, the value counted from, mean and squares of the new values; then values, tail
        means, tail squares.
    period : int
        >= 1.
    value : float
        The newest value.
    """
    fresh = int(window[0])
    if fresh == 0 and window[1] == 0.0:
        window[2] = value
    window[ROLLING_HEAD + fresh] = value
    fresh += 1
    distance = value - window[2]
    step = distance - window[3]
    window[3] += step / fresh
    window[4] += step * (distance - window[3])
    window[0] = fresh
    if fresh == period:
        rolling_resum(window, period)


def rolling_resum(window: Any, period: int) -> None:
    """Sum the window anew from its newest value backwards; every tail's mean and sum of squares is kept."""
    window[2] = window[ROLLING_HEAD + period - 1]
    mean = 0.0
    squares = 0.0
    for place in range(period - 1, -1, -1):
        distance = window[ROLLING_HEAD + place] - window[2]
        step = distance - mean
        mean += step / (period - place)
        squares += step * (distance - mean)
        window[ROLLING_HEAD + period + place] = mean
        window[ROLLING_HEAD + 2 * period + place] = squares
    window[0] = 0.0
    window[1] = 1.0
    window[3] = 0.0
    window[4] = 0.0


def rolling_full(window: Any) -> bool:
    """Return whether the window has held `period` values yet."""
    return bool(window[1] != 0.0)


def rolling_mean(window: Any, period: int) -> float:
    """Return the mean of the window's `period` values, within 1e-12 relative of the exact one; the window is full.

    Example: 1, 2, 3 -> 2.
    """
    fresh = int(window[0])
    tail = window[ROLLING_HEAD + period + fresh]
    return float(window[2] + (tail + (window[3] - tail) * (fresh / period)))


def rolling_deviation(window: Any, period: int) -> float:
    """Return the sample deviation (n - 1) of the window's `period` >= 2 values; the window is full.

    Returns
    -------
    float
        >= 0, within 1e-12 relative of the exact window's; exactly 0 for equal values.

    Source: Chan, Golub & LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
    Example: 1, 2, 3 -> 1.
    """
    fresh = int(window[0])
    apart = window[3] - window[ROLLING_HEAD + period + fresh]
    between = apart * apart * (fresh * ((period - fresh) / period))
    squares = window[ROLLING_HEAD + 2 * period + fresh] + window[4] + between
    return float((squares / (period - 1)) ** 0.5)


# --- anchored average price -----------------------------------------------------------------------------------


def typical_price(high: float, low: float, close: float) -> float:
    """Return the mean of high, low and close. Example: 3, 1, 2 -> 2."""
    return (high + low + close) / 3.0


def anchor_period(open_time: int, anchor: int) -> int:
    """Return the number of the anchor period in which a candle opens.

    Parameters
    ----------
    open_time : int
        Milliseconds since 1970-01-01 UTC.
    anchor : int
        0 day, 1 week from Monday, 2 month, 3 none (one period for ever); all UTC.

    Returns
    -------
    int
        Equal for two candles exactly when they share a period.

    Source of the month: Hinnant, "chrono-Compatible Low-Level Date Algorithms", 2013.
    Example: 0, 2 -> 23640 (January 1970).
    """
    day = open_time // DAY_MS
    if anchor == 0:
        return day
    if anchor == 1:
        return (day + 3) // 7  # 1970-01-01 was a Thursday
    if anchor == 3:
        return 0
    shifted = day + 719_468  # days since 0000-03-01
    era = shifted // 146_097
    day_of_era = shifted - era * 146_097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    return (year_of_era + era * 400) * 12 + month_from_march + 2

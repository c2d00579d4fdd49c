"""Indicators one value at a time: O(1) updates over float64 that a step takes into its own machine code.

Plain Python, so that a step's generated module can hold them. Steps never see a number that is not finite; a NaN given
here stays in every value that depends on it.
"""

from __future__ import annotations

from typing import Any

DAY_MS = 86_400_000
ROLLING_HEAD = 6
PRODUCT_MARGIN = 1e-14  # more than a few roundings take from a figure, as a part of it
PRODUCT_MIN = 1e-280  # below it a product may lose places


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
    return ROLLING_HEAD + 4 * period


def rolling_push(window: Any, period: int, value: float) -> None:
    """Put `value` into the window of the last `period` values.

    Every `period` values the window is summed anew from its newest value backwards, so each later window is the join
    of a tail of that sum and a head of new values: nothing is ever subtracted, no error piles up.

    Parameters
    ----------
    window : ndarray of float64, at least `rolling_room(period)` long, zeros at first
        Head: new values, 1 once full, the value counted from, sum, squares and mean of the new values; then values,
        tail means, tail squares, and 1 / 1 to 1 / period, since a product is quicker than a quotient.
    period : int
        >= 1.
    value : float
        The newest value.
    """
    count = window[0]
    fresh = int(count)
    if fresh == 0 and window[1] == 0.0:
        rolling_begin(window, period, value)
    window[ROLLING_HEAD + fresh] = value
    distance = value - window[2]
    total = window[3] + distance
    mean = total * window[ROLLING_HEAD + 3 * period + fresh]
    window[4] += (distance - window[5]) * (distance - mean)
    window[3] = total
    window[5] = mean
    window[0] = count + 1.0
    if fresh == period - 1:
        rolling_resum(window, period)


def rolling_begin(window: Any, period: int, value: float) -> None:
    """Note the value that is counted from, and the inverse of each count."""
    window[2] = value
    for place in range(period):
        window[ROLLING_HEAD + 3 * period + place] = 1.0 / (place + 1)


def rolling_resum(window: Any, period: int) -> None:
    """Sum the window anew from its newest value backwards; every tail's mean and sum of squares is kept."""
    window[2] = window[ROLLING_HEAD + period - 1]
    total = 0.0
    mean = 0.0
    squares = 0.0
    for place in range(period - 1, -1, -1):
        distance = window[ROLLING_HEAD + place] - window[2]
        before = mean
        total += distance
        mean = total * window[ROLLING_HEAD + 4 * period - 1 - place]
        squares += (distance - before) * (distance - mean)
        window[ROLLING_HEAD + period + place] = mean
        window[ROLLING_HEAD + 2 * period + place] = squares
    window[0] = 0.0
    window[1] = 1.0
    window[3] = 0.0
    window[4] = 0.0
    window[5] = 0.0


def rolling_full(window: Any) -> bool:
    """Return whether the window has held `period` values yet."""
    return bool(window[1] != 0.0)


def rolling_mean(window: Any, period: int) -> float:
    """Return the mean of the window's `period` values, within 1e-12 relative of the exact one; the window is full.

    Example: 1, 2, 3 -> 2.
    """
    count = window[0]
    tail = window[ROLLING_HEAD + period + int(count)]
    part = count * window[ROLLING_HEAD + 4 * period - 1]
    return float(window[2] + (tail + (window[5] - tail) * part))


def rolling_squares(window: Any, period: int) -> float:
    """Return the sum of the squared distances of the window's values from their mean; the window is full.

    Returns
    -------
    float
        >= 0, within 2e-12 relative of the exact window's; exactly 0 for equal values.

    Source: Chan, Golub & LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
    Example: 1, 2, 3 -> 2.
    """
    count = window[0]
    place = ROLLING_HEAD + period + int(count)
    part = count * window[ROLLING_HEAD + 4 * period - 1]
    apart = window[5] - window[place]
    return float(window[place + period] + window[4] + apart * apart * (part * (period - count)))


def rolling_deviation(window: Any, period: int) -> float:
    """Return the sample deviation (n - 1) of the window's `period` >= 2 values; the window is full.

    Returns
    -------
    float
        >= 0, within 1e-12 relative of the exact window's; exactly 0 for equal values.

    Example: 1, 2, 3 -> 1.
    """
    return float((rolling_squares(window, period) / (period - 1)) ** 0.5)


# --- anchored average price -----------------------------------------------------------------------------------


def typical_price(high: float, low: float, close: float) -> float:
    """Return the mean of high, low and close. Example: 3, 1, 2 -> 2."""
    return (high + low + close) / 3.0


def deviation_side(close: float, money: float, volume: float, threshold: float) -> int:
    """Return on which side of an average price a close lies, beyond a threshold.

    Parameters
    ----------
    close : float
        A price.
    money, volume : float
        Sums of price x volume and of volume, not 0; the average price is money / volume.
    threshold : float
        >= 0, a fraction of the average price.

    Returns
    -------
    int
        -1 where (close - average) / average < -threshold, 1 where it is > threshold, else 0. The two divisions are
        made only where products leave it open.

    Example: 99, 1000, 10, 0.005 -> -1.
    """
    worth = close * volume
    reach = threshold * money
    unsure = PRODUCT_MARGIN * (abs(worth) + abs(money))
    above, below = worth - money - reach, money - worth - reach
    if (money > PRODUCT_MIN) & (volume > 0.0) & (abs(above) > unsure) & (abs(below) > unsure):
        return int(above > 0.0) - int(below > 0.0)  # no jump: on which side a price is, is anybody's guess
    average = money / volume
    deviation = (close - average) / average
    return int(deviation > threshold) - int(deviation < -threshold)


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

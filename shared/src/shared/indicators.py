"""Indicators: O(1) updates that a step may call, and the same over whole arrays.

The updates (`ema_update`, `wilder_update`, `rolling_*`, `anchor_period`, `profile_*`) are plain Python that a step takes
into its own machine code. The functions over arrays below give arrays of the same length, oldest value first; they run
the same updates, compiled at their first call. NaN is never skipped: it stays in every value that depends on it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared.indicator_updates import (
    anchor_period,
    deviation_side,
    ema_alpha,
    ema_update,
    rolling_deviation,
    rolling_full,
    rolling_mean,
    rolling_push,
    rolling_room,
    rolling_squares,
    rsi_value,
    typical_price,
    wilder_update,
)
from shared.step_compiler import compiled
from shared.step_record import step_record
from shared.value_area import profile_area, profile_is_central, profile_side
from shared.volume_profile import profile_fields, profile_push, profile_renew

__all__ = [
    "anchor_period",
    "bollinger_bands",
    "deviation_side",
    "ema",
    "ema_alpha",
    "ema_update",
    "macd",
    "profile_area",
    "profile_fields",
    "profile_is_central",
    "profile_push",
    "profile_renew",
    "profile_side",
    "rolling_deviation",
    "rolling_full",
    "rolling_mean",
    "rolling_push",
    "rolling_room",
    "rolling_squares",
    "rolling_statistics",
    "rsi",
    "rsi_value",
    "typical_price",
    "volume_profile",
    "vwap",
    "wilder",
    "wilder_update",
]

type FloatArray = NDArray[np.float64]


def _ema_over(values, alpha, out):  # type: ignore[no-untyped-def]
    average = values[0]
    for place in range(len(values)):
        average = ema_update(average, values[place], alpha)
        out[place] = average


def _wilder_over(values, period, out):  # type: ignore[no-untyped-def]
    average = 0.0
    for place in range(len(values)):
        if place < period:
            average += values[place]
            if place == period - 1:
                average /= period
                out[place] = average
        else:
            average = wilder_update(average, values[place], period)
            out[place] = average


def _rolling_over(values, period, window, means, deviations):  # type: ignore[no-untyped-def]
    for place in range(len(values)):
        rolling_push(window, period, values[place])
        if rolling_full(window):
            means[place] = rolling_mean(window, period)
            deviations[place] = rolling_deviation(window, period)


def _profile_over(states, lows, highs, volumes, bin_count, share):  # type: ignore[no-untyped-def]
    state = states[0]
    for place in range(len(lows)):
        profile_push(state, len(lows), bin_count, (lows[place], highs[place], volumes[place]))
    if not (state.highest > state.lowest and state.volume > 0.0):
        return False
    profile_renew(state, len(lows), bin_count)
    profile_side(state, bin_count, share, state.lowest)
    profile_area(state, bin_count, share)
    return True


def _vwap_over(open_times, prices, volumes, anchor, out):  # type: ignore[no-untyped-def]
    current = anchor_period(open_times[0], anchor)
    money = 0.0
    traded = 0.0
    for place in range(len(prices)):
        period = anchor_period(open_times[place], anchor)
        if period != current:
            current = period
            money = 0.0
            traded = 0.0
        money += prices[place] * volumes[place]
        traded += volumes[place]
        if traded != 0.0:
            out[place] = money / traded


def _as_values(values: ArrayLike) -> FloatArray:
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"values must be one row, oldest first, was of shape {array.shape}")
    return array


def _checked_period(period: int, least: int = 1) -> int:
    if period < least:
        raise ValueError(f"period must be >= {least}, was {period}")
    return int(period)


def ema(values: ArrayLike, period: int) -> FloatArray:
    """Return the exponential moving average of `period`, seeded by the first value.

    Parameters
    ----------
    values : array of shape (n,)
        Any unit, oldest first.
    period : int
        >= 1; the newest value weighs 2 / (period + 1).

    Returns
    -------
    ndarray of shape (n,)
        In the unit of `values`. Row t uses rows 0..t. NaN stays from the first NaN on.

    Raises
    ------
    ValueError
        If the period is below 1 or the values are not one row.

    Source: Appel, "Technical Analysis: Power Tools for Active Investors", 2005.
    Example: [10, 20], 9 -> [10, 12].
    """
    array = _as_values(values)
    out = np.full(len(array), np.nan)
    if len(array):
        compiled(_ema_over)(array, ema_alpha(_checked_period(period)), out)
    return out


def wilder(values: ArrayLike, period: int) -> FloatArray:
    """Return Wilder's average: the mean of the first `period` values, then one part in `period` of each new one.

    Parameters
    ----------
    values : array of shape (n,)
        Any unit, oldest first.
    period : int
        >= 1.

    Returns
    -------
    ndarray of shape (n,)
        NaN before row period - 1. Row t uses rows 0..t. NaN stays from the first NaN on.

    Raises
    ------
    ValueError
        If the period is below 1 or the values are not one row.

    Source: Wilder, "New Concepts in Technical Trading Systems", 1978.
    Example: [1, 3, 5], 2 -> [NaN, 2, 3.5].
    """
    array = _as_values(values)
    out = np.full(len(array), np.nan)
    compiled(_wilder_over)(array, _checked_period(period), out)
    return out


def rsi(close: ArrayLike, period: int = 14) -> FloatArray:
    """Return the relative strength index of Wilder.

    Parameters
    ----------
    close : array of shape (n,)
        Prices, oldest first.
    period : int
        >= 1.

    Returns
    -------
    ndarray of shape (n,)
        In [0, 100]; NaN before row `period`; 50 without any change, 100 without a loss. Row t uses rows 0..t.

    Raises
    ------
    ValueError
        If the period is below 1 or the prices are not one row.

    Source: Wilder, "New Concepts in Technical Trading Systems", 1978.
    Example: [1, 4, 3], 2 -> [NaN, NaN, 75].
    """
    array = _as_values(close)
    out = np.full(len(array), np.nan)
    if len(array) > 1:
        change = np.diff(array)
        gains = wilder(np.maximum(change, 0.0), period)
        losses = wilder(np.maximum(-change, 0.0), period)
        total = gains + losses
        with np.errstate(invalid="ignore", divide="ignore"):
            out[1:] = np.where(total == 0.0, 50.0, 100.0 * gains / total)
    return out


def macd(
    close: ArrayLike, fast: int = 12, slow: int = 26, signal: int = 9
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the MACD line, its signal line and their difference.

    Parameters
    ----------
    close : array of shape (n,)
        Prices, oldest first.
    fast, slow, signal : int
        Periods of the three averages, >= 1.

    Returns
    -------
    tuple of ndarrays of shape (n,)
        EMA(fast) - EMA(slow), the EMA(signal) of that, and line - signal line; in quote. Row t uses rows 0..t.

    Raises
    ------
    ValueError
        If a period is below 1 or the prices are not one row.

    Source: Appel, "Technical Analysis: Power Tools for Active Investors", 2005.
    Example: one price alone -> 0, 0, 0.
    """
    line = ema(close, fast) - ema(close, slow)
    smooth = ema(line, signal)
    return line, smooth, line - smooth


def rolling_statistics(values: ArrayLike, period: int) -> tuple[FloatArray, FloatArray]:
    """Return mean and sample deviation of the last `period` values, this one included.

    Parameters
    ----------
    values : array of shape (n,)
        Any unit, oldest first.
    period : int
        >= 2.

    Returns
    -------
    tuple of ndarrays of shape (n,)
        NaN before row period - 1; within 1e-12 relative of the exact window's; equal values give a deviation of 0.
        Row t uses rows t-period+1..t. A NaN stays for at most twice the period.

    Raises
    ------
    ValueError
        If the period is below 2 or the values are not one row.

    Source: Chan, Golub & LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
    Example: [1, 2, 3], 3 -> mean 2, deviation 1 in the last row.
    """
    array = _as_values(values)
    window = np.zeros(rolling_room(_checked_period(period, 2)))
    means, deviations = np.full(len(array), np.nan), np.full(len(array), np.nan)
    compiled(_rolling_over)(array, int(period), window, means, deviations)
    return means, deviations


def bollinger_bands(
    close: ArrayLike, period: int = 20, num_std: float = 2.0
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return lower band, mean and upper band: the mean of `period` closes and `num_std` sample deviations around it.

    Parameters
    ----------
    close : array of shape (n,)
        Prices, oldest first.
    period : int
        >= 2.
    num_std : float
        Width of a band in sample deviations.

    Returns
    -------
    tuple of ndarrays of shape (n,)
        In quote; NaN before row period - 1. Row t uses rows t-period+1..t.

    Raises
    ------
    ValueError
        If the period is below 2 or the prices are not one row.

    Source: Bollinger, "Bollinger on Bollinger Bands", 2001 (with the sample deviation).
    Example: [1, 2, 3], 3, 2 -> 0, 2, 4 in the last row.
    """
    means, deviations = rolling_statistics(close, period)
    return means - num_std * deviations, means, means + num_std * deviations


def vwap(open_times: ArrayLike, prices: ArrayLike, volumes: ArrayLike, anchor: int = 0) -> FloatArray:
    """Return the volume-weighted average price since the beginning of each anchor period.

    Parameters
    ----------
    open_times : array of shape (n,)
        Milliseconds since 1970-01-01 UTC, oldest first.
    prices, volumes : arrays of shape (n,)
        Typical prices in quote and volumes in base units.
    anchor : int
        0 day, 1 week from Monday, 2 month, 3 none.

    Returns
    -------
    ndarray of shape (n,)
        In quote; NaN while nothing was traded. Row t uses rows of its own anchor period up to t.

    Raises
    ------
    ValueError
        If the lengths differ.

    Source: Berkowitz, Logue & Noser, "The Total Cost of Transactions on the NYSE", 1988.
    Example: prices [10, 20], volumes [1, 3], one day -> [10, 17.5].
    """
    times = np.ascontiguousarray(open_times, dtype=np.int64)
    price, volume = _as_values(prices), _as_values(volumes)
    if not len(times) == len(price) == len(volume):
        raise ValueError(f"open_times, prices and volumes differ in length: {len(times)}, {len(price)}, {len(volume)}")
    out = np.full(len(price), np.nan)
    if len(price):
        compiled(_vwap_over)(times, price, volume, int(anchor), out)
    return out


def volume_profile(
    lows: ArrayLike, highs: ArrayLike, volumes: ArrayLike, num_bins: int = 50, value_area_pct: float = 0.7
) -> tuple[FloatArray, float, float, float] | None:
    """Return the profile of some candles: volume a bin, low of the value area, point of control, high of the area.

    Parameters
    ----------
    lows, highs, volumes : arrays of shape (n,)
        The candles, in any order; volume is spread evenly over each candle's own low..high.
    num_bins : int
        >= 1 equal bins [low, high) over the whole range, the top one closed.
    value_area_pct : float
        What the value area must hold of the volume, in (0, 1].

    Returns
    -------
    tuple, or None
        Volumes of shape (num_bins,) in base units, then three prices; None while the range or the volume is 0.

    Raises
    ------
    ValueError
        If `num_bins` is below 1.

    Source: Steidlmayer & Hawkins, "Steidlmayer on Markets", 2003.
    Example: one candle from 0 to 4 with volume 4 in 4 bins -> [1, 1, 1, 1].
    """
    low, high, volume = _as_values(lows), _as_values(highs), _as_values(volumes)
    count, bin_count = len(volume), _checked_period(num_bins)
    if not count:
        return None
    states = step_record(profile_fields(count, bin_count))
    if not compiled(_profile_over)(states, low, high, volume, bin_count, value_area_pct):
        return None
    state = states[0]
    area = (float(state["value_low"]), float(state["point_of_control"]), float(state["value_high"]))
    return state["bins"][:bin_count].copy(), *area

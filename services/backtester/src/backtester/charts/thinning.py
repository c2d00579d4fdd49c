"""Fewer points with the same picture: every peak and every trough of the whole stays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtester.data import CandleData
from shared.domain.performance import EquityCurve, FloatArray, IntArray

_MINUTE_MS = 60_000
# lengths of a drawn candle, in minutes: those that people know
_LENGTHS = (1, 3, 5, 15, 30, 60, 120, 240, 360, 480, 720, 1_440, 4_320, 10_080, 20_160, 40_320)


class DrawnCandles(NamedTuple):
    """Candles of one drawn length; `step_ms` is that length."""

    step_ms: int
    time_ms: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray


def thin(curve: EquityCurve, groups_max: int) -> EquityCurve:
    """Return a curve of at most `2 x groups_max + 2` points.

    Parameters
    ----------
    curve : EquityCurve
        Oldest first, finite.
    groups_max : int
        Runs of neighbouring points, each drawn by its lowest and its highest, >= 1.

    Returns
    -------
    EquityCurve
        A part of the points, the first and the last among them, in their order. Short curves are returned whole.

    Example: 1..9 in 3 groups -> 1, 3, 4, 6, 7, 9.
    """
    count = len(curve.value)
    if count <= 2 * groups_max + 2:
        return curve
    size = -(-count // groups_max)
    groups = -(-count // size)
    padded = np.concatenate((curve.value, np.full(groups * size - count, curve.value[-1]))).reshape(groups, size)
    starts = np.arange(groups) * size
    picked = np.concatenate((starts + padded.argmin(axis=1), starts + padded.argmax(axis=1), [0, count - 1]))
    rows = np.unique(np.minimum(picked, count - 1))
    return EquityCurve(curve.time_ms[rows], curve.value[rows])


def draw_candles(data: CandleData, count_max: int) -> DrawnCandles:
    """Return the candles, put together to the shortest known length of which there are at most `count_max`.

    Parameters
    ----------
    data : CandleData
        Oldest first.
    count_max : int
        >= 1.

    Returns
    -------
    DrawnCandles
        Each begins on the grid of its length (from 1970 UTC); a length without candles is left out. Highs and lows
        are those of the whole.

    Example: a day of one-minute candles, at most 300 -> 288 candles of 5 minutes.
    """
    span = int(data.open_time_ms[-1] - data.open_time_ms[0]) + data.timeframe_ms
    wanted = max(data.timeframe_ms, -(-span // count_max))
    step = next((length * _MINUTE_MS for length in _LENGTHS if length * _MINUTE_MS >= wanted), wanted)
    while True:
        slots = data.open_time_ms // step
        starts = np.flatnonzero(np.diff(slots, prepend=slots[0] - 1))
        if len(starts) <= count_max:
            break
        step *= 2
    ends = np.append(starts[1:], data.rows) - 1
    return DrawnCandles(
        step,
        slots[starts] * step,
        data.open[starts],
        np.maximum.reduceat(data.high, starts),
        np.minimum.reduceat(data.low, starts),
        data.close[ends],
    )

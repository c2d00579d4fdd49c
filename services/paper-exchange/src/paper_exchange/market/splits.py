"""The trades that a candle is made of: a path from open over both extremes to close, and a share of the volume each.

A candle says little about its trades, so these are invented: always the same ones for the same candle, whose first,
highest, lowest and last price and whose sum are the candle's. A candle without volume has none. A volume of a few
units of the last decimal is too small for seven trades: then only the last ones exist.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from paper_exchange.market.numbers import SCALE
from shared.candle_columns import CandleColumns

TRADES_A_CANDLE = 7
_WEIGHTS = np.array([3, 1, 2, 1, 2, 1, 2], dtype=np.int64)
_UNITS_MAX = 10**18

type IntArray = npt.NDArray[np.int64]
type BoolArray = npt.NDArray[np.bool_]


class Splits(NamedTuple):
    """Arrays of shape (candles, 7): units of price, units of quantity (0: no such trade), seller was the taker."""

    prices: IntArray
    quantities: IntArray
    sold: BoolArray


def quantity_scale(volume_max: float) -> int:
    """Return how many units make one base coin: 1e8, fewer where volumes are huge."""
    scale = SCALE
    while volume_max * scale > _UNITS_MAX and scale > 1:
        scale //= 10
    return scale


def price_tick(prices: npt.NDArray[np.float64]) -> int:
    """Return the tick, in units of the eighth decimal, on which all of `prices` lie."""
    for decimals in range(8):
        if bool((np.round(prices, decimals) == prices).all()):
            return int(10 ** (8 - decimals))
    return 1


def split_quantities(volume: npt.NDArray[np.float64], scale: int) -> IntArray:
    """Return each candle's volume in seven parts, whose sum is exactly the volume in units."""
    units = np.rint(volume * scale).astype(np.int64)
    parts = units[:, None] // int(_WEIGHTS.sum()) * _WEIGHTS
    parts[:, -1] += units - parts.sum(axis=1)
    return parts


def split_candles(columns: CandleColumns, tick: int, scale: int) -> Splits:
    """Return the trades of every candle of `columns`."""
    first, high, low, last = (
        np.rint(column * SCALE).astype(np.int64) for column in (columns.open, columns.high, columns.low, columns.close)
    )
    rising = last >= first
    early, late = np.where(rising, low, high), np.where(rising, high, low)
    path = [
        first,
        _middle(first, early, tick),
        early,
        _middle(early, late, tick),
        late,
        _middle(late, last, tick),
        last,
    ]
    prices = np.stack(path, axis=1)
    moves = np.diff(prices, axis=1)
    sold = np.empty(prices.shape, dtype=np.bool_)
    sold[:, 0] = ~rising
    for place in range(1, TRADES_A_CANDLE):
        move = moves[:, place - 1]
        sold[:, place] = np.where(move == 0, sold[:, place - 1], move < 0)
    return Splits(prices, split_quantities(columns.volume, scale), sold)


def _middle(one: IntArray, other: IntArray, tick: int) -> IntArray:
    lower, upper = np.minimum(one, other), np.maximum(one, other)
    middle: IntArray = lower + (upper - lower) // 2 // tick * tick
    return middle

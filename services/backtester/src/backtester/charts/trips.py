"""What happened between entry and exit of each closed pair, and pairs in groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backtester.data import CandleData
from shared.domain.performance import FloatArray, IntArray
from shared.domain.trade_records import TradePair
from shared.models import to_milliseconds

_MINUTE_MS = 60_000
HOLDING_EDGES = (0, 5, 15, 60, 240, 720, 1_440, 4_320, 10_080, 43_200)  # minutes
HOLDING_NAMES = ("< 5 min", "5-15 min", "15-60 min", "1-4 h", "4-12 h", "12-24 h", "1-3 d", "3-7 d", "7-30 d", "> 30 d")
SIZE_GROUPS = 8


class PairColumns(NamedTuple):
    """Closed pairs as arrays, in the order of their exits; returns, worst and best moves in percent of the entry."""

    entry_ms: IntArray
    exit_ms: IntArray
    entry_price: FloatArray
    exit_price: FloatArray
    quantity: FloatArray
    pnl: FloatArray
    pnl_pct: FloatArray
    fees: FloatArray

    @classmethod
    def of(cls, pairs: Sequence[TradePair]) -> PairColumns:
        """Return the columns of `pairs`."""

        def numbers(name: str) -> FloatArray:
            return np.array([float(getattr(pair, name)) for pair in pairs], dtype=np.float64)

        def moments(name: str) -> IntArray:
            return np.array([to_milliseconds(getattr(pair, name)) for pair in pairs], dtype=np.int64)

        names = ("entry_price", "exit_price", "quantity", "pnl", "pnl_pct", "fees")
        return cls(moments("entry_time"), moments("exit_time"), *(numbers(name) for name in names))


class Excursions(NamedTuple):
    """The furthest that a price went against and for each pair, in percent of its entry price, both >= 0."""

    adverse: FloatArray
    favourable: FloatArray


class Group(NamedTuple):
    """Pairs that have something in common."""

    name: str
    trips: int
    wins: int
    pnl: float
    fees: float


def excursions(
    pairs: PairColumns, data: CandleData, *, ended_inside: npt.NDArray[np.bool_] | None = None
) -> Excursions:
    """Return how far the price went against and for each pair while it was held.

    Parameters
    ----------
    pairs : PairColumns
        Their fills lie within `data`.
    data : CandleData
        The candles that were traded.
    ended_inside : ndarray of bool, shape (n_pairs,), optional
        Whether a pair was closed within the candle that ends at its exit (a stop, a target), not at the candle's edge.

    Returns
    -------
    Excursions
        Highs and lows of the candles from the entry's time up to the exit's, and the exit's price. A candle in which
        a stop or a target was hit counts with that price alone: what came before it and what after is not known.

    Source: Sweeney, "Maximum Adverse Excursion", Wiley 1997.
    Example: in at 100, lows 98 and 97, highs 101 and 103, out at 102 -> adverse 3, favourable 3.
    """
    first = np.searchsorted(data.open_time_ms, pairs.entry_ms)
    last = np.searchsorted(data.open_time_ms, pairs.exit_ms) - (0 if ended_inside is None else ended_inside)
    lived = last > first
    lowest, highest = np.minimum(pairs.entry_price, pairs.exit_price), np.maximum(pairs.entry_price, pairs.exit_price)
    if lived.any():
        edges = np.column_stack((first[lived], last[lived])).ravel()
        # one more row, so that a window may end with the last candle
        low = np.minimum.reduceat(np.append(data.low, np.inf), edges)[::2]
        high = np.maximum.reduceat(np.append(data.high, -np.inf), edges)[::2]
        lowest[lived], highest[lived] = np.minimum(lowest[lived], low), np.maximum(highest[lived], high)
    return Excursions(100 * (1 - lowest / pairs.entry_price), 100 * (highest / pairs.entry_price - 1))


def by_hour(pairs: PairColumns) -> list[Group]:
    """Return the pairs by the UTC hour of their entry, all 24."""
    hours = pairs.entry_ms // (60 * _MINUTE_MS) % 24
    return [_group(f"{hour:02d}", pairs, hours == hour) for hour in range(24)]


def by_holding_time(pairs: PairColumns) -> list[Group]:
    """Return the pairs by how long they were held, from the shortest to the longest that occurs."""
    minutes = (pairs.exit_ms - pairs.entry_ms) / _MINUTE_MS
    place = np.searchsorted(HOLDING_EDGES, minutes, side="right") - 1
    groups = [_group(name, pairs, place == number) for number, name in enumerate(HOLDING_NAMES)]
    used = [number for number, group in enumerate(groups) if group.trips]
    return groups[used[0] : used[-1] + 1] if used else []


def by_size(pairs: PairColumns) -> list[Group]:
    """Return the pairs by what their entry cost, in equal steps; one group where all cost the same."""
    costs = pairs.entry_price * pairs.quantity
    if len(costs) == 0:
        return []
    low, high = float(costs.min()), float(costs.max())
    if high <= low * 1.000001:
        return [_group(_short(low), pairs, np.ones(len(costs), dtype=np.bool_))]
    edges = np.linspace(low, high, SIZE_GROUPS + 1)
    place = np.clip(np.searchsorted(edges, costs, side="right") - 1, 0, SIZE_GROUPS - 1)
    names = [f"{_short(edges[n])} to {_short(edges[n + 1])}" for n in range(SIZE_GROUPS)]
    return [_group(name, pairs, place == number) for number, name in enumerate(names)]


def _group(name: str, pairs: PairColumns, chosen: npt.NDArray[np.bool_]) -> Group:
    pnl = pairs.pnl[chosen]
    return Group(name, len(pnl), int((pnl > 0).sum()), float(pnl.sum()), float(pairs.fees[chosen].sum()))


def _short(amount: float) -> str:
    return f"{amount:,.0f}" if abs(amount) >= 100 else f"{amount:.4g}"

"""How much of the market a run was: its fills beside the volume that candles usually had."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backtester.data import CandleData
from shared.domain.matching import TAKE_PROFIT
from shared.domain.performance import FloatArray
from shared.domain.slippage import PARTICIPATION_MAX, VOLUME_WINDOW
from shared.domain.trade_records import TradeRecord
from shared.models import to_milliseconds

PROTECTIVE = frozenset({"stop_loss", "trailing_stop", TAKE_PROFIT})  # exits within a candle, timed at its close


def largest_participation(trades: Sequence[TradeRecord], data: CandleData) -> float | None:
    """Return the largest fill as a multiple of the usual volume of a candle.

    Parameters
    ----------
    trades : sequence of TradeRecord
        Fills in `data`'s symbol, in any order.
    data : CandleData
        The candles that were traded.

    Returns
    -------
    float or None
        Quantity over the median volume of the last 20 candles that had closed before the fill (of fewer where the run
        is younger), at most 100, which also stands for a market without volume; None without fills.

    Example: 2 bought where the candles before traded 10, 40 and 20 -> 0.1.
    """
    if not trades:
        return None
    moments = np.array([to_milliseconds(trade.time) for trade in trades], dtype=np.int64)
    inside = np.array([trade.reason in PROTECTIVE for trade in trades], dtype=np.int64)
    quantities = np.array([float(trade.quantity) for trade in trades])
    closed = np.searchsorted(data.open_time_ms, moments) - inside
    usual = _medians(data.volume, closed)
    most = float(PARTICIPATION_MAX)
    shares = np.divide(quantities, usual, out=np.full(len(trades), most), where=usual > 0)
    return float(min(shares.max(), most))


def _medians(volume: FloatArray, closed: np.ndarray[tuple[int], np.dtype[np.int64]]) -> FloatArray:
    """Return the median of the last volumes before each row; 0 where there are none."""
    rows, places = np.unique(np.maximum(closed, 0), return_inverse=True)
    medians = np.zeros(len(rows))
    full = rows >= VOLUME_WINDOW
    medians[full] = np.median(volume[rows[full, None] - 1 - np.arange(VOLUME_WINDOW)], axis=1)
    for place in np.flatnonzero(~full & (rows > 0)):
        medians[place] = np.median(volume[: rows[place]])
    return np.asarray(medians[places])

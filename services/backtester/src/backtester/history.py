"""How much of the candles before a run's window a strategy is fed, so that it may speak in it."""

from __future__ import annotations

import numpy as np

from backtester.data import CandleData
from shared.models import to_milliseconds
from shared.strategy import BaseStrategy


def history_start(strategy: BaseStrategy, data: CandleData) -> int | None:
    """Return the row of the data's history from which on the strategy must be fed; None where there is no history."""
    past = data.history
    if past is None:
        return None
    wanted = strategy.history(data.first)
    first = int(np.searchsorted(past.open_time_ms, to_milliseconds(wanted.start(data.first, data.timeframe))))
    first = min(first, past.rows - wanted.candles)  # holes count for nothing: it needs so many candles
    return max(0, first)

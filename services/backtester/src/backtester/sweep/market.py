"""The candles that a sweep runs over, as its loops take them, and the same market shuffled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backtester.compiled.run import candle_arrays
from backtester.data import CandleData
from shared.domain.slippage import VOLUME_WINDOW

DAY_MS = 86_400_000

type IntArray = npt.NDArray[np.int64]
type Columns = tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True, slots=True)
class SweepMarket:
    """Columns (open_time, open, high, low, close, volume), and the row of the last candle of each UTC day.

    `close_times` are those candles' close times; `history` are the candles before the window, fed and not traded.
    `volumes` are those of the last few candles of history, then the window's.
    """

    columns: Columns
    day_rows: IntArray
    close_times: IntArray
    history: Columns | None
    volumes: npt.NDArray[np.float64]
    source: CandleData

    @property
    def rows(self) -> int:
        """Return how many candles there are."""
        return len(self.columns[0])

    def known_after(self, fed: int) -> Columns:
        """Return the columns as an account knows them whose strategy was fed so many candles of history.

        Its volumes begin with theirs, as far as they matter to its fills.
        """
        unknown = len(self.volumes) - self.rows - fed
        return *self.columns[:-1], self.volumes[max(0, unknown) :]


def sweep_market(data: CandleData) -> SweepMarket:
    """Return the market of loaded candles."""
    columns = candle_arrays(data)
    close_times = data.open_time_ms + data.timeframe_ms
    day = (close_times - 1) // DAY_MS  # a close at exactly 00:00 belongs to the day that ends
    day_rows = np.flatnonzero(np.append(np.diff(day) > 0, True)).astype(np.int64)
    past = None if data.history is None else candle_arrays(data.history)
    return SweepMarket(
        columns=columns,
        day_rows=day_rows,
        close_times=close_times[day_rows],
        history=past,
        volumes=_volumes(past, columns),
        source=data,
    )


def shuffled(market: SweepMarket, seed: int) -> SweepMarket:
    """Return the market with its candles' relative moves in another order.

    Parameters
    ----------
    market : SweepMarket
        The market as it was.
    seed : int
        Of the generator; equal seeds give equal markets.

    Returns
    -------
    SweepMarket
        The first candle stays, and so do all times (holes too). Each later candle takes the whole move of another one:
        the gap from the close before to its open, its high, low and close relative to its open, and its volume. So
        every candle is a valid one, every move occurs exactly as often, volatility and drift are the same, and what
        followed what is chance. The last close is the market's own; only rounding is undone there. History, which is
        fed and never traded, stays.

    Example: closes 100, 110, 99 with moves +10 % and -10 % -> 100, 110, 99 or 100, 90, 99.
    """
    times, open_, high, low, close, volume = market.columns
    if len(times) < 3:
        return market
    order = 1 + np.random.default_rng(seed).permutation(len(times) - 1)
    gap = (open_[1:] / close[:-1])[order - 1]
    rise, fall, move = ((column / open_)[order] for column in (high, low, close))
    closes = close[0] * np.cumprod(np.concatenate(([1.0], gap * move)))
    opens = np.concatenate((open_[:1], closes[:-1] * gap))
    closes[-1] = close[-1]
    bodies = np.maximum(opens, closes), np.minimum(opens, closes)
    highs = np.maximum(np.concatenate((high[:1], opens[1:] * rise)), bodies[0])
    lows = np.minimum(np.concatenate((low[:1], opens[1:] * fall)), bodies[1])
    volumes = np.concatenate((volume[:1], volume[order]))
    columns = tuple(_frozen(column) for column in (times, opens, highs, lows, closes, volumes))
    return SweepMarket(
        columns=columns,
        day_rows=market.day_rows,
        close_times=market.close_times,
        history=market.history,
        volumes=_volumes(market.history, columns),
        source=market.source,
    )


def _volumes(history: Columns | None, columns: Columns) -> npt.NDArray[np.float64]:
    own: npt.NDArray[np.float64] = columns[-1]
    return own if history is None else _frozen(np.concatenate((history[-1][-VOLUME_WINDOW:], own)))


def _frozen(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = np.ascontiguousarray(column).view()
    view.flags.writeable = False
    return view

"""Finer candles of the same symbol: which of a stop and a target, both reached in one candle, came first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from backtester.data import AGREEMENT, CandleData
from backtester.wording import counted
from shared.candle_files import CandleFile, IntArray, finest_timeframe, read_candle_file
from shared.errors import ConfigError
from shared.models import TIMEFRAME_SECONDS, Candle, from_milliseconds, to_milliseconds


class DetailCandles:
    """The finer candles of a run's candles; `usable` says for each of these whether its finer ones give its range."""

    def __init__(self, fine: CandleFile, coarse: CandleData) -> None:
        self.fine = fine
        self._times = coarse.open_time_ms
        self._begins, self._ends = _spans(fine, coarse)
        self.usable = _usable(fine, coarse, self._begins, self._ends)

    def __call__(self, candle: Candle) -> Sequence[Candle]:
        """Return the finer candles of one of the run's, oldest first; none where they do not show its range."""
        row = int(np.searchsorted(self._times, to_milliseconds(candle.open_time)))
        if not self.usable[row]:
            return ()
        return list(self.fine.candles(int(self._begins[row]), int(self._ends[row])))

    @property
    def note(self) -> str:
        """Return one sentence about them for the report."""
        lacking = len(self.usable) - int(self.usable.sum())
        words = f"detail: {self.fine.path}, {counted(self.fine.rows, f'{self.fine.timeframe} candle')}"
        return f"{words}; {lacking:,} candle(s) lack their finer ones and count the stop" if lacking else words


def load_detail(path: Path, coarse: CandleData) -> DetailCandles:
    """Return the finer candles in a file, checked against the run's: finer, nested, covering, of the same market.

    Raises
    ------
    ConfigError
        The timeframe does not divide the run's, the file does not cover the run, a finer candle goes beyond the
        candle it is part of, or a whole set of them does not add up to it.
    MarketDataError
        The file's content is wrong in itself, as `read_candle_file` says.
    """
    timeframe = finest_timeframe(path)
    width, finer = TIMEFRAME_SECONDS[coarse.timeframe], TIMEFRAME_SECONDS[timeframe]
    if finer >= width or width % finer:
        raise ConfigError(
            f"detail: {path} holds {timeframe} candles, the run's are {coarse.timeframe}; "
            "give finer ones whose length divides it"
        )
    fine = read_candle_file(path, symbol=coarse.symbol, timeframe=timeframe)
    end, needed = int(fine.open_time_ms[-1]) + finer * 1000, int(coarse.open_time_ms[-1]) + width * 1000
    if fine.first > coarse.first or end < needed:
        raise ConfigError(
            f"detail: {path} covers {fine.first:%Y-%m-%d %H:%M} to {from_milliseconds(end):%Y-%m-%d %H:%M} UTC, "
            f"the run needs {coarse.first:%Y-%m-%d %H:%M} to {from_milliseconds(needed):%Y-%m-%d %H:%M}; "
            "give a longer file or a shorter run"
        )
    return DetailCandles(fine, coarse)


def _spans(fine: CandleFile, coarse: CandleData) -> tuple[IntArray, IntArray]:
    begins = np.searchsorted(fine.open_time_ms, coarse.open_time_ms)
    ends = np.searchsorted(fine.open_time_ms, coarse.open_time_ms + coarse.timeframe_ms)
    return begins.astype(np.int64), ends.astype(np.int64)


def _usable(fine: CandleFile, coarse: CandleData, begins: IntArray, ends: IntArray) -> npt.NDArray[np.bool_]:
    usable = np.zeros(coarse.rows, dtype=np.bool_)
    rows = np.flatnonzero(ends > begins)
    if not len(rows):
        return usable
    bounds = np.stack((begins[rows], ends[rows]), axis=1).ravel()
    high = np.maximum.reduceat(np.append(fine.high, -np.inf), bounds)[::2]
    low = np.minimum.reduceat(np.append(fine.low, np.inf), bounds)[::2]
    spread = AGREEMENT * coarse.high[rows]
    outside = (high > coarse.high[rows] + spread) | (low < coarse.low[rows] - spread)
    _refuse(fine, coarse, rows[outside], "goes beyond it")
    same_range = (high >= coarse.high[rows] - spread) & (low <= coarse.low[rows] + spread)
    opens, closes = fine.open[begins[rows]], fine.close[ends[rows] - 1]
    same_ends = (abs(opens - coarse.open[rows]) <= spread) & (abs(closes - coarse.close[rows]) <= spread)
    is_whole = (ends - begins)[rows] == coarse.timeframe_ms // fine.timeframe_ms
    _refuse(fine, coarse, rows[is_whole & ~(same_range & same_ends)], "does not add up to it")
    usable[rows] = same_range
    return usable


def _refuse(fine: CandleFile, coarse: CandleData, rows: IntArray, fault: str) -> None:
    if len(rows):
        moment = from_milliseconds(int(coarse.open_time_ms[rows[0]]))
        raise ConfigError(
            f"detail: {fine.path}: what it has of the {coarse.timeframe} candle {moment:%Y-%m-%d %H:%M} UTC {fault} "
            f"({counted(len(rows), 'such candle')}); both files must be of one market"
        )

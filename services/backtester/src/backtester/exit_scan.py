"""Where a protective order may be touched next: looked for on arrays, decided by the venue."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import numpy as np

from shared.domain.book import SubAccount
from shared.domain.performance import FloatArray
from shared.domain.rounding import sellable_quantity
from shared.models import Candle

# how much nearer than it is a price is taken for: far above float64's rounding, far below any tick
SLACK = 1e-12
WINDOW_ROWS_MIN, WINDOW_ROWS_MAX = 64, 65_536


def float_column(candles: Sequence[Candle], name: str) -> FloatArray:
    """Return one number of every candle as float64, shape (n,); a signalling NaN, which no float is, as NaN."""
    values = list(map(attrgetter(name), candles))
    try:
        return np.fromiter(map(float, values), dtype=np.float64, count=len(values))
    except ValueError:
        finite = (float(value) if value.is_finite() else np.nan for value in values)
        return np.fromiter(finite, dtype=np.float64, count=len(values))


class ExitScan:
    """Passes over the candles of one stream between two events, as long as no exit of its sub-account is in reach."""

    def __init__(self, candles: Sequence[Candle], account: SubAccount) -> None:
        self._candles = candles
        self._account = account
        self._lows: FloatArray = np.empty(len(candles))
        self._highs: FloatArray = np.empty(len(candles))

    def take(self, begin: int, chunk: Sequence[Candle]) -> None:
        """Take the candles from number `begin` on; only what was taken can be passed over."""
        self._lows[begin : begin + len(chunk)] = float_column(chunk, "low")
        self._highs[begin : begin + len(chunk)] = float_column(chunk, "high")

    def next_touch(self, begin: int, end: int) -> int:
        """Return the first candle of [begin, end) that may touch an exit, else `end`.

        The trailing stop's peak is that of the candles before the one returned.
        """
        account = self._account
        if not sellable_quantity(account.holding.quantity, account.rules.instrument.step_size):
            return end  # dust: no price would sell it
        rows = WINDOW_ROWS_MIN
        while begin < end:
            until = min(end, begin + rows)
            near = self._near(begin, until)
            place = int(near.argmax())
            if near[place]:
                self._raise_peak(begin, begin + place)
                return begin + place
            self._raise_peak(begin, until)
            begin, rows = until, min(4 * rows, WINDOW_ROWS_MAX)
        return end

    def _near(self, begin: int, until: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        account, lows, highs = self._account, self._lows[begin:until], self._highs[begin:until]
        stop, target = account.stop_price, account.target_price
        near = np.zeros(until - begin, dtype=np.bool_)
        if stop is not None:
            near |= lows <= float(stop) * (1 + SLACK)
        if target is not None:
            near |= highs >= float(target) * (1 - SLACK)
        if account.rules.trailing_pct > 0:
            peaks = np.fmax.accumulate(np.concatenate(([float(account.high_water_price)], highs[:-1])))
            near |= lows <= peaks * (1 - float(account.rules.trailing_pct) / 100) * (1 + SLACK)
        return near

    def _raise_peak(self, begin: int, until: int) -> None:
        account = self._account
        if not (account.rules.trailing_pct > 0 and account.holding.entries and begin < until):
            return
        highs = self._highs[begin:until]
        highest = np.fmax.reduce(highs)
        if highest >= float(account.high_water_price):
            tops = (self._candles[begin + int(place)].high for place in np.flatnonzero(highs == highest))
            account.high_water_price = max(account.high_water_price, *tops)

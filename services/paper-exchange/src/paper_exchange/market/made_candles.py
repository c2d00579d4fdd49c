"""Candles of a longer interval, made of the shorter ones of a tape as these close."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from paper_exchange.market.intervals import bucket
from paper_exchange.market.tape import CandleTape, Kline

DONE_MAX: Final = 300_000
_ROWS_AT_ONCE = 20_000
_EVER_MS = 2**62


class MadeCandles:
    """The candles of one interval: those that are over, and the one that grows. Nothing is made before it is asked for."""

    def __init__(self, interval: str, tape: CandleTape) -> None:
        self._interval, self._tape = interval, tape
        self._done: list[Kline] = []
        self._growing: Kline | None = None
        self._folded_ms = 0

    def growing(self, newest: Kline | None, now_ms: int) -> Kline | None:
        """Return the candle that is not over, `newest` put in: the tape's own forming row."""
        self._fold(now_ms)
        rows = [row for row in (self._growing, newest) if row is not None]
        return combine(rows, *bucket(self._interval, rows[-1].open_ms)) if rows else None

    def closed_at(self, close_ms: int) -> Kline | None:
        """Return the candle that is over at `close_ms`, None when it holds nothing."""
        self._fold(close_ms)
        return self._done[-1] if self._done and self._done[-1].close_ms == close_ms else None

    def between(self, since_ms: int, until_ms: int, now_ms: int) -> list[Kline]:
        """Return the candles that are over and open within [since_ms, until_ms)."""
        self._fold(now_ms)
        start = bisect_left(self._done, since_ms, key=lambda kline: kline.open_ms)
        stop = bisect_left(self._done, until_ms, key=lambda kline: kline.open_ms)
        return self._done[start:stop]

    def _fold(self, now_ms: int) -> None:
        """Put the rows closed since the last time into the growing candle, and end it when its time is over."""
        start, stop = self._tape.rows_between(self._folded_ms, _EVER_MS)
        for low in range(start, stop, _ROWS_AT_ONCE):
            for row in self._tape.klines(low, min(stop, low + _ROWS_AT_ONCE)):
                self._end(row.open_ms)
                parts = [row] if self._growing is None else [self._growing, row]
                self._growing = combine(parts, *bucket(self._interval, row.open_ms))
                self._folded_ms = row.close_ms
        self._end(now_ms)

    def _end(self, now_ms: int) -> None:
        if self._growing is None or self._growing.close_ms > now_ms:
            return
        self._done.append(self._growing)
        self._growing = None
        if len(self._done) > DONE_MAX:
            del self._done[: DONE_MAX // 10]


def combine(rows: Iterable[Kline], open_ms: int, close_ms: int) -> Kline:
    """Return the one candle that a run of candles makes."""
    parts = list(rows)
    traded = [row for row in parts if row.trades]
    return Kline(
        open_ms,
        close_ms,
        parts[0].open,
        max(row.high for row in parts),
        min(row.low for row in parts),
        parts[-1].close,
        round(sum(row.volume for row in parts), 8),
        round(sum(row.quote_volume for row in parts), 8),
        sum(row.trades for row in parts),
        round(sum(row.taker_base for row in parts), 8),
        round(sum(row.taker_quote for row in parts), 8),
        traded[0].first_id if traded else -1,
        traded[-1].last_id if traded else -1,
    )

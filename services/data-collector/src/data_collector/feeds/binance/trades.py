"""Candles made of single trades: the proof that a venue's candles are what its trades say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from data_collector.feeds.binance.frames import TradeFrame
from shared.models import TIMEFRAME_SECONDS, Candle, from_milliseconds


@dataclass(slots=True)
class _Forming:
    open_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    is_whole: bool


class TradeAggregator:
    """Builds the candles of one market from its trades.

    Parameters
    ----------
    symbol, timeframe : str
        Whose candles are built; trades of other markets are the caller's business.

    Notes
    -----
    A candle is given out once a trade of a later one has come, or `close_until` says so. The first candle is left
    out, as its beginning was not seen, and so is one inside which a trade id is missing. A period without a trade
    gives no candle: only the venue knows whether it was quiet or closed. Trades may repeat; ids say so.
    Example: trades at 10:00:59.9 and 10:01:00.1 close the candle of 10:00.
    """

    def __init__(self, symbol: str, timeframe: str) -> None:
        self._symbol, self._timeframe = symbol, timeframe
        self._step_ms = TIMEFRAME_SECONDS[timeframe] * 1000
        self._forming: _Forming | None = None
        self._last_id: int | None = None
        self.ids_missing = 0

    def add(self, trade: TradeFrame) -> Candle | None:
        """Take a trade; return the candle that it closes."""
        if self._last_id is not None and trade.trade_id <= self._last_id:
            return None
        missing = 0 if self._last_id is None else trade.trade_id - self._last_id - 1
        is_first = self._last_id is None
        self.ids_missing += missing
        self._last_id = trade.trade_id
        open_ms = trade.trade_ms - trade.trade_ms % self._step_ms
        forming = self._forming
        if forming is not None and forming.open_ms == open_ms:
            self._extend(forming, trade, is_whole=not missing)
            return None
        if forming is not None and missing:
            forming.is_whole = False  # what is missing may belong to either side of the border
        self._forming = _Forming(
            open_ms, trade.price, trade.price, trade.price, trade.price, trade.quantity, not (missing or is_first)
        )
        return self._candle(forming)

    def add_all(self, trades: Iterable[TradeFrame]) -> list[Candle]:
        """Take trades; return the candles that they close."""
        return [candle for trade in trades if (candle := self.add(trade)) is not None]

    def close_until(self, now_ms: int) -> Candle | None:
        """Return the forming candle if it has closed by `now_ms`, the venue's time."""
        forming = self._forming
        if forming is None or forming.open_ms + self._step_ms > now_ms:
            return None
        self._forming = None
        return self._candle(forming)

    def _extend(self, forming: _Forming, trade: TradeFrame, *, is_whole: bool) -> None:
        forming.high = max(forming.high, trade.price)
        forming.low = min(forming.low, trade.price)
        forming.close = trade.price
        forming.volume += trade.quantity
        forming.is_whole = forming.is_whole and is_whole

    def _candle(self, forming: _Forming | None) -> Candle | None:
        if forming is None or not forming.is_whole:
            return None
        return Candle(
            symbol=self._symbol,
            timeframe=self._timeframe,
            open_time=from_milliseconds(forming.open_ms),
            open=forming.open,
            high=forming.high,
            low=forming.low,
            close=forming.close,
            volume=forming.volume,
        )

"""The shared simulated market as streams of the collector."""

from __future__ import annotations

from data_collector.feeds.port import StreamKey
from data_collector.feeds.timeline import StreamColumns
from shared.candle_columns import CandleColumns
from shared.synthetic_market import DAY_MS, combine_minutes, usual_price
from shared.synthetic_market import SyntheticMarket as MinuteMarket

__all__ = ["DAY_MS", "SyntheticMarket", "aggregate_minutes", "usual_price"]


class SyntheticMarket:
    """One symbol's simulated minutes, a day at a time, in any order."""

    def __init__(self, symbol: str, seed: int) -> None:
        self._stream = StreamKey(symbol, "1m")
        self._market = MinuteMarket(symbol, seed)

    def minutes(self, day: int) -> StreamColumns:
        """Return the minutes of day number `day` since 1970, those of a gap left out."""
        return StreamColumns(self._stream, *self._market.minutes(day))


def aggregate_minutes(day: StreamColumns, timeframe: str) -> StreamColumns:
    """Return one day's candles of `timeframe`, made of that day's minutes."""
    minutes = CandleColumns(day.open_time_ms, day.open, day.high, day.low, day.close, day.volume)
    return StreamColumns(StreamKey(day.stream.symbol, timeframe), *combine_minutes(minutes, timeframe))

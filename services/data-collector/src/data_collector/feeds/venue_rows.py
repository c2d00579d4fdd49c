"""Rows of a venue's history, [open time in ms, open, high, low, close, volume, ...], as candles."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from data_collector.feeds.port import StreamKey
from shared.models import Candle, from_milliseconds


def candle_of_row(stream: StreamKey, row: Sequence[Any]) -> Candle:
    """Return the candle of one row; what is no number becomes NaN, which the validation refuses by name."""
    first, high, low, close, volume = (number_of(value) for value in row[1:6])
    return Candle(
        symbol=stream.symbol,
        timeframe=stream.timeframe,
        open_time=from_milliseconds(int(row[0])),
        open=first,
        high=high,
        low=low,
        close=close,
        volume=volume,
    )


def number_of(value: Any) -> Decimal:
    """Return a venue's text or number as a Decimal, NaN where it is neither."""
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return Decimal("NaN")

"""The events of the market streams, field by field; times are in ticks, `ticks_a_ms` of them a millisecond."""

from __future__ import annotations

from typing import Any

from paper_exchange.market.intervals import plain
from paper_exchange.market.numbers import number_text, units_text
from paper_exchange.market.tape import Kline, Trade


def kline_event(symbol: str, interval: str, kline: Kline, is_closed: bool, event_ms: int, ticks: int) -> dict[str, Any]:
    """Return the event of a candle as it stands."""
    return {
        "e": "kline",
        "E": event_ms * ticks,
        "s": symbol,
        "k": {
            "t": kline.open_ms * ticks,
            "T": kline.close_ms * ticks - 1,
            "s": symbol,
            "i": plain(interval),
            "f": kline.first_id,
            "L": kline.last_id,
            "o": number_text(kline.open),
            "c": number_text(kline.close),
            "h": number_text(kline.high),
            "l": number_text(kline.low),
            "v": number_text(kline.volume),
            "n": kline.trades,
            "x": is_closed,
            "q": number_text(kline.quote_volume),
            "V": number_text(kline.taker_base),
            "Q": number_text(kline.taker_quote),
            "B": "0",
        },
    }


def trade_event(symbol: str, trade: Trade, scale: int, event_ms: int, ticks: int) -> dict[str, Any]:
    """Return the event of one execution."""
    return {
        "e": "trade",
        "E": event_ms * ticks,
        "s": symbol,
        "t": trade.id,
        "p": units_text(trade.price),
        "q": units_text(trade.quantity, scale),
        "T": trade.at_ms * ticks,
        "m": trade.buyer_is_maker,
        "M": True,
    }


def aggregate_trade_event(symbol: str, trade: Trade, scale: int, event_ms: int, ticks: int) -> dict[str, Any]:
    """Return the event of an aggregate: here every trade is one of its own."""
    return {
        "e": "aggTrade",
        "E": event_ms * ticks,
        "s": symbol,
        "a": trade.id,
        "p": units_text(trade.price),
        "q": units_text(trade.quantity, scale),
        "f": trade.id,
        "l": trade.id,
        "T": trade.at_ms * ticks,
        "m": trade.buyer_is_maker,
        "M": True,
    }

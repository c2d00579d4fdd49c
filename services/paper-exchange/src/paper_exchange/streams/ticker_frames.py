"""The events of the last day."""

from __future__ import annotations

from typing import Any

from paper_exchange.market.intervals import DAY_MS
from paper_exchange.market.numbers import units_text
from paper_exchange.market.symbol_market import SymbolMarket
from paper_exchange.market.tickers import AVERAGE_MINUTES, average_price, day_ticker, price_text, top_of_book


def mini_ticker_event(market: SymbolMarket, event_ms: int, ticks: int) -> dict[str, Any]:
    """Return the few figures of the last 24 hours."""
    day = day_ticker(market)
    return {
        "e": "24hrMiniTicker",
        "E": event_ms * ticks,
        "s": market.venue_symbol,
        "c": day.last,
        "o": day.open,
        "h": day.high,
        "l": day.low,
        "v": day.volume,
        "q": day.quote_volume,
    }


def ticker_event(market: SymbolMarket, event_ms: int, ticks: int) -> dict[str, Any]:
    """Return all figures of the last 24 hours."""
    day, trade = day_ticker(market), market.last_trade()
    top = top_of_book(market, trade)
    return {
        "e": "24hrTicker",
        "E": event_ms * ticks,
        "s": market.venue_symbol,
        "p": day.change,
        "P": day.change_percent,
        "w": day.average,
        "x": day.previous_close,
        "c": day.last,
        "Q": units_text(trade.quantity, market.base.scale),
        "b": top.bid_price,
        "B": top.bid_quantity,
        "a": top.ask_price,
        "A": top.ask_quantity,
        "o": day.open,
        "h": day.high,
        "l": day.low,
        "v": day.volume,
        "q": day.quote_volume,
        "O": (trade.at_ms - DAY_MS) * ticks,
        "C": trade.at_ms * ticks,
        "F": day.first_id,
        "L": day.last_id,
        "n": day.trades,
    }


def average_price_event(market: SymbolMarket, event_ms: int, ticks: int) -> dict[str, Any]:
    """Return the mean price of the last minutes."""
    return {
        "e": "avgPrice",
        "E": event_ms * ticks,
        "s": market.venue_symbol,
        "i": f"{AVERAGE_MINUTES}m",
        "w": price_text(average_price(market)),
        "T": market.last_trade().at_ms * ticks,
    }

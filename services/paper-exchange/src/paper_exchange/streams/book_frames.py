"""The events of the book."""

from __future__ import annotations

from typing import Any

from paper_exchange.market.numbers import units_text
from paper_exchange.market.order_book import Level, OrderBook, changed_levels
from paper_exchange.market.symbol_market import SymbolMarket
from paper_exchange.market.tape import Trade
from paper_exchange.market.tickers import top_of_book


def book_ticker_event(market: SymbolMarket, trade: Trade, ticks: int) -> dict[str, Any]:  # noqa: ARG001 - has no time
    """Return the best bid and ask after a trade."""
    top = top_of_book(market, trade)
    return {
        "u": top.update_id,
        "s": market.venue_symbol,
        "b": top.bid_price,
        "B": top.bid_quantity,
        "a": top.ask_price,
        "A": top.ask_quantity,
    }


def depth_event(market: SymbolMarket, before: OrderBook, after: OrderBook, event_ms: int, ticks: int) -> dict[str, Any]:
    """Return what changed in the book; the update after the one whose `u` was the book's id before."""
    scale = market.base.scale
    return {
        "e": "depthUpdate",
        "E": event_ms * ticks,
        "s": market.venue_symbol,
        "U": before.update_id + 1,
        "u": after.update_id,
        "b": _texts(changed_levels(before.bids, after.bids), scale),
        "a": _texts(changed_levels(before.asks, after.asks), scale),
    }


def partial_depth_event(market: SymbolMarket, book: OrderBook, levels: int, ticks: int) -> dict[str, Any]:  # noqa: ARG001 - has no time
    """Return the best levels of the book."""
    scale = market.base.scale
    return {
        "lastUpdateId": book.update_id,
        "bids": _texts(list(book.bids[:levels]), scale),
        "asks": _texts(list(book.asks[:levels]), scale),
    }


def _texts(levels: list[Level], scale: int) -> list[list[str]]:
    return [[units_text(price), units_text(quantity, scale)] for price, quantity in levels]

"""GET depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paper_exchange.market.numbers import units_text
from paper_exchange.market.order_book import Level, book_around
from paper_exchange.rest.context import RestContext
from paper_exchange.rest.parameters import Parameters

LIMIT, LIMIT_MAX = 100, 5000
_WEIGHTS = ((100, 5), (500, 25), (1000, 50))
_WEIGHT_MAX = 250


def depth(parameters: Parameters, context: RestContext) -> dict[str, Any]:
    """Return the book, best prices first."""
    symbol, limit = parameters.symbol(), parameters.limit(LIMIT, LIMIT_MAX)
    parameters.check_all_read()
    market = context.market(symbol)
    book = book_around(market, market.last_trade())
    scale = market.base.scale
    return {
        "lastUpdateId": book.update_id,
        "bids": level_texts(book.bids[:limit], scale),
        "asks": level_texts(book.asks[:limit], scale),
    }


def depth_weight(raw: Mapping[str, str]) -> int:
    """Return what a request costs by how many levels it asks for."""
    text = raw.get("limit", "")
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else LIMIT
    return next((weight for levels, weight in _WEIGHTS if limit <= levels), _WEIGHT_MAX)


def level_texts(levels: tuple[Level, ...] | list[Level], scale: int) -> list[list[str]]:
    """Return price and quantity of each level as text."""
    return [[units_text(price), units_text(quantity, scale)] for price, quantity in levels]

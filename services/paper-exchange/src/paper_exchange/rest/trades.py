"""GET trades, historicalTrades and aggTrades: here every aggregate is one trade."""

from __future__ import annotations

from typing import Any

from paper_exchange.market.numbers import SCALE, number_text, units_text
from paper_exchange.market.tape import Trade
from paper_exchange.rest.context import RestContext
from paper_exchange.rest.errors import optional_combination
from paper_exchange.rest.parameters import Parameters

LIMIT, LIMIT_MAX = 500, 1000
_EVER_MS = 2**62


def trades(parameters: Parameters, context: RestContext) -> list[dict[str, Any]]:
    """Return the newest trades, oldest first."""
    symbol, limit = parameters.symbol(), parameters.limit(LIMIT, LIMIT_MAX)
    parameters.check_all_read()
    market = context.market(symbol)
    return [_row(trade, market.base.scale, context.ticks_a_ms) for trade in market.recent_trades(limit)]


def historical_trades(parameters: Parameters, context: RestContext) -> list[dict[str, Any]]:
    """Return trades from an id on, or the newest."""
    symbol, limit, from_id = parameters.symbol(), parameters.limit(LIMIT, LIMIT_MAX), parameters.whole("fromId")
    parameters.check_all_read()
    market = context.market(symbol)
    found = market.recent_trades(limit) if from_id is None else market.trades_from(from_id, limit)
    return [_row(trade, market.base.scale, context.ticks_a_ms) for trade in found]


def aggregate_trades(parameters: Parameters, context: RestContext) -> list[dict[str, Any]]:
    """Return trades from an id on, of a span of time, or the newest."""
    symbol, limit, from_id = parameters.symbol(), parameters.limit(LIMIT, LIMIT_MAX), parameters.whole("fromId")
    since, until = parameters.time_ms("startTime"), parameters.time_ms("endTime")
    parameters.check_all_read()
    if from_id is not None and (since is not None or until is not None):
        raise optional_combination()
    market = context.market(symbol)
    if from_id is not None:
        found = market.trades_from(from_id, limit)
    elif since is None and until is None:
        found = market.recent_trades(limit)
    else:
        found = market.trades_between(since or 0, _EVER_MS if until is None else until, limit)
    return [_aggregate(trade, market.base.scale, context.ticks_a_ms) for trade in found]


def _row(trade: Trade, scale: int, ticks: int) -> dict[str, Any]:
    return {
        "id": trade.id,
        "price": units_text(trade.price),
        "qty": units_text(trade.quantity, scale),
        "quoteQty": number_text(round(trade.price / SCALE * (trade.quantity / scale), 8)),
        "time": trade.at_ms * ticks,
        "isBuyerMaker": trade.buyer_is_maker,
        "isBestMatch": True,
    }


def _aggregate(trade: Trade, scale: int, ticks: int) -> dict[str, Any]:
    return {
        "a": trade.id,
        "p": units_text(trade.price),
        "q": units_text(trade.quantity, scale),
        "f": trade.id,
        "l": trade.id,
        "T": trade.at_ms * ticks,
        "m": trade.buyer_is_maker,
        "M": True,
    }

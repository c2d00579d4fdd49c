"""GET ticker/price, ticker/bookTicker, ticker/24hr and avgPrice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from paper_exchange.market.intervals import DAY_MS
from paper_exchange.market.numbers import units_text
from paper_exchange.market.symbol_market import SymbolMarket
from paper_exchange.market.tickers import AVERAGE_MINUTES, average_price, day_ticker, price_text, top_of_book
from paper_exchange.rest.context import RestContext
from paper_exchange.rest.parameters import Parameters

_STATUSES = ("", "TRADING", "HALT", "BREAK")
_MINI = ("symbol", "openPrice", "highPrice", "lowPrice", "lastPrice", "volume", "quoteVolume")
_MINI_TIMES = ("openTime", "closeTime", "firstId", "lastId", "count")

type Row = Callable[[SymbolMarket], dict[str, Any]]


def price(parameters: Parameters, context: RestContext) -> Any:
    """Return the last price of one symbol, of several or of all."""
    return _answer(
        parameters,
        context,
        lambda market: {"symbol": market.venue_symbol, "price": units_text(market.last_trade().price)},
    )


def book_ticker(parameters: Parameters, context: RestContext) -> Any:
    """Return the best bid and ask of one symbol, of several or of all."""

    def row(market: SymbolMarket) -> dict[str, Any]:
        top = top_of_book(market, market.last_trade())
        return {
            "symbol": market.venue_symbol,
            "bidPrice": top.bid_price,
            "bidQty": top.bid_quantity,
            "askPrice": top.ask_price,
            "askQty": top.ask_quantity,
        }

    return _answer(parameters, context, row)


def day_change(parameters: Parameters, context: RestContext) -> Any:
    """Return what the last 24 hours brought."""
    kind = parameters.choice("type", ("FULL", "MINI"))

    def row(market: SymbolMarket) -> dict[str, Any]:
        full = _day_row(market, context.ticks_a_ms)
        return full if kind == "FULL" else {name: full[name] for name in (*_MINI, *_MINI_TIMES)}

    return _answer(parameters, context, row)


def average(parameters: Parameters, context: RestContext) -> dict[str, Any]:
    """Return the mean price of the last minutes, weighted by volume."""
    symbol = parameters.symbol()
    parameters.check_all_read()
    market = context.market(symbol)
    return {
        "mins": AVERAGE_MINUTES,
        "price": price_text(average_price(market)),
        "closeTime": market.last_trade().at_ms * context.ticks_a_ms,
    }


def one_or_many(one: int, many: int) -> Callable[[Mapping[str, str]], int]:
    """Return the weight of an endpoint that costs `many` for more than one symbol."""
    return lambda raw: one if raw.get("symbol") else many


def day_weight(raw: Mapping[str, str]) -> int:
    """Return the weight of ticker/24hr by the number of symbols."""
    if raw.get("symbol"):
        return 2
    count = raw["symbols"].count(",") + 1 if raw.get("symbols") else 101
    return 2 if count <= 20 else 40 if count <= 100 else 80


def _answer(parameters: Parameters, context: RestContext, row: Row) -> Any:
    is_one = parameters.text("symbol") is not None
    wanted = parameters.symbols()
    parameters.choice("symbolStatus", _STATUSES)
    parameters.check_all_read()
    markets = context.markets() if wanted is None else [context.market(symbol) for symbol in wanted]
    return row(markets[0]) if is_one else [row(market) for market in markets]


def _day_row(market: SymbolMarket, ticks: int) -> dict[str, Any]:
    day, trade = day_ticker(market), market.last_trade()
    top = top_of_book(market, trade)
    return {
        "symbol": market.venue_symbol,
        "priceChange": day.change,
        "priceChangePercent": day.change_percent,
        "weightedAvgPrice": day.average,
        "prevClosePrice": day.previous_close,
        "lastPrice": day.last,
        "lastQty": units_text(trade.quantity, market.base.scale),
        "bidPrice": top.bid_price,
        "bidQty": top.bid_quantity,
        "askPrice": top.ask_price,
        "askQty": top.ask_quantity,
        "openPrice": day.open,
        "highPrice": day.high,
        "lowPrice": day.low,
        "volume": day.volume,
        "quoteVolume": day.quote_volume,
        "openTime": (trade.at_ms - DAY_MS) * ticks,
        "closeTime": trade.at_ms * ticks,
        "firstId": day.first_id,
        "lastId": day.last_id,
        "count": day.trades,
    }

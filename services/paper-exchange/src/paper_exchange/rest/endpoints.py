"""Every path of the market half: its handler and its weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from paper_exchange.rest.context import RestContext
from paper_exchange.rest.depth import depth, depth_weight
from paper_exchange.rest.exchange_info import exchange_info
from paper_exchange.rest.klines import klines
from paper_exchange.rest.parameters import Parameters
from paper_exchange.rest.tickers import average, book_ticker, day_change, day_weight, one_or_many, price
from paper_exchange.rest.trades import aggregate_trades, historical_trades, trades

type Handler = Callable[[Parameters, RestContext], Any]
type Weight = Callable[[Mapping[str, str]], int]


class Endpoint(NamedTuple):
    """What answers a path, and what it costs given the raw parameters."""

    handler: Handler
    weight: Weight


def ping(parameters: Parameters, context: RestContext) -> dict[str, Any]:  # noqa: ARG001 - the form of a handler
    """Return nothing: the answer is the point."""
    parameters.check_all_read()
    return {}


def server_time(parameters: Parameters, context: RestContext) -> dict[str, Any]:
    """Return server time."""
    parameters.check_all_read()
    return {"serverTime": context.now}


def _fixed(weight: int) -> Weight:
    return lambda _: weight


ENDPOINTS: Mapping[str, Endpoint] = MappingProxyType(
    {
        "ping": Endpoint(ping, _fixed(1)),
        "time": Endpoint(server_time, _fixed(1)),
        "exchangeInfo": Endpoint(exchange_info, _fixed(20)),
        "klines": Endpoint(klines, _fixed(2)),
        "uiKlines": Endpoint(klines, _fixed(2)),
        "depth": Endpoint(depth, depth_weight),
        "trades": Endpoint(trades, _fixed(25)),
        "historicalTrades": Endpoint(historical_trades, _fixed(25)),
        "aggTrades": Endpoint(aggregate_trades, _fixed(4)),
        "avgPrice": Endpoint(average, _fixed(2)),
        "ticker/price": Endpoint(price, one_or_many(2, 4)),
        "ticker/bookTicker": Endpoint(book_ticker, one_or_many(2, 4)),
        "ticker/24hr": Endpoint(day_change, day_weight),
    }
)

"""Every path of the market half: its handler and its weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from paper_exchange.rest.context import RestContext
from paper_exchange.rest.exchange_info import exchange_info
from paper_exchange.rest.klines import klines
from paper_exchange.rest.parameters import Parameters

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
    }
)

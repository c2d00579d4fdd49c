"""The WebSocket API's market half: REST's own endpoints asked for over a socket, an answer for each request."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from paper_exchange.rest.errors import ApiError
from paper_exchange.rest.service import RestService

SUFFIX: Final = "/ws-api/v3"
CONNECT_WEIGHT: Final = 2
METHODS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ping": "ping",
        "time": "time",
        "exchangeInfo": "exchangeInfo",
        "klines": "klines",
        "uiKlines": "uiKlines",
        "depth": "depth",
        "trades.recent": "trades",
        "trades.historical": "historicalTrades",
        "trades.aggregate": "aggTrades",
        "avgPrice": "avgPrice",
        "ticker.price": "ticker/price",
        "ticker.book": "ticker/bookTicker",
        "ticker.24hr": "ticker/24hr",
    }
)


class SocketApi:
    """What one connection to the WebSocket API asks, answered."""

    def __init__(self, rest: RestService, address: str, ticks_a_ms: int, *, shows_limits: bool = True) -> None:
        self._rest, self._address, self._ticks = rest, address, ticks_a_ms
        self._shows_limits = shows_limits

    def answer(self, text: str) -> dict[str, Any]:
        """Return the answer to one request."""
        request_id, shows_limits = None, self._shows_limits
        try:
            request = _read(text)
            request_id = request.get("id")
            values = dict(request.get("params") or {})
            shows_limits = bool(values.pop("returnRateLimits", shows_limits))
            pairs = [(name, _text(value)) for name, value in values.items()]
            path = METHODS.get(request.get("method", ""))
            if path is None:
                raise ApiError(-1020, "This operation is not supported.")
            said: dict[str, Any] = {"status": 200, "result": self._rest.ask(path, pairs, self._address, self._ticks)}
        except ApiError as error:
            said = {"status": error.status, "error": error.body}
        limits = {"rateLimits": [self._rest.weight_limit(self._address)]} if shows_limits else {}
        return {"id": request_id, **said, **limits}


def _read(text: str) -> dict[str, Any]:
    try:
        request = msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise ApiError(-1135, "Invalid JSON Request.") from None
    if not isinstance(request, dict) or not isinstance(request.get("params", {}), dict | None):
        raise ApiError(-1135, "Invalid JSON Request.")
    if not isinstance(request.get("method", ""), str):
        raise ApiError(-1135, "Invalid JSON Request.")
    return request


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()

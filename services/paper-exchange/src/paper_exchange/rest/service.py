"""Answers one HTTP request of the API: weight, parameters, handler, headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, Final

import msgspec
from aiohttp import web

from paper_exchange.market.run import MarketRun
from paper_exchange.rest.budget import BudgetRules, WeightBudget
from paper_exchange.rest.context import RestContext
from paper_exchange.rest.endpoints import ENDPOINTS
from paper_exchange.rest.errors import ApiError, invalid
from paper_exchange.rest.exchange_info import rate_limits
from paper_exchange.rest.parameters import Parameters
from shared.clock import random_id
from shared.domain.rounding import Instrument

API: Final = "/api/v3/"
_NOT_FOUND: Final = "<html><body><h2>404 Not found</h2></body></html>\n"
_UNITS: Final[Mapping[str, int]] = {"MILLISECOND": 1, "MICROSECOND": 1000}


class RestService:
    """The HTTP half of the exchange."""

    def __init__(
        self,
        run: MarketRun,
        instruments: Mapping[str, Instrument],
        rules: BudgetRules,
        holes: Set[tuple[str, int]] = frozenset(),
    ) -> None:
        self._run, self._instruments, self._rules, self._holes = run, instruments, rules, holes
        self.budget = WeightBudget(rules)

    def answer(self, request: web.Request, *, rows_hidden: int = 0) -> web.Response:
        """Return the answer to a request, errors included; `rows_hidden` closed candles are not there yet."""
        endpoint = ENDPOINTS.get(request.path.removeprefix(API)) if request.path.startswith(API) else None
        if endpoint is None or request.method not in ("GET", "HEAD"):
            return web.Response(status=404, text=_NOT_FOUND, content_type="text/html")
        address, path = request.remote or "", request.path.removeprefix(API)
        try:
            pairs = list(request.query.items())
            return self._respond(address, self.ask(path, pairs, address, ticks_a_ms(request), rows_hidden))
        except ApiError as error:
            return self.refuse(address, error)

    def ask(
        self, path: str, pairs: Sequence[tuple[str, str]], address: str, ticks: int = 1, rows_hidden: int = 0
    ) -> Any:
        """Return what an endpoint answers, its weight taken from the address; raises `ApiError`."""
        now_ms, endpoint = self._run.server_ms(), ENDPOINTS[path]
        self.budget.charge(address, endpoint.weight(dict(pairs)), now_ms)
        context = RestContext(self._run, self._instruments, self._rules, now_ms, ticks, rows_hidden, self._holes)
        return endpoint.handler(Parameters(pairs), context)

    def weight_limit(self, address: str) -> dict[str, Any]:
        """Return the limit of weight and what an address has used of it."""
        used = self.budget.used(address, self._run.server_ms())
        return {**rate_limits(self._rules)[0], "count": used}

    def refuse(self, address: str, error: ApiError) -> web.Response:
        """Return an error as the client sees it."""
        headers = {} if error.retry_after_seconds is None else {"Retry-After": str(error.retry_after_seconds)}
        return self._respond(address, error.body, error.status, headers)

    def _respond(
        self, address: str, body: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> web.Response:
        used = str(self.budget.used(address, self._run.server_ms()))
        return web.Response(
            status=status,
            body=msgspec.json.encode(body),
            headers={
                "Content-Type": "application/json;charset=UTF-8",
                "x-mbx-uuid": random_id(),
                "x-mbx-used-weight": used,
                "x-mbx-used-weight-1m": used,
                "Cache-Control": "no-cache, no-store, must-revalidate",
                **(headers or {}),
            },
        )


def ticks_a_ms(request: web.Request) -> int:
    """Return the unit of times that a request asks for."""
    unit = _UNITS.get(request.headers.get("X-MBX-TIME-UNIT", "MILLISECOND").upper())
    if unit is None:
        raise invalid("X-MBX-TIME-UNIT")
    return unit

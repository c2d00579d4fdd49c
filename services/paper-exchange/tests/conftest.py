"""What the tests of the exchange share: a client that knows nothing of its inside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from paper_exchange.server import ExchangeUrls, PaperExchange

type Get = Callable[..., Awaitable[tuple[int, Any]]]
type Connect = Callable[..., Any]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def get(session: aiohttp.ClientSession) -> Get:
    """Return what asks an exchange for a path and gives status and body."""

    async def ask(exchange: PaperExchange | ExchangeUrls, path: str, **parameters: Any) -> tuple[int, Any]:
        urls = exchange.urls if isinstance(exchange, PaperExchange) else exchange
        async with session.get(f"{urls.rest}/api/v3/{path}", params=parameters) as response:
            is_json = response.content_type == "application/json"
            return response.status, await response.json() if is_json else await response.text()

    return ask


@pytest.fixture
def connect(session: aiohttp.ClientSession) -> Connect:
    """Return what opens a stream connection: `async with connect(exchange, "/ws/btcusdt@trade") as socket`."""

    def opened(exchange: PaperExchange, path: str, **options: Any) -> Any:
        return session.ws_connect(exchange.urls.stream + path, **options)

    return opened

"""The market half of the WebSocket API answers as REST does."""

from __future__ import annotations

import json
from typing import Any

import ccxt.pro
import pytest

from paper_exchange.testing import exchange_of
from shared.clock import ManualClock
from shared.testing.reference import reference_path

pytestmark = pytest.mark.thorough


async def asked(socket: Any, **request: Any) -> dict[str, Any]:
    await socket.send_json(request)
    said: dict[str, Any] = await socket.receive_json(timeout=10)
    return said


async def test_klines_are_asked_and_answered_as_in_the_sample(connect: Any) -> None:
    request = json.loads(reference_path("data/binance/ws-api/klines_request.json").read_text())
    theirs = json.loads(reference_path("data/binance/ws-api/klines_response.json").read_text())
    request["params"] = {"symbol": "BTCUSDT", "interval": "1m", "limit": 1}
    async with exchange_of(history_candles=5) as exchange, connect(exchange, "/ws-api/v3") as socket:
        ours = await asked(socket, **request)
    assert list(ours) == list(theirs)
    assert (ours["id"], ours["status"]) == (request["id"], 200)
    assert [type(value) for value in ours["result"][0]] == [type(value) for value in theirs["result"][0]]
    assert {**ours["rateLimits"][0], "count": 2} == theirs["rateLimits"][0]
    assert ours["rateLimits"][0]["count"] == 4  # connecting cost two


@pytest.mark.parametrize(
    ("method", "path", "parameters"),
    [
        ("klines", "klines", {"symbol": "BTCUSDT", "interval": "5m", "limit": 3}),
        ("trades.recent", "trades", {"symbol": "BTCUSDT", "limit": 5}),
        ("ticker.book", "ticker/bookTicker", {"symbol": "BTCUSDT"}),
        ("ticker.price", "ticker/price", {"symbols": ["BTCUSDT"]}),
        ("depth", "depth", {"symbol": "BTCUSDT", "limit": 5}),
        ("time", "time", {}),
    ],
)
async def test_the_socket_says_what_rest_says(
    connect: Any, get: Any, method: str, path: str, parameters: dict[str, Any]
) -> None:
    plain = {name: json.dumps(value) if isinstance(value, list) else value for name, value in parameters.items()}
    async with exchange_of(clock=ManualClock()) as exchange, connect(exchange, "/ws-api/v3") as socket:
        said = await asked(socket, id=1, method=method, params=parameters)
        assert said["result"] == (await get(exchange, path, **plain))[1]


@pytest.mark.parametrize(
    ("text", "code", "request_id"),
    [
        ("{", -1135, None),
        ('{"id": 5, "method": "order.nothing"}', -1020, 5),
        ('{"id": 5, "method": "klines", "params": {"symbol": "BTCUSDT"}}', -1102, 5),
        ('{"id": "x", "method": "klines", "params": {"symbol": "NIX", "interval": "1m"}}', -1121, "x"),
    ],
)
async def test_errors_come_in_their_envelope(connect: Any, text: str, code: int, request_id: Any) -> None:
    async with exchange_of() as exchange, connect(exchange, "/ws-api/v3?returnRateLimits=false") as socket:
        await socket.send_str(text)
        said = await socket.receive_json(timeout=10)
    assert (list(said), said["id"], said["status"]) == (["id", "status", "error"], request_id, 400)
    assert said["error"]["code"] == code


async def test_ccxt_pro_fetches_candles_over_the_socket() -> None:
    async with exchange_of(history_candles=20) as exchange:
        base = f"{exchange.urls.rest}/api/v3"
        addresses = {"public": base, "private": base, "ws": {"ws-api": {"spot": f"{exchange.urls.stream}/ws-api/v3"}}}
        options = {"defaultType": "spot", "fetchMarkets": ["spot"], "fetchCurrencies": False, "fetchMargins": False}
        async with ccxt.pro.binance({"urls": {"api": addresses}, "options": options}) as client:
            rows = await client.fetch_ohlcv_ws("BTC/USDT", "1m", limit=10)
    assert len(rows) == 10
    assert {row[0] % 60_000 for row in rows} == {0}

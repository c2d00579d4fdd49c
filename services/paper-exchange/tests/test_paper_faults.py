"""Each fault happens on the wire as it was asked for, and is counted."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest

from paper_exchange.faults.plan import parse_fault_plan
from paper_exchange.server import ExchangeOptions, PaperExchange
from paper_exchange.testing import exchange_of, simulated_file

pytestmark = pytest.mark.thorough

ROWS = 24
STREAM = "/ws/btcusdt@kline_1m"


def exchange_with(*faults: dict[str, Any]) -> AbstractAsyncContextManager[PaperExchange]:
    options = ExchangeOptions(speed=1500, wait=True, faults=parse_fault_plan(list(faults), "test"))
    return exchange_of(simulated_file(rows=ROWS), options=options, history_candles=0)


async def closed_numbers(client: Any, until: int = ROWS) -> list[int]:
    """Return the numbers of the candles told closed, up to the one numbered `until`, 1 being the first of the run."""
    found: list[int] = []
    first_ms = None
    while not found or found[-1] < until:
        candle = (await client.receive_json(timeout=10))["k"]
        first_ms = candle["t"] if first_ms is None else first_ms
        if candle["x"]:
            found.append((candle["t"] - first_ms) // 60_000 + 1)
    return found


def fired(exchange: PaperExchange) -> dict[str, int]:
    return {row["name"]: row["fired"] for row in exchange.faults.report()}


async def test_silence_keeps_the_connection_and_tells_nothing(connect: Any) -> None:
    async with exchange_with({"kind": "silence", "candle": 5, "candles": 4}) as exchange:
        async with connect(exchange, STREAM) as client:
            told = await closed_numbers(client)
        assert told == [1, 2, 3, 4, *range(9, ROWS + 1)]
        assert fired(exchange)["silence-1"] >= 8  # open frames too


async def test_a_hole_is_a_candle_that_neither_the_stream_nor_rest_has(connect: Any, get: Any) -> None:
    async with exchange_with({"kind": "hole", "candle": 5, "candles": 2}) as exchange:
        async with connect(exchange, STREAM) as client:
            told = await closed_numbers(client)
        _, rows = await get(exchange, "klines", symbol="BTCUSDT", interval="1m")
        _, longer = await get(exchange, "klines", symbol="BTCUSDT", interval="3m")
        assert fired(exchange) == {"hole-1": 2}
    assert told == [number for number in range(1, ROWS + 1) if number not in (5, 6)]
    assert [(row[0] - rows[0][0]) // 60_000 + 1 for row in rows] == told
    assert len(longer) >= ROWS // 3, "what is made of it is still there"


@pytest.mark.parametrize("code", [1006, 1001, 1000])
async def test_a_drop_at_the_minute_s_edge_loses_the_closing_frame(connect: Any, get: Any, code: int) -> None:
    async with exchange_with({"kind": "drop", "candle": 4, "code": code}) as exchange:
        async with connect(exchange, STREAM) as client:
            told = [json.loads(message.data)["k"] async for message in client]
            assert client.close_code == code
        async with connect(exchange, STREAM) as client:  # it may come again at once
            await client.receive_json(timeout=10)
        _, rows = await get(exchange, "klines", symbol="BTCUSDT", interval="1m")
        assert fired(exchange) == {"drop-1": 1}
    assert [candle["x"] for candle in told].count(True) == 3
    assert told[-1]["t"] == rows[3][0]  # the fourth was told open, and is over in REST


async def test_a_drop_may_come_just_after_the_closing_frame(connect: Any) -> None:
    fault = {"kind": "drop", "candle": 4, "delivered": True}
    async with exchange_with(fault) as exchange, connect(exchange, STREAM) as client:
        told = [json.loads(message.data)["k"]["x"] async for message in client]
    assert told.count(True) == 4
    assert told[-1]


async def test_duplicates_are_told_again(connect: Any) -> None:
    async with exchange_with({"kind": "duplicate", "every": 10, "copies": 2}) as exchange:
        async with connect(exchange, STREAM) as client:
            told = await closed_numbers(client)
        assert told == sorted([*range(1, ROWS + 1), 10, 10, 20, 20])
        assert fired(exchange) == {"duplicate-1": 2}


async def test_a_reordered_frame_comes_after_the_next_candle_began(connect: Any) -> None:
    async with exchange_with({"kind": "reorder", "candle": 6, "by": 20}) as exchange:
        async with connect(exchange, STREAM) as client:
            told = await closed_numbers(client)
        assert sorted(told) == list(range(1, ROWS + 1))
        assert told != sorted(told)
        assert told.index(6) > told.index(7)


@pytest.mark.parametrize("form", ["cut", "nan", "negative", "text", "missing", "null", "empty", "html", "list"])
async def test_a_malformed_frame_stands_in_for_the_closing_one(connect: Any, form: str) -> None:
    async with exchange_with({"kind": "malformed", "candle": 3, "form": form}) as exchange:
        odd: list[str] = []
        whole = 0
        async with connect(exchange, STREAM) as client:
            while whole < 4:
                text = await client.receive_str(timeout=10)
                candle = readable(text)
                if candle is None:
                    odd.append(text)
                else:
                    whole += candle["x"]
        assert fired(exchange) == {"malformed-1": 1}
    assert len(odd) == 1


def readable(text: str) -> dict[str, Any] | None:
    """Return the candle of a frame that a careful reader would take."""
    try:
        candle: dict[str, Any] = json.loads(text)["k"]
        prices = [float(candle[key]) for key in "ohlc"]
    except (ValueError, KeyError, TypeError):
        return None
    return candle if all(price > 0 for price in prices) else None


async def test_a_candle_may_be_told_closed_too_early_and_again_when_it_is(connect: Any, get: Any) -> None:
    async with exchange_with({"kind": "early_close", "candle": 3, "times": 1}) as exchange:
        async with connect(exchange, STREAM) as client:
            candles = []
            while len(candles) < 6:
                candle = (await client.receive_json(timeout=10))["k"]
                candles += [candle] if candle["x"] else []
        third = [candle for candle in candles if candle["t"] == candles[2]["t"]]
        _, rows = await get(exchange, "klines", symbol="BTCUSDT", interval="1m")
    assert len(third) == 2
    assert float(third[0]["v"]) < float(third[1]["v"])
    assert rows[2][5] == third[1]["v"]


async def test_a_shutdown_is_announced_and_carried_out(connect: Any) -> None:
    async with exchange_with({"kind": "shutdown", "candle": 3}) as exchange, connect(exchange, STREAM) as client:
        told = [json.loads(message.data) async for message in client]
        assert client.close_code == 1001
    assert told[-1]["e"] == "serverShutdown"
    assert isinstance(told[-1]["E"], int)


@pytest.mark.parametrize(
    ("fault", "status", "code", "after"),
    [
        ({"kind": "error"}, 503, -1001, None),
        ({"kind": "error", "status": 500, "code": -1007, "text": "Timeout waiting."}, 500, -1007, None),
        ({"kind": "rate_limit", "retry_after": 7}, 429, -1003, "7"),
        ({"kind": "ban", "retry_after": 9}, 418, -1003, "9"),
    ],
)
async def test_rest_answers_with_the_error_asked_for_so_many_times(
    session: aiohttp.ClientSession, fault: dict[str, Any], status: int, code: int, after: str | None
) -> None:
    async with exchange_with({**fault, "path": "*/klines", "times": 2}) as exchange:
        seen = []
        for _ in range(3):
            path = f"{exchange.urls.rest}/api/v3/klines?symbol=BTCUSDT&interval=1m"
            async with session.get(path) as response:
                seen.append((response.status, response.headers.get("Retry-After"), await response.json()))
        async with session.get(f"{exchange.urls.rest}/api/v3/ping") as response:
            assert response.status == 200
    assert [(s, a, body["code"]) for s, a, body in seen[:2]] == [(status, after, code)] * 2
    assert seen[2][0] == 200


async def test_rest_may_answer_with_a_page_late_or_not_at_all(session: aiohttp.ClientSession) -> None:
    faults = (
        {"kind": "html", "path": "*/ping"},
        {"kind": "slow", "path": "*/time", "delay_seconds": 0.3},
        {"kind": "cut_answer", "path": "*/exchangeInfo"},
    )
    async with exchange_with(*faults) as exchange:
        base = f"{exchange.urls.rest}/api/v3"
        async with session.get(f"{base}/ping") as response:
            assert (response.status, response.content_type) == (403, "text/html")
        with pytest.raises(TimeoutError):
            await session.get(f"{base}/time", timeout=aiohttp.ClientTimeout(total=0.1))
        async with session.get(f"{base}/time") as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{base}/exchangeInfo")
        assert fired(exchange)["html-1"] == 1
        assert fired(exchange)["slow-2"] == 2
        assert fired(exchange)["cut_answer-3"] >= 1


async def test_rest_may_not_have_the_newest_candle_yet(get: Any) -> None:
    async with exchange_with({"kind": "late_candle", "rows": 2, "times": 1}) as exchange:
        exchange.market.begin()
        await exchange.over()
        _, early = await get(exchange, "klines", symbol="BTCUSDT", interval="1m")
        _, later = await get(exchange, "klines", symbol="BTCUSDT", interval="1m")
    assert len(later) == ROWS
    assert early == later[: ROWS - 2]


async def test_connections_are_refused_for_a_while_and_those_there_are_break(
    connect: Any, session: aiohttp.ClientSession
) -> None:
    async with exchange_with({"kind": "refuse", "candle": 5, "seconds": 0.3, "times": 1}) as exchange:
        async with connect(exchange, STREAM) as client:
            while not (await client.receive()).type.name.startswith("CLOS"):
                pass
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{exchange.urls.rest}/api/v3/ping")
        while True:
            try:
                async with session.get(f"{exchange.urls.rest}/api/v3/ping") as response:
                    assert response.status == 200
                    break
            except aiohttp.ClientConnectorError:
                continue
        assert fired(exchange) == {"refuse-1": 1}


async def test_faults_are_set_counted_and_cleared_over_http(session: aiohttp.ClientSession) -> None:
    async with exchange_with() as exchange:
        url = f"{exchange.urls.rest}/paper/faults"
        async with session.post(
            url, json=[{"kind": "error", "name": "mine", "path": "*/ping", "times": 1}]
        ) as response:
            assert response.status == 200
        async with session.get(f"{exchange.urls.rest}/api/v3/ping") as response:
            assert response.status == 503
        async with session.get(url) as response:
            assert (await response.json())["faults"] == [{"name": "mine", "kind": "error", "fired": 1, "met": 1}]
        async with session.post(url, json=[{"kind": "eror"}]) as response:
            assert response.status == 400
            assert "did you mean 'error'?" in (await response.json())["error"]
        async with session.delete(url) as response:
            assert await response.json() == {"faults": []}
        async with session.get(f"{exchange.urls.rest}/paper/status") as response:
            assert (await response.json())["faults"] == []

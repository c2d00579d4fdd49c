"""Field by field against recorded and documented payloads: every key, its place, its type and its form."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from paper_exchange.faults.plan import parse_fault_plan
from paper_exchange.rest.budget import BudgetRules
from paper_exchange.server import ExchangeOptions, PaperExchange
from paper_exchange.streams.connection import ConnectionRules
from paper_exchange.testing import exchange_of, simulated_file
from shared.instruments import KNOWN, load_instruments
from shared.testing.reference import reference_path

pytestmark = pytest.mark.thorough

NUMBER = re.compile(r"-?\d+\.\d+")
FAST = ExchangeOptions(speed=300, instruments=load_instruments(KNOWN, ["BTC/USDT"]).rules)


def sample(name: str) -> Any:
    return json.loads(reference_path(f"data/binance/{name}").read_text())


def form_of(value: Any) -> Any:
    """Return the shape of a value: types, keys in their order, and whether a text is a number."""
    if isinstance(value, dict):
        return {key: form_of(inner) for key, inner in value.items()}
    if isinstance(value, list):
        forms = [form_of(inner) for inner in value]
        return forms if len(value) > 3 else forms[:1]  # long lists of unlike things are rows
    if isinstance(value, str):
        return "number" if NUMBER.fullmatch(value) else "text"
    return type(value).__name__


def assert_same_form(ours: Any, theirs: Any) -> None:
    assert form_of(ours) == form_of(theirs)
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)


async def rest(exchange: PaperExchange, path: str, **parameters: Any) -> Any:
    url = f"{exchange.urls.rest}/api/v3/{path}"
    async with aiohttp.ClientSession() as session, session.get(url, params=parameters) as response:
        assert response.status == 200
        return await response.json()


async def first_event(exchange: PaperExchange, path: str) -> Any:
    """Return the first event of a connection."""
    url = exchange.urls.stream + path
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        return await socket.receive_json(timeout=10)


@pytest.mark.parametrize(
    ("path", "parameters", "name"),
    [
        ("ping", {}, "rest/ping.json"),
        ("time", {}, "rest/time.json"),
        ("klines", {"interval": "1m", "limit": 1}, "rest/klines.json"),
        ("klines", {"interval": "1m", "limit": 3}, "recorded/klines_1m_testnet_2026-06.json"),
        ("uiKlines", {"interval": "5m", "limit": 1}, "rest/klines.json"),
        ("trades", {"limit": 1}, "rest/trades.json"),
        ("aggTrades", {"limit": 1}, "rest/aggTrades.json"),
        ("avgPrice", {}, "rest/avgPrice.json"),
        ("ticker/price", {}, "rest/ticker_price.json"),
        ("ticker/bookTicker", {}, "rest/ticker_bookTicker.json"),
        ("ticker/24hr", {}, "rest/ticker_24hr_full.json"),
        ("depth", {"limit": 1}, "rest/depth.json"),
        ("depth", {"limit": 20}, "recorded/rest_depth_snapshot_2024-08.json"),
    ],
)
async def test_rest_answers_have_the_form_of_the_sample(path: str, parameters: dict[str, Any], name: str) -> None:
    async with exchange_of(options=FAST, history_candles=10) as exchange:
        symbol = {} if path in ("ping", "time") else {"symbol": "BTCUSDT"}
        assert_same_form(await rest(exchange, path, **symbol, **parameters), sample(name))


async def test_exchange_info_says_of_a_known_symbol_what_was_recorded() -> None:
    theirs = sample("recorded/exchangeInfo_BTCUSDT_testnet_2026-06.json")
    async with exchange_of(options=FAST) as exchange:
        ours = await rest(exchange, "exchangeInfo", symbol="BTCUSDT")
    assert_same_form(ours, theirs)
    mine, recorded = ours["symbols"][0], theirs["symbols"][0]
    by_kind = [{entry["filterType"]: entry for entry in symbol["filters"]} for symbol in (mine, recorded)]
    assert list(by_kind[0]) == list(by_kind[1])
    for kind, differing in (("LOT_SIZE", {"maxQty"}), ("MARKET_LOT_SIZE", {"maxQty"})):
        for entries in by_kind:
            for name in differing:
                entries[kind].pop(name)
    assert by_kind[0] == by_kind[1]
    assert {key: value for key, value in mine.items() if key != "filters"} == {
        key: value for key, value in recorded.items() if key != "filters"
    }


@pytest.mark.parametrize(
    ("stream", "name"),
    [
        ("btcusdt@kline_1m", "ws-stream/kline.json"),
        ("btcusdt@kline_5m", "ws-stream/kline.json"),
        ("btcusdt@trade", "ws-stream/trade.json"),
        ("btcusdt@aggTrade", "ws-stream/aggTrade.json"),
        ("btcusdt@bookTicker", "ws-stream/bookTicker.json"),
        ("btcusdt@depth5", "ws-stream/partialDepth.json"),
        ("btcusdt@miniTicker", "ws-stream/miniTicker.json"),
        ("btcusdt@ticker", "ws-stream/ticker.json"),
        ("btcusdt@avgPrice", "ws-stream/avgPrice.json"),
    ],
)
async def test_stream_events_have_the_form_of_the_sample(stream: str, name: str) -> None:
    theirs = sample(name)
    async with exchange_of(options=FAST) as exchange:
        ours = await first_event(exchange, f"/ws/{stream}")
    if name == "ws-stream/partialDepth.json":
        ours = {**ours, "bids": ours["bids"][:1], "asks": ours["asks"][:1]}
    for holder in (theirs, theirs.get("k", {})):
        holder.update(
            {
                key: "1.00000000"
                for key, value in holder.items()
                if key in ("q", "v", "B", "V", "Q", "A") and value.isdigit()
            }
        )
    if "k" in theirs:
        theirs["k"]["B"] = "0"
    assert_same_form(ours, theirs)
    assert json.dumps(ours).find('": null') < 0


@pytest.mark.parametrize(
    ("stream", "name"),
    [
        ("btcusdt@kline_1m", "recorded/kline_2h_open_combined_2025-06.json"),
        ("btcusdt@trade", "recorded/frame_trade_2024-08.json"),
        ("btcusdt@bookTicker", "recorded/frame_bookTicker_2024-08.json"),
        ("btcusdt@depth@100ms", "recorded/frame_100ms_2024-08.json"),
    ],
)
async def test_combined_events_have_the_form_of_the_recording(stream: str, name: str) -> None:
    theirs = sample(name)
    async with exchange_of(options=FAST) as exchange:
        ours = await first_event(exchange, f"/stream?streams={stream}")
    assert ours["stream"] == stream
    for event in (ours["data"], theirs["data"]):
        for side in ("b", "a"):
            if isinstance(event.get(side), list):
                event[side] = event[side][:1]
    assert_same_form(ours, theirs)


async def test_a_candle_without_trades_is_told_as_it_was_recorded() -> None:
    theirs = sample("recorded/kline_1s_closed_no_trades_2023-04.json")
    file = simulated_file(rows=6)
    file.volume[:] = 0.0
    for prices in (file.open, file.high, file.low, file.close):
        prices[:] = 1870.76
    async with (
        exchange_of(file, options=FAST, history_candles=0) as exchange,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{exchange.urls.stream}/ws/btcusdt@kline_1m") as socket,
    ):
        while not (ours := await socket.receive_json(timeout=10))["k"]["x"]:
            pass
    assert ours["k"].pop("B") == "0"
    assert_same_form(ours, theirs)
    same = ("f", "L", "o", "c", "h", "l", "v", "n", "x", "q", "V", "Q")
    assert {key: ours["k"][key] for key in same} == {key: theirs["k"][key] for key in same}


@pytest.mark.parametrize(
    ("path", "status", "name"),
    [
        ("klines?interval=1m", 400, "errors/-1102.json"),
        ("klines?symbol=BTCUSDT&interval=7m", 400, "errors/-1120.json"),
        ("klines?symbol=NIXUSDT&interval=1m", 400, "errors/-1121.json"),
        ("klines?symbol=btc-usdt!&interval=1m", 400, "errors/-1100.json"),
        ("klines?symbol=BTCUSDT&interval=1m&nix=1", 400, "errors/-1104.json"),
        ("klines?symbol=BTCUSDT&interval=1m&limit=0", 400, "errors/-1130.json"),
        ("ticker/price?symbol=BTCUSDT&symbols=[%22BTCUSDT%22]", 400, "errors/-1128.json"),
    ],
)
async def test_errors_have_the_code_and_the_words_of_the_sample(path: str, status: int, name: str) -> None:
    theirs = sample(name)
    async with exchange_of(options=FAST) as exchange, aiohttp.ClientSession() as session:
        response = await session.get(f"{exchange.urls.rest}/api/v3/{path}")
        ours = await response.json()
        assert response.status == status
    words = re.escape(theirs["msg"]).replace("%s", ".+")
    assert (list(ours), ours["code"]) == (["code", "msg"], theirs["code"])
    assert re.fullmatch(words, ours["msg"])


@pytest.mark.parametrize("is_combined", [False, True])
async def test_control_messages_of_the_samples_get_the_answers_of_the_samples(is_combined: bool) -> None:
    path = "/stream" if is_combined else "/ws"
    async with (
        exchange_of() as exchange,
        aiohttp.ClientSession() as session,
        session.ws_connect(exchange.urls.stream + path) as socket,
    ):
        for method in ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY"):
            await socket.send_json(sample(f"ws-stream/control_{method}_request.json"))
            while "id" not in (said := await socket.receive_json(timeout=10)):
                pass
            assert said == sample(f"ws-stream/control_{method}_response.json")


@pytest.mark.parametrize(
    ("path", "name"), [("/ws/", "serverShutdown_raw"), ("/stream?streams=", "serverShutdown_combined")]
)
async def test_a_shutdown_is_announced_as_in_the_sample(path: str, name: str) -> None:
    plan = parse_fault_plan([{"kind": "shutdown", "frames": "all"}], "test")
    async with (
        exchange_of(options=replace(FAST, faults=plan)) as exchange,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{exchange.urls.stream}{path}btcusdt@kline_1m") as socket,
    ):
        events = [json.loads(message.data) async for message in socket]
    assert_same_form(events[-1], sample(f"ws-stream/{name}.json"))


async def test_a_connection_that_answers_no_ping_ends_as_recorded() -> None:
    theirs = sample("recorded/ws_close_pong_timeout.json")
    rules = replace(FAST, connection=ConnectionRules(ping_seconds=0.02, pong_seconds_max=0.04))
    async with (
        exchange_of(options=rules) as exchange,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{exchange.urls.stream}/ws", autoping=False) as socket,
    ):
        while (message := await socket.receive(timeout=10)).type is aiohttp.WSMsgType.PING:
            pass
    assert {"close_code": message.data, "close_reason": message.extra} == theirs


@pytest.mark.parametrize(
    ("ignored_max", "status", "name"),
    [(5, 429, "errors/-1003_too_many_weight.json"), (0, 418, "errors/-1003_banned.json")],
)
async def test_used_up_weight_is_told_in_the_words_of_the_sample(ignored_max: int, status: int, name: str) -> None:
    options = ExchangeOptions(budget=BudgetRules(weight_max=5, ignored_max=ignored_max))
    async with exchange_of(options=options) as exchange, aiohttp.ClientSession() as session:
        response = await session.get(f"{exchange.urls.rest}/api/v3/exchangeInfo")
        ours = await response.json()
    theirs = sample(name)
    assert (response.status, list(ours), ours["code"]) == (status, list(theirs), theirs["code"])
    assert re.sub(r"\d+", "N", ours["msg"]) == re.sub(r"\d+", "N", theirs["msg"])

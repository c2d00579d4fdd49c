"""Connections that are kept: against a server on the wire that does what servers do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest
import structlog
from aiohttp import WSMsgType, web

from data_collector.feeds.binance.connection import StreamRules
from data_collector.feeds.binance.frames import KlineFrame
from data_collector.feeds.binance.streams import BinanceStreams, StreamHandlers, StreamPorts
from data_collector.feeds.port import StreamKey
from data_collector.testing import SCRIPT_START
from shared.clock import SystemClock
from shared.models import to_milliseconds
from shared.testing.waiting import until

BTC = StreamKey("BTC/USDT", "1m")
QUICK = StreamRules(
    open_seconds_max=5.0,
    answer_seconds_max=5.0,
    messages_per_second_max=200.0,
    retry_base_seconds=0.01,
    retry_seconds_max=0.05,
    breaker_seconds=0.1,
    short_life_seconds=0.0,
    life_spread_seconds=0.0,
)


def kline(number: int, *, closed: bool = True, market_id: str = "BTCUSDT") -> str:
    open_ms = to_milliseconds(SCRIPT_START + timedelta(minutes=number))
    body = {"t": open_ms, "i": "1m", "o": "1", "h": "2", "l": "1", "c": "2", "v": "3", "x": closed}
    event = {"e": "kline", "E": to_milliseconds(SystemClock().now()), "s": market_id, "k": body}
    return json.dumps({"stream": f"{market_id.lower()}@kline_1m", "data": event})


class WireServer:
    """Accepts sockets, grants subscriptions, and sends what a test asks it to."""

    def __init__(self) -> None:
        self.sockets: list[web.WebSocketResponse] = []
        self.open_count = self.open_most = 0
        self.addresses: list[str] = []
        self.subscribed: list[list[str]] = []
        self.connected_total = 0
        self.refuses = False
        self.grants = True
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.refuses:
            return web.Response(status=503)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        self.addresses.append(request.path_qs)
        self.connected_total += 1
        self.open_count += 1
        self.open_most = max(self.open_most, self.open_count)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._answer(socket, json.loads(message.data))
        finally:
            self.open_count -= 1
            self.sockets.remove(socket)
        return socket

    async def _answer(self, socket: web.WebSocketResponse, asked: dict) -> None:
        self.subscribed.append(asked["params"])
        answer = {"result": None} if self.grants else {"code": 2, "msg": "no"}
        await socket.send_json({**answer, "id": asked["id"]})

    async def send(self, text: str) -> None:
        for socket in list(self.sockets):
            with suppress(ConnectionError):
                await socket.send_str(text)


@asynccontextmanager
async def wire_server() -> AsyncIterator[WireServer]:
    server = WireServer()
    app = web.Application()
    app.router.add_get("/stream", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"ws://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


class Heard:
    """What came in, in order."""

    def __init__(self) -> None:
        self.frames: list[KlineFrame] = []
        self.malformed: list[str] = []
        self.connects = 0

    def note_connect(self) -> None:
        self.connects += 1


@asynccontextmanager
async def streams_of(
    server: WireServer, rules: StreamRules = QUICK, keys: tuple[StreamKey, ...] = (BTC,)
) -> AsyncIterator[tuple[BinanceStreams, Heard]]:
    heard, clock = Heard(), SystemClock()
    handlers = StreamHandlers(heard.frames.append, lambda text, _: heard.malformed.append(text), heard.note_connect)
    ids = {key: key.symbol.replace("/", "") for key in keys}
    streams = BinanceStreams(
        server.url, ids, handlers, StreamPorts(clock, structlog.stdlib.get_logger(), clock.now), rules
    )
    running = asyncio.create_task(streams.run())
    try:
        await until(lambda: heard.connects >= 1 or server.refuses or not server.grants)
        yield streams, heard
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def rules(**changes: float) -> StreamRules:
    return StreamRules(**{**{name: getattr(QUICK, name) for name in QUICK.__slots__}, **changes})  # type: ignore[arg-type]


async def test_frames_arrive_and_rubbish_between_them_is_put_aside() -> None:
    async with wire_server() as server, streams_of(server) as (streams, heard):
        for text in (kline(0), "{", kline(1, closed=False), "[]", kline(1)):
            await server.send(text)
        await until(lambda: len(heard.frames) == 3)
        assert heard.malformed == ["{", "[]"]
        assert streams.troubles() == []


async def test_a_dropped_connection_is_made_again_and_told() -> None:
    async with wire_server() as server, streams_of(server) as (_, heard):
        for expected in (2, 3):
            await server.sockets[0].close(code=1006)
            await until(lambda wanted=expected: heard.connects == wanted)
        await server.send(kline(5))
        await until(lambda: heard.frames)


async def test_an_old_connection_goes_only_when_its_successor_is_up() -> None:
    async with wire_server() as server, streams_of(server, rules(life_seconds_max=0.2)) as (_, heard):
        await until(lambda: heard.connects >= 3)
        assert server.open_most == 2
        await until(lambda: server.open_count == 1)


async def test_an_announced_shutdown_is_answered_with_a_new_connection_at_once() -> None:
    async with wire_server() as server, streams_of(server) as (_, heard):
        await server.send('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}')
        await until(lambda: heard.connects == 2)
        assert server.open_most == 2


async def test_a_connected_but_silent_stream_is_connected_anew() -> None:
    async with wire_server() as server, streams_of(server, rules(silence_seconds_max=0.3)) as (_, heard):
        for number in range(5):
            await server.send(kline(number, closed=False))
            await until(lambda wanted=number: len(heard.frames) == wanted + 1)
        await until(lambda: heard.connects == 2)


async def test_a_server_that_is_away_is_tried_again_and_the_trouble_is_named() -> None:
    async with wire_server() as server:
        server.refuses = True
        async with streams_of(server) as (streams, heard):
            await until(streams.troubles)
            assert "no connection" in streams.troubles()[0]
            server.refuses = False
            await until(lambda: heard.connects == 1)
            assert streams.troubles() == []


async def test_a_refused_subscription_is_a_trouble_and_not_silence() -> None:
    async with wire_server() as server:
        server.grants = False
        async with streams_of(server, rules(url_characters_max=0)) as (streams, heard):
            await until(streams.troubles)
            assert "refused: 2 no" in streams.troubles()[0]
            server.grants = True
            await until(lambda: heard.connects == 1)


@pytest.mark.parametrize(("symbols", "connections"), [(250, 1), (600, 2)])
async def test_many_streams_are_spread_over_address_requests_and_connections(symbols: int, connections: int) -> None:
    keys = tuple(StreamKey(f"COIN{number}/USDT", "1m") for number in range(symbols))
    limits = rules(streams_per_connection_max=500, streams_per_request_max=100, url_characters_max=1000)
    async with wire_server() as server, streams_of(server, limits, keys) as (_, heard):
        await until(lambda: heard.connects == connections)
        assert all(len(address) < 1000 for address in server.addresses)
        named = [name for address in server.addresses for name in address.partition("streams=")[2].split("/")]
        asked = [name for names in server.subscribed for name in names]
        assert max(len(names) for names in server.subscribed) == 100
        assert sorted(named + asked) == sorted(f"coin{number}usdt@kline_1m" for number in range(symbols))


async def test_requests_keep_below_the_venues_rate() -> None:
    keys = tuple(StreamKey(f"COIN{number}/USDT", "1m") for number in range(8))
    limits = rules(streams_per_request_max=2, url_characters_max=0, messages_per_second_max=20.0)
    started = SystemClock().monotonic()
    async with wire_server() as server, streams_of(server, limits, keys):
        assert len(server.subscribed) == 4
        assert SystemClock().monotonic() - started >= 4 / 20

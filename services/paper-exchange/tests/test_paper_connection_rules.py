"""When a stream connection is hung up on: silence, chatter, too many streams, old age, slow reading."""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
import pytest

from paper_exchange.server import ExchangeOptions
from paper_exchange.streams.connection import ConnectionRules
from paper_exchange.testing import exchange_of
from shared.testing.waiting import until

pytestmark = pytest.mark.thorough


def options(**rules: Any) -> ExchangeOptions:
    return ExchangeOptions(speed=300, connection=ConnectionRules(**rules))


async def end_of(client: Any) -> aiohttp.WSMessage:
    """Return the message that ends a connection."""
    while True:
        message = await client.receive(timeout=10)
        if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
            return message


async def test_who_answers_pings_stays(connect: Any) -> None:
    rules = options(ping_seconds=0.05, pong_seconds_max=0.1)
    async with exchange_of(options=rules) as exchange, connect(exchange, "/ws", autoping=False) as client:
        for _ in range(4):
            message = await client.receive(timeout=10)
            assert message.type is aiohttp.WSMsgType.PING
            assert message.data
            await client.pong(message.data)
        assert not client.closed


async def test_who_does_not_answer_pings_is_told_pong_timeout(connect: Any) -> None:
    rules = options(ping_seconds=0.05, pong_seconds_max=0.1)
    async with exchange_of(options=rules) as exchange, connect(exchange, "/ws", autoping=False) as client:
        while (message := await client.receive(timeout=10)).type is aiohttp.WSMsgType.PING:
            await client.pong(b"something else")  # allowed, and no answer
    assert (message.data, message.extra) == (1008, "Pong timeout")


async def test_a_client_s_own_ping_is_answered_with_its_payload(connect: Any) -> None:
    async with exchange_of() as exchange, connect(exchange, "/ws", autoping=False) as client:
        await client.ping(b"hello")
        message = await client.receive(timeout=10)
    assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, b"hello")


async def test_more_than_five_messages_a_second_end_the_connection(connect: Any) -> None:
    async with exchange_of() as exchange, connect(exchange, "/ws") as client:
        for number in range(5):
            await client.send_json({"method": "LIST_SUBSCRIPTIONS", "id": number})
        for number in range(5):
            assert (await client.receive_json(timeout=10))["id"] == number
        await client.ping()
        assert (await end_of(client)).data == 1008


async def test_1024_streams_are_allowed_and_one_more_is_not(connect: Any) -> None:
    names = [f"s{number}@trade" for number in range(1025)]
    async with exchange_of() as exchange, connect(exchange, "/ws") as client:
        await client.send_json({"method": "SUBSCRIBE", "params": names[:1024], "id": 1})
        assert await client.receive_json(timeout=10) == {"result": None, "id": 1}
        await client.send_json({"method": "SUBSCRIBE", "params": names[1024:], "id": 2})
        assert (await end_of(client)).data == 1008


async def test_a_connection_ends_of_old_age(connect: Any) -> None:
    rules = options(life_seconds_max=0.2)
    async with exchange_of(options=rules) as exchange, connect(exchange, "/ws/btcusdt@trade") as client:
        assert (await end_of(client)).data == 1001


async def test_a_connection_may_end_without_a_word(connect: Any) -> None:
    rules = options(life_seconds_max=0.2, life_close_code=1006)
    async with exchange_of(options=rules) as exchange, connect(exchange, "/ws/btcusdt@trade") as client:
        await end_of(client)
        assert client.close_code == 1006


async def test_too_many_new_connections_are_turned_away(connect: Any) -> None:
    async with (
        exchange_of(options=options(connections_max=2)) as exchange,
        connect(exchange, "/ws"),
        connect(exchange, "/ws"),
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connect(exchange, "/ws")
    assert refused.value.status == 429


async def test_a_client_that_does_not_read_is_hung_up_on_and_others_hear_on(connect: Any) -> None:
    request = "GET /ws/much HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    request += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with (
            exchange_of(options=options(frames_waiting_max=20)) as exchange,
            connect(exchange, "/ws/little") as quick,
        ):
            deaf.connect(("127.0.0.1", exchange.urls.port))
            deaf.sendall(request.encode())
            await until(lambda: exchange.hub.has("much") and exchange.hub.has("little"))
            while exchange.hub.has("much"):
                exchange.hub.publish("much", lambda _: {"padding": "x" * 200_000})
                exchange.hub.publish("little", lambda _: {"is": "heard"})
                assert await quick.receive_json(timeout=10) == {"is": "heard"}

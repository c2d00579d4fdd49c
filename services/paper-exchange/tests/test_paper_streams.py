"""The streams: names, envelopes, control messages, and candles that are told until they are over."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from paper_exchange.server import ExchangeOptions
from paper_exchange.testing import exchange_of, simulated_file
from shared.clock import ManualClock
from shared.models import to_milliseconds
from shared.testing.waiting import until, until_done

pytestmark = pytest.mark.thorough

FAST = ExchangeOptions(speed=300)  # a minute lasts 200 ms
FASTER = ExchangeOptions(speed=3000, wait=True)


async def ask(socket: Any, **message: Any) -> dict[str, Any]:
    """Send a control message and return its answer; events that come before it are passed over."""
    await socket.send_json(message)
    while True:
        said = await socket.receive_json(timeout=10)
        if "id" in said:
            return dict(said)


async def closed_candles(socket: Any, count: int) -> list[dict[str, Any]]:
    """Return the next candles that are over, as they were told."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        event = await socket.receive_json(timeout=10)
        event = event.get("data", event)
        if event.get("k", {}).get("x"):
            found.append(event)
    return found


async def test_every_candle_of_the_recording_is_told_closed_exactly_once(connect: Any) -> None:
    file = simulated_file(rows=60, without={20, 21, 40})
    async with (
        exchange_of(file, options=FASTER, history_candles=0) as exchange,
        connect(exchange, "/ws/btcusdt@kline_1m") as socket,
    ):
        told = await closed_candles(socket, 57)
        await exchange.over()
    assert [float(event["k"]["c"]) for event in told] == file.close.tolist()
    assert [event["k"]["v"] for event in told] == [f"{volume:.8f}" for volume in file.volume.tolist()]
    shift = told[0]["k"]["t"] - int(file.open_time_ms[0])
    assert [event["k"]["t"] - shift for event in told] == file.open_time_ms.tolist()
    assert all(event["E"] > event["k"]["T"] for event in told)


async def test_an_open_candle_is_told_from_its_open_on_and_grows(connect: Any) -> None:
    async with exchange_of(options=FAST) as exchange, connect(exchange, "/ws/btcusdt@kline_1m") as socket:
        await closed_candles(socket, 1)
        frames = [await socket.receive_json(timeout=10)]
        while not frames[-1]["k"]["x"]:
            frames.append(await socket.receive_json(timeout=10))
    first, last = frames[0]["k"], frames[-1]["k"]
    assert len(frames) >= 3
    assert first["o"] == first["c"] == first["h"] == first["l"] == last["o"]
    assert {frame["k"]["t"] for frame in frames} == {last["t"]}
    volumes = [float(frame["k"]["v"]) for frame in frames]
    assert volumes == sorted(volumes)
    assert (first["n"], last["n"]) == (1, 7)


async def test_stream_and_rest_tell_one_candle_the_same(get: Any, connect: Any) -> None:
    async with exchange_of(options=FAST) as exchange, connect(exchange, "/ws/btcusdt@kline_5m") as socket:
        (event,) = await closed_candles(socket, 1)
        candle = event["k"]
        _, rows = await get(exchange, "klines", symbol="BTCUSDT", interval="5m", startTime=candle["t"], limit=1)
    names = ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q")
    assert rows == [[*(candle[name] for name in names), "0"]]


async def test_trades_of_a_minute_make_its_candle(connect: Any) -> None:
    async with (
        exchange_of(options=FAST) as exchange,
        connect(exchange, "/stream?streams=btcusdt@trade/btcusdt@kline_1m") as socket,
    ):
        trades: list[dict[str, Any]] = []
        candles: list[dict[str, Any]] = []
        while len(candles) < 3:
            event = (await socket.receive_json(timeout=10))["data"]
            if event["e"] == "trade":
                trades.append(event)
            elif event["k"]["x"]:
                candles.append(event["k"])
    assert [trade["t"] for trade in trades] == list(range(trades[0]["t"], trades[0]["t"] + len(trades)))
    for candle in candles[1:]:
        inside = [trade for trade in trades if candle["t"] <= trade["T"] <= candle["T"]]
        prices = [float(trade["p"]) for trade in inside]
        assert (prices[0], max(prices), min(prices), prices[-1]) == tuple(float(candle[key]) for key in "ohlc")
        assert sum(float(trade["q"]) for trade in inside) == pytest.approx(float(candle["v"]))
        assert (inside[0]["t"], inside[-1]["t"]) == (candle["f"], candle["L"])


async def test_a_book_kept_from_a_snapshot_and_updates_equals_the_next_snapshot(get: Any, connect: Any) -> None:
    async with exchange_of(options=FAST) as exchange, connect(exchange, "/ws/btcusdt@depth") as socket:
        updates = [await socket.receive_json(timeout=10)]
        _, book = await get(exchange, "depth", symbol="BTCUSDT", limit=5000)
        kept = {side: dict(map(tuple, book[side])) for side in ("bids", "asks")}
        seen_id = book["lastUpdateId"]
        updates += [await socket.receive_json(timeout=10) for _ in range(12)]
        for update in (update for update in updates if update["u"] > seen_id):
            assert update["U"] == seen_id + 1
            seen_id = update["u"]
            for side, key in (("bids", "b"), ("asks", "a")):
                for price, quantity in update[key]:
                    kept[side][price] = quantity
                    if float(quantity) == 0:
                        del kept[side][price]
        while True:
            _, later = await get(exchange, "depth", symbol="BTCUSDT", limit=5000)
            while seen_id < later["lastUpdateId"]:  # a snapshot costs weight: not one for each update
                update = await socket.receive_json(timeout=10)
                seen_id = update["u"]
                for side, key in (("bids", "b"), ("asks", "a")):
                    kept[side].update(map(tuple, update[key]))
                    kept[side] = {price: quantity for price, quantity in kept[side].items() if float(quantity)}
            if later["lastUpdateId"] == seen_id:
                break
    assert kept == {side: dict(map(tuple, later[side])) for side in ("bids", "asks")}


@pytest.mark.parametrize("path", ["/ws", "/stream.local/ws/0", "/any/prefix/ws/17"])
async def test_control_messages_choose_the_streams_of_a_raw_connection(connect: Any, path: str) -> None:
    async with exchange_of(options=FAST) as exchange, connect(exchange, path) as socket:
        assert await ask(socket, method="LIST_SUBSCRIPTIONS", id=1) == {"result": [], "id": 1}
        names = ["btcusdt@kline_1m", "btcusdt@trade"]
        assert await ask(socket, method="SUBSCRIBE", params=names, id="abc") == {"result": None, "id": "abc"}
        assert (await socket.receive_json(timeout=10))["e"] in ("kline", "trade")
        assert await ask(socket, method="UNSUBSCRIBE", params=names[:1], id=None) == {"result": None, "id": None}
        assert await ask(socket, method="LIST_SUBSCRIPTIONS", id=2) == {"result": names[1:], "id": 2}
        assert (await socket.receive_json(timeout=10))["e"] == "trade"


async def test_a_combined_connection_names_the_stream_and_answers_without_an_envelope(connect: Any) -> None:
    async with (
        exchange_of(simulated_file(), simulated_file("ETH/USDT"), options=FAST) as exchange,
        connect(exchange, "/stream?streams=btcusdt@kline_1m/ethusdt@kline_1m") as socket,
    ):
        told = {(await socket.receive_json(timeout=10))["stream"] for _ in range(8)}
        assert told == {"btcusdt@kline_1m", "ethusdt@kline_1m"}
        assert await ask(socket, method="GET_PROPERTY", params=["combined"], id=2) == {"result": True, "id": 2}
        assert await ask(socket, method="SET_PROPERTY", params=["combined", False], id=5) == {"result": None, "id": 5}
        assert "e" in await socket.receive_json(timeout=10)


@pytest.mark.parametrize(
    ("text", "code", "request_id"),
    [
        ("not json", 3, None),
        ("[1]", 2, None),
        ('{"id": 1}', 2, 1),
        ('{"method": "SUBSCRIBE", "id": 1}', 2, 1),
        ('{"method": "SUBSCRIBE", "params": "btcusdt@trade", "id": 7}', 2, 7),
        ('{"method": "SUBSCRIBE", "params": [1], "id": 7}', 2, 7),
        ('{"method": "BUY", "params": [], "id": 7}', 2, 7),
        ('{"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1.5}', 2, None),
        ('{"method": "LIST_SUBSCRIPTIONS", "id": "' + "x" * 37 + '"}', 2, None),
        ('{"method": "SET_PROPERTY", "params": ["combined", 1], "id": 3}', 2, 3),
    ],
)
async def test_a_wrong_control_message_is_answered_and_the_connection_lives(
    connect: Any, text: str, code: int, request_id: Any
) -> None:
    async with exchange_of() as exchange, connect(exchange, "/ws") as socket:
        await socket.send_str(text)
        said = await socket.receive_json(timeout=10)
        assert (said["code"], said["id"]) == (code, request_id)
        assert said["msg"].startswith("Invalid")
        assert await ask(socket, method="LIST_SUBSCRIPTIONS", id=1) == {"result": [], "id": 1}


async def test_an_unknown_stream_is_accepted_and_silent(connect: Any) -> None:
    async with exchange_of(options=FAST) as exchange, connect(exchange, "/ws/nixusdt@kline_1m") as socket:
        told = await ask(socket, method="SUBSCRIBE", params=["btcusdt@nothing"], id=1)
        assert told == {"result": None, "id": 1}
        await ask(socket, method="SUBSCRIBE", params=["btcusdt@trade"], id=2)
        assert (await socket.receive_json(timeout=10))["s"] == "BTCUSDT"


async def test_events_come_in_microseconds_when_asked_for(connect: Any) -> None:
    async with (
        exchange_of(options=FAST) as exchange,
        connect(exchange, "/ws/btcusdt@kline_1m?timeUnit=MICROSECOND") as socket,
    ):
        event = await socket.receive_json(timeout=10)
    assert event["k"]["t"] % 60_000_000 == 0
    assert event["k"]["T"] - event["k"]["t"] == 59_999_999
    assert event["E"] > 10**15


async def test_a_day_of_the_eastern_zone_has_a_stream_of_its_own(connect: Any) -> None:
    async with exchange_of(options=FAST) as exchange, connect(exchange, "/ws/btcusdt@kline_1d@+08:00") as socket:
        candle = (await socket.receive_json(timeout=10))["k"]
    assert (candle["i"], (candle["t"] + 8 * 3_600_000) % 86_400_000) == ("1d", 0)
    assert candle["T"] - candle["t"] == 86_399_999


async def test_at_the_clock_s_own_pace_a_candle_is_told_closed_just_after_its_minute(connect: Any) -> None:
    clock = ManualClock(datetime(2026, 11, 22, 12, 0, 42, 500_000, tzinfo=UTC))
    async with exchange_of(clock=clock) as exchange, connect(exchange, "/ws/btcusdt@kline_1m") as socket:
        await until(lambda: exchange.hub.has("btcusdt@kline_1m"))
        told = asyncio.create_task(closed_candles(socket, 2))
        await until_done(told, clock, step_seconds=0.5)
        events = told.result()
    minute = to_milliseconds(datetime(2026, 11, 22, 12, tzinfo=UTC))
    assert [event["k"]["t"] for event in events] == [minute, minute + 60_000]
    assert all(0 < event["E"] - event["k"]["T"] <= 10 for event in events)

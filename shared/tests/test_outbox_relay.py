"""The relay: what was committed is said until it is acknowledged, whatever happens to the bus."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shared.broker import Broker, RedisBroker
from shared.broker_memory import MemoryBroker
from shared.clock import ManualClock
from shared.db import Database
from shared.embedded_bus import EmbeddedBus
from shared.errors import BrokerError
from shared.outbox import OutboxLimits, OutboxRelay
from shared.testing.waiting import until

TOPIC = "signals"
LIMITS = OutboxLimits(resend_after_seconds=8, batch_max=3, outbox_rows_max=10, retention_seconds=60)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def database(database_url: str, clock: ManualClock) -> AsyncIterator[Database]:
    database = Database(database_url, clock=clock)
    await database.connect()
    yield database
    await database.close()


@pytest.fixture
def broker(clock: ManualClock) -> MemoryBroker:
    return MemoryBroker(clock=clock)


@pytest.fixture
def relay(database: Database, broker: MemoryBroker, clock: ManualClock) -> OutboxRelay:
    return OutboxRelay(database, broker, topics=[TOPIC, "orders"], limits=LIMITS, clock=clock)


async def commit(database: Database, *keys: str, topic: str = TOPIC) -> None:
    async with database.get_session() as session:
        rows = [{"topic": topic, "key": key, "payload": f'{{"key":"{key}"}}', "as_of": None} for key in keys]
        await database.append_outbox(session, rows)


async def acknowledge(database: Database, *keys: str, topic: str = TOPIC) -> None:
    async with database.get_session() as session:
        await database.ack_outbox(session, topic, list(keys))


async def said(broker: Broker, topic: str = TOPIC) -> list[str]:
    return [message.raw.decode()[8:-2] for message in await broker.read(topic)]


async def rows_of(database: Database, topic: str = TOPIC) -> list[str]:
    return [row.key for row in await database.pending_outbox(topic, 100)]


async def test_rows_go_to_the_stream_of_their_topic_in_order_and_once(
    database: Database, broker: MemoryBroker, relay: OutboxRelay
) -> None:
    await commit(database, *"abcdefg")
    await commit(database, "x", topic="orders")
    await commit(database, "nobody relays this", topic="other")
    assert await relay.send_due() == 8
    assert await relay.send_due() == 0
    assert await said(broker) == list("abcdefg")
    assert await said(broker, "orders") == ["x"]
    assert await said(broker, "other") == []


async def test_an_unacknowledged_row_is_sent_again_after_its_time_and_an_acknowledged_one_never(
    database: Database, broker: MemoryBroker, relay: OutboxRelay, clock: ManualClock
) -> None:
    await commit(database, "a", "b")
    await relay.send_due()
    await acknowledge(database, "a")
    await clock.advance(7.9)
    assert await relay.send_due() == 0
    await clock.advance(0.2)
    assert await relay.send_due() == 1
    await acknowledge(database, "b")
    await clock.advance(1000)
    assert await relay.send_due() == 0
    assert await said(broker) == ["a", "b", "b"]


async def test_a_row_whose_consumer_was_faster_is_still_said_once_to_those_who_listen(
    database: Database, broker: MemoryBroker, relay: OutboxRelay
) -> None:
    await commit(database, "a", "b")
    await acknowledge(database, "a")

    await relay.send_due()
    await relay.send_due()

    assert await said(broker) == ["a", "b"]


async def test_a_wiped_bus_fills_itself_again(
    database: Database, broker: MemoryBroker, relay: OutboxRelay, clock: ManualClock
) -> None:
    await commit(database, *"abcd")
    await relay.send_due()
    await acknowledge(database, "b")
    broker.wipe()
    await clock.advance(8.1)
    await relay.send_due()
    assert await said(broker) == ["a", "c", "d"]


async def test_a_bus_known_to_be_new_is_filled_at_once(
    database: Database, broker: MemoryBroker, relay: OutboxRelay, clock: ManualClock
) -> None:
    await commit(database, *"abcd")
    await relay.send_due()
    broker.wipe()
    relay.resend_all()
    assert await relay.send_due() == 4
    assert await relay.send_due() == 0
    assert await said(broker) == list("abcd")


async def test_a_restarted_relay_trusts_no_bus_and_sends_everything_open(
    database: Database, broker: MemoryBroker, relay: OutboxRelay, clock: ManualClock
) -> None:
    await commit(database, "a", "b")
    await relay.send_due()
    await acknowledge(database, "a")
    restarted = OutboxRelay(database, broker, topics=[TOPIC], limits=LIMITS, clock=clock)
    assert await restarted.send_due() == 1
    assert await said(broker) == ["a", "b", "b"]


async def test_rows_that_could_not_be_sent_stay_due(
    database: Database, broker: MemoryBroker, relay: OutboxRelay
) -> None:
    await commit(database, "a", "b")
    broker.is_available = False
    with pytest.raises(BrokerError):
        await relay.send_due()
    broker.is_available = True
    assert await relay.send_due() == 2
    assert await said(broker) == ["a", "b"]


async def test_a_bus_that_is_away_is_waited_for_and_nothing_is_lost(
    database: Database, broker: MemoryBroker, relay: OutboxRelay, clock: ManualClock
) -> None:
    broker.is_available = False
    await commit(database, "a", "b")
    stop = asyncio.Event()
    with capture_logs() as logs:
        running = asyncio.create_task(relay.run(stop))
        for _ in range(10):
            await until(lambda: clock.sleeper_count > 0)
            assert not relay.is_connected
            await clock.advance(5)
        broker.is_available = True
        await commit(database, "c")
        await until_advancing(clock, lambda: relay.is_connected)
        assert await said(broker) == ["a", "b", "c"]
        stop.set()
        await running
    assert [log["event"] for log in logs] == ["outbox.waiting", "outbox.connected_again"]


async def test_a_kick_is_answered_without_waiting_for_the_clock(
    database: Database, broker: MemoryBroker, relay: OutboxRelay, clock: ManualClock
) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    await until(lambda: clock.sleeper_count > 0)
    await commit(database, "a")
    relay.kick()
    await until_said(broker, "a")
    assert clock.monotonic() == 0
    stop.set()
    await running


async def test_without_a_kick_a_row_is_found_at_the_next_poll(
    database: Database, broker: MemoryBroker, relay: OutboxRelay, clock: ManualClock
) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    await until(lambda: clock.sleeper_count > 0)
    await commit(database, "a")
    await clock.advance(1.0)
    await until_said(broker, "a")
    stop.set()
    await running


async def test_acknowledged_rows_are_deleted_after_their_retention(
    database: Database, relay: OutboxRelay, clock: ManualClock
) -> None:
    await commit(database, *"abc")
    await acknowledge(database, "a", "b")
    assert await relay.prune() == 0
    await clock.advance(61)
    assert await relay.prune() == 2
    assert await rows_of(database) == ["c"]


async def test_a_filling_outbox_gives_up_its_acknowledged_rows_early(database: Database, relay: OutboxRelay) -> None:
    await commit(database, *"abcdefgh")
    await acknowledge(database, *"abcd")
    assert await relay.prune() == 4
    assert await rows_of(database) == list("efgh")
    assert not relay.is_over_max


async def test_too_many_unacknowledged_rows_are_an_alarm_said_once_a_minute_and_kept(
    database: Database, relay: OutboxRelay, clock: ManualClock
) -> None:
    await commit(database, *"abcdefghijkl")
    with capture_logs() as logs:
        await relay.prune()
        await relay.prune()
        await clock.advance(60)
        await relay.prune()
    assert relay.is_over_max
    assert [(log["event"], log["rows"], log["outbox_rows_max"]) for log in logs] == [("outbox.over_max", 12, 10)] * 2
    assert await rows_of(database) == list("abcdefghijkl")
    await acknowledge(database, *"abcdefghijkl")
    await relay.prune()
    assert not relay.is_over_max


async def test_the_running_relay_keeps_the_outbox_small(
    database: Database, relay: OutboxRelay, clock: ManualClock
) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    for number in range(12):
        await commit(database, f"k{number}")
        await acknowledge(database, f"k{number}")
        await until_advancing(clock, lambda: True)
    await clock.advance(61)
    await until(lambda: clock.sleeper_count > 0)
    await clock.advance(2)
    await until(lambda: clock.sleeper_count > 0)
    assert await relay.prune() == 0
    stop.set()
    await running


@pytest.mark.integration
async def test_a_killed_server_is_refilled_from_the_outbox_as_soon_as_it_is_back(
    database: Database, tmp_path: Path
) -> None:
    stop = asyncio.Event()
    async with EmbeddedBus(tmp_path) as bus:
        broker = RedisBroker(bus.url)
        relay = OutboxRelay(database, broker, topics=[TOPIC])
        supervisor = asyncio.create_task(bus.supervise(lambda _: relay.resend_all()))
        running = asyncio.create_task(relay.run(stop))
        await commit(database, *"abc")
        relay.kick()
        await until_said(broker, *"abc")
        await acknowledge(database, "b")
        assert bus.pid is not None
        os.kill(bus.pid, signal.SIGKILL)
        await until_refilled(broker, "a", "c")
        stop.set()
        await running
        await broker.close()
    await supervisor


async def until_refilled(broker: Broker, *keys: str) -> None:
    """Wait through the time in which the bus is away."""

    async def are_there() -> bool:
        with contextlib.suppress(BrokerError):
            return set(await said(broker)) == set(keys)
        return False

    await until(are_there)


async def until_said(broker: Broker, *keys: str) -> None:
    """Wait until the stream holds each of the keys, however often."""

    async def are_there() -> bool:
        return set(await said(broker)) == set(keys)

    await until(are_there)


async def until_advancing(clock: ManualClock, condition: Callable[[], bool]) -> None:
    """Let time pass a second at a time, each when somebody waits for it, until the condition holds."""
    await until(lambda: clock.sleeper_count > 0)
    while True:
        await clock.advance(1)
        await until(lambda: clock.sleeper_count > 0)
        if condition():
            return

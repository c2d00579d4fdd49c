from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry
from sqlalchemy import delete

from shared.broker import Broker, RedisBroker
from shared.broker_memory import MemoryBroker
from shared.clock import ManualClock
from shared.db import Database
from shared.door_bell import DoorBell
from shared.errors import BrokerError, ConfigError, DatabaseError, DatabaseUnavailable
from shared.events import Event, Watermark
from shared.metrics import ServiceMetrics
from shared.sa_models import DeadLetterRow
from shared.testing.builders import START
from shared.testing.waiting import until, until_done

type Turn = Callable[[], Awaitable[None]]


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    database = Database(sqlite_url)
    yield database
    await database.close()


class House:
    """A bell, what it hangs on, and the number of steps it was followed by."""

    def __init__(self, database: Database, dead_letters_max: int = 100, bus: Broker | None = None) -> None:
        self.clock, self.registry = ManualClock(), CollectorRegistry()
        self.bus: Any = bus or MemoryBroker(clock=self.clock)
        self.steps = 0
        self.faults: list[Exception] = []
        self.bell = DoorBell(
            self.bus,
            database,
            "house",
            ["one", "two"],
            clock=self.clock,
            log=structlog.stdlib.get_logger("test"),
            metrics=ServiceMetrics("house", self.registry, clock=self.clock),
            dead_letters_max=dead_letters_max,
        )

    async def step(self) -> bool:
        self.steps += 1
        if self.faults:
            raise self.faults.pop(0)
        return False

    async def until(self, reached: Callable[[], bool], stop: asyncio.Event, task: asyncio.Task[None]) -> None:
        await until(reached, clock=self.clock)
        stop.set()
        await until_done(task, self.clock)


async def test_a_ring_wakes_at_once_and_is_acknowledged_after_the_step(database: Database) -> None:
    house, stop = House(database), asyncio.Event()
    task = asyncio.create_task(house.bell.follow(house.step, stop))
    await until(lambda: house.clock.sleeper_count > 0)
    before = house.steps

    await house.bus.publish("two", {"version": 1, "type": "watermark", "id": "1", "data": {"service": "x"}})
    await until(lambda: house.steps > before)  # the clock stands still: nothing but the ring can end the wait
    await house.until(lambda: house.steps > before, stop, task)

    assert await house.bus.lag("house", "two") == 0


async def test_of_watermarks_only_those_that_are_heeded_wake_and_all_are_acknowledged(database: Database) -> None:
    house, stop = House(database), asyncio.Event()
    house.bell.heed("collector")
    heard: list[Event] = []
    house.bell.listen(heard.append)
    task = asyncio.create_task(house.bell.follow(house.step, stop))
    await until(lambda: house.clock.sleeper_count > 0)
    before = house.steps

    await house.bus.publish("one", Event(data=Watermark(service="portfolio"), as_of=START))
    await until(lambda: len(heard) == 1 and house.clock.sleeper_count > 0)
    assert house.steps == before
    await house.bus.publish("one", Event(data=Watermark(service="collector"), as_of=START))
    await until(lambda: house.steps > before)  # the clock stands still: nothing but the ring can end the wait
    await house.until(lambda: house.steps > before, stop, task)

    assert await house.bus.lag("house", "one") == 0


async def test_without_a_ring_the_database_is_looked_at_twice_a_second(database: Database) -> None:
    house, stop = House(database), asyncio.Event()
    task = asyncio.create_task(house.bell.follow(house.step, stop))

    await house.until(lambda: house.steps >= 5, stop, task)

    assert 1.5 <= house.clock.monotonic() <= 6


async def test_a_step_that_never_comes_back_means_a_restart_and_one_that_ended_does_not(database: Database) -> None:
    house, stop, never = House(database), asyncio.Event(), asyncio.Event()

    async def hang() -> bool:
        house.steps += 1
        return await never.wait()

    task = asyncio.create_task(house.bell.follow(hang, stop))
    await until(lambda: house.steps > 0)
    await house.clock.advance(299)
    assert house.bell.check_turning()[0]
    await house.clock.advance(2)
    assert not house.bell.check_turning()[0]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert house.bell.check_turning()[0], "nothing turns without a term, and nothing should"


@pytest.mark.parametrize("fault", [BrokerError("bus: away"), DatabaseUnavailable("database: away")])
async def test_what_is_away_is_waited_for_and_shows_in_the_health(database: Database, fault: Exception) -> None:
    house, stop = House(database), asyncio.Event()
    house.faults = [fault, fault]
    task = asyncio.create_task(house.bell.follow(house.step, stop))
    await until(lambda: house.steps > 0)
    assert house.bell.check(START) == (False, str(fault))

    await house.until(lambda: house.steps >= 4, stop, task)

    assert house.bell.check(START)[0]
    labels = {"service": "house", "error_type": type(fault).__name__}
    assert house.registry.get_sample_value("trading_errors_total", labels) == 2


@pytest.mark.parametrize("fault", [ConfigError("wrong"), DatabaseError("full"), AssertionError("broken")])
async def test_any_other_fault_ends_the_service(database: Database, fault: Exception) -> None:
    house = House(database)
    house.faults = [fault]

    with pytest.raises(type(fault)):
        await house.bell.follow(house.step, asyncio.Event())


async def test_a_step_that_does_not_end_shows_in_the_health(database: Database) -> None:
    house = House(database)
    hanging = asyncio.Event()

    async def step() -> bool:
        await hanging.wait()
        return False

    task = asyncio.create_task(house.bell.follow(step, asyncio.Event()))
    await asyncio.sleep(0)
    await house.clock.advance(61)

    assert house.bell.check(START) == (False, "one step has been under way for 61 s, at most 60 s are usual")
    task.cancel()


async def test_rubbish_is_put_on_record_once_and_bounded(database: Database) -> None:
    house = House(database, dead_letters_max=4)
    for number in range(6):
        await house.bus.publish("one", b"\xff\x00 %d" % number)

    await house.bell.wait()
    await house.bell.ack()

    async with database.read() as session:
        assert await database.count_rows(DeadLetterRow, session) == 4
    assert await house.bus.lag("house", "one") == 0
    assert len(await house.bus.read_dead_letters()) == 6
    labels = {"service": "house", "stream": "one"}
    assert house.registry.get_sample_value("trading_dead_letters_total", labels) == 6


@pytest.mark.integration
async def test_rubbish_that_is_heard_again_after_a_kill_is_put_on_record_once(
    database: Database, valkey_url: str
) -> None:
    killed, later = RedisBroker(valkey_url), RedisBroker(valkey_url)
    await killed.publish("one", b"\xff")
    await House(database, bus=killed).bell.wait()  # and never acknowledges it
    async with database.get_session() as session:
        await session.execute(delete(DeadLetterRow))  # as the bound does with the oldest
    bell = House(database, bus=later).bell
    await bell.wait()
    await bell.ack()
    assert await later.lag("house", "one") == 0, "it was heard again"
    assert await database.count_rows(DeadLetterRow) == 0
    assert len(await later.read_dead_letters()) == 1
    await killed.close()
    await later.close()


async def test_an_announcement_to_a_bus_that_is_away_is_no_fault(database: Database) -> None:
    house = House(database)
    house.bus.is_available = False

    await house.bell.announce(START)

    house.bus.is_available = True
    await house.bell.announce(START)
    event = (await house.bus.read("watermarks"))[0].event
    assert event is not None
    assert (event.data.service, event.as_of) == ("house", START)

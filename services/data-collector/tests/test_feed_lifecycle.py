"""A live feed reaches its venue once for all who wait, ends with its work, and leaves nothing running."""

from __future__ import annotations

import asyncio

import pytest

from data_collector.feeds.intake import LiveIntake
from data_collector.feeds.lifecycle import Lifecycle, Reach
from shared.clock import ManualClock
from shared.errors import ConfigError, TradingError, VenueUnavailable
from shared.testing.builders import candle


class Venue:
    """Fails with the given errors in turn, then answers."""

    def __init__(self, *errors: TradingError) -> None:
        self.errors = list(errors)
        self.attempts = 0
        self.waited_after: list[TradingError] = []

    async def attempt(self) -> None:
        self.attempts += 1
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)

    async def wait_after(self, error: TradingError) -> None:
        self.waited_after.append(error)

    def lifecycle(self, intake: LiveIntake | None = None) -> Lifecycle:
        return Lifecycle("test", Reach(self.attempt, self.wait_after), intake or LiveIntake(ManualClock()))


async def test_a_venue_that_is_away_is_asked_again_and_once_for_everybody() -> None:
    venue = Venue(VenueUnavailable("v", "away"), VenueUnavailable("v", "still away"))
    life = venue.lifecycle()
    await asyncio.gather(*(life.until_ready() for _ in range(3)))
    assert (venue.attempts, len(venue.waited_after)) == (3, 2)


async def test_who_stops_waiting_for_the_venue_does_not_stop_the_others() -> None:
    life = Venue(VenueUnavailable("v", "away")).lifecycle()
    first, second = asyncio.create_task(life.until_ready()), asyncio.create_task(life.until_ready())
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert first.cancelled()


async def test_a_mistake_of_the_person_is_told_and_not_asked_again() -> None:
    venue = Venue(ConfigError("symbols: no such market"))
    with pytest.raises(ConfigError, match="no such market"):
        await venue.lifecycle().until_ready()
    assert (venue.attempts, venue.waited_after) == (1, [])


async def test_work_that_fails_ends_the_batches_with_its_error_after_what_it_brought() -> None:
    intake = LiveIntake(ManualClock())

    async def bring_one_and_fail() -> None:
        intake.offer(candle(0))
        raise AssertionError("an invariant")

    batches = Venue().lifecycle(intake).batches(lambda: [bring_one_and_fail(), asyncio.Event().wait()], 10)
    async with asyncio.timeout(20):
        assert len((await anext(batches)).candles) == 1
        with pytest.raises(AssertionError, match="an invariant"):
            await anext(batches)


@pytest.mark.parametrize("end", ["by closing", "by cancelling"])
async def test_no_work_outlives_the_batches(end: str) -> None:
    intake, ended = LiveIntake(ManualClock()), asyncio.Event()

    async def bring() -> None:
        try:
            intake.offer(candle(0))
            await asyncio.Event().wait()
        finally:
            ended.set()

    batches = Venue().lifecycle(intake).batches(lambda: [bring()], 10)
    await anext(batches)
    assert not ended.is_set()
    if end == "by closing":
        await batches.aclose()
    else:
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert ended.is_set()


async def test_closing_ends_the_attempts_to_reach_the_venue() -> None:
    async def held(_error: TradingError) -> None:
        await asyncio.Event().wait()

    venue = Venue(VenueUnavailable("v", "away"))
    life = Lifecycle("test", Reach(venue.attempt, held), LiveIntake(ManualClock()))
    waiting = asyncio.create_task(life.until_ready())
    await asyncio.sleep(0)
    await life.close()
    assert await asyncio.gather(waiting, return_exceptions=True) != [None]
    assert waiting.cancelled()

"""Weight is spent as the venue counts it: by its minute, its word, and the pauses it orders."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from shared.clock import ManualClock
from shared.request_weight import WeightBudget


def clock_at(second: float) -> ManualClock:
    return ManualClock(datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=second))


async def spend(budget: WeightBudget, clock: ManualClock, weight: int, seconds: float) -> bool:
    """Return whether `weight` could be spent within `seconds`."""
    task = asyncio.create_task(budget.take(weight))
    await asyncio.sleep(0)
    if not task.done():
        await clock.advance(seconds)
    is_done = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return is_done


async def test_only_a_share_of_the_minute_is_spent_and_the_rest_waits_for_the_next_one() -> None:
    clock = clock_at(50)
    budget = WeightBudget(clock, weight_max=100, share=0.5)
    for _ in range(5):
        await budget.take(10)
    assert not await spend(budget, clock, 10, 9.0)
    assert await spend(budget, clock, 10, 2.0)
    assert budget.used == 10


async def test_the_minute_turns_by_the_venues_clock() -> None:
    clock = clock_at(50)
    budget = WeightBudget(clock, weight_max=10, share=1.0)
    budget.offset = timedelta(seconds=5)
    await budget.take(10)
    assert await spend(budget, clock, 10, 5.1)


async def test_what_others_spent_from_the_same_address_counts() -> None:
    clock = clock_at(0)
    budget = WeightBudget(clock, weight_max=100, share=0.5)
    await budget.take(2)
    budget.report(49)
    assert budget.used == 49
    assert not await spend(budget, clock, 2, 30.0)


async def test_an_ordered_pause_stops_every_request_until_it_is_over() -> None:
    clock = clock_at(0)
    budget = WeightBudget(clock)
    budget.pause(120)
    budget.pause(5)  # a shorter one does not lift it
    assert not await spend(budget, clock, 1, 119.0)
    assert await spend(budget, clock, 1, 2.0)


async def test_a_request_above_the_whole_share_is_made_when_nothing_else_was() -> None:
    clock = clock_at(10)
    budget = WeightBudget(clock, weight_max=20, share=0.4)
    assert await spend(budget, clock, 20, 0.0)
    assert not await spend(budget, clock, 20, 49.0)
    assert await spend(budget, clock, 20, 2.0)

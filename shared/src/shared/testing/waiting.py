"""The one way in which a test waits for what other tasks do: for a condition, never for a length of time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any, Final

from shared.clock import ManualClock

POLL_SECONDS: Final = 0.001
SECONDS_MAX: Final = 20.0


async def until(
    is_met: Callable[[], object],
    *,
    clock: ManualClock | None = None,
    step_seconds: float = 0.25,
    seconds_max: float = SECONDS_MAX,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Wait until a condition, plain or awaitable, holds; more than `seconds_max` of real time is a TimeoutError.

    Where others sleep on a manual `clock`, it goes on by `step_seconds` each time they all do.
    """
    async with asyncio.timeout(seconds_max):
        while True:
            outcome = is_met()
            if await outcome if isawaitable(outcome) else outcome:
                return
            if clock is not None and clock.sleeper_count:
                await clock.advance(step_seconds)
            await asyncio.sleep(poll_seconds)


async def until_done(task: asyncio.Future[Any], clock: ManualClock, *, step_seconds: float = 0.25) -> None:
    """Wait for a task's end while time passes on its clock, and raise what it raised."""
    await until(task.done, clock=clock, step_seconds=step_seconds)
    task.result()

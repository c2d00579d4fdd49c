"""What a feed of a live venue does whichever venue it is: become ready once, work beside its batches, end all of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, NamedTuple

from data_collector.feeds.intake import LiveIntake
from data_collector.feeds.port import FeedBatch
from shared.errors import ConfigError, TradingError
from shared.metrics import ServiceMetrics


class Reach(NamedTuple):
    """How a venue is reached at first: one attempt, and the wait after one that failed."""

    attempt: Callable[[], Awaitable[None]]
    wait_after: Callable[[TradingError], Awaitable[None]]


class Lifecycle:
    """The tasks of one feed: the one that reaches the venue, and those that fill its intake while batches are taken."""

    def __init__(self, name: str, reach: Reach, intake: LiveIntake, metrics: ServiceMetrics | None = None) -> None:
        self._name = name
        self._reach = reach
        self._intake = intake
        self._metrics = metrics
        self._ready: asyncio.Task[None] | None = None

    async def until_ready(self) -> None:
        """Wait until the venue has answered; whoever comes first begins, and nobody who leaves ends it for others."""
        if self._ready is None:
            self._ready = asyncio.create_task(self._make_ready(), name=f"{self._name} markets")
        await asyncio.shield(self._ready)

    async def batches(
        self, work: Callable[[], Iterable[Coroutine[Any, Any, None]]], candles_max: int
    ) -> AsyncIterator[FeedBatch]:
        """Yield what the `work`, begun once the venue is ready, brings into the intake; what it raises is raised here."""
        await self.until_ready()
        tasks = [asyncio.create_task(each) for each in work()]
        for task in tasks:
            task.add_done_callback(lambda _: self._intake.finish())
        try:
            while (batch := await self._intake.take(candles_max)) is not None:
                if self._metrics is not None:
                    self._metrics.queue("feed_intake", self._intake.depth, self._intake.candles_max)
                yield batch
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """End the attempts to reach the venue; the work ends with the batches."""
        if self._ready is not None:
            self._ready.cancel()
            await asyncio.gather(self._ready, return_exceptions=True)

    async def _make_ready(self) -> None:
        while True:
            try:
                await self._reach.attempt()
            except ConfigError:  # an unknown market is the person's mistake
                raise
            except TradingError as error:
                await self._reach.wait_after(error)
            else:
                return

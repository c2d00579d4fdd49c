"""The only source of time, chance and ids that are not derived from business facts."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import random
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Protocol

ID_NAMESPACE = uuid.UUID("7d9f0f0e-6f0b-5c52-9a0e-3b1f5a6c2d11")
_NAMESPACE_BYTES = ID_NAMESPACE.bytes


class Clock(Protocol):
    """Machine time; business time travels in events and never comes from here."""

    def now(self) -> datetime:
        """Return the wall clock as an aware UTC datetime."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of machine time."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the wall clock as an aware UTC datetime."""
        return datetime.now(UTC)  # noqa: TID251 - the one place

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()  # noqa: TID251 - the one place

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of machine time."""
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that stands still until `advance` is called; sleepers wake in order."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2024, 1, 1, tzinfo=UTC)
        self._monotonic = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        """Return the time set so far."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds advanced so far."""
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        """Wait until `advance` has passed `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), future))
        await future

    @property
    def sleeper_count(self) -> int:
        """Return how many tasks wait on this clock."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move time on, waking every sleeper that is due, each at its own instant."""
        end = self._monotonic + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self._sleepers)
            self._now += timedelta(seconds=due - self._monotonic)
            self._monotonic = due
            if not future.done():
                future.set_result(None)
            for _ in range(5):  # lets the woken task run up to its next wait
                await asyncio.sleep(0)
        self._now += timedelta(seconds=end - self._monotonic)
        self._monotonic = end


def seeded_random(seed: int | str | None = None) -> random.Random:  # noqa: TID251 - its type
    """Return a generator of chance: reproducible with a seed, from the system without."""
    return random.Random(seed)  # noqa: TID251 - the one place; no secret is made from it


def derived_id(*parts: object) -> str:
    """Return the uuid5 of the parts: the same facts always give the same id."""
    name = "|".join(map(str, parts)).encode()
    digits = hashlib.sha1(_NAMESPACE_BYTES + name, usedforsecurity=False).hexdigest()
    # what uuid.uuid5 does, without an object that nobody looks at: version 5, variant RFC 4122
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def random_id() -> str:
    """Return an id for a thing that has no facts to derive one from."""
    return str(uuid.uuid4())


def system_now() -> datetime:
    """Return the wall clock, for models built without a time by a person or a test."""
    return SystemClock().now()

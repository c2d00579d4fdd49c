"""The Bot API's wire: how fast it may be spoken to, and what its answers mean."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from typing import Any

from shared.clock import Clock
from shared.errors import RateLimited, VenueUnavailable


class Pace:
    """Lets at most `count` through in any `seconds`."""

    def __init__(self, count: int, seconds: float, *, clock: Clock) -> None:
        self._seconds, self._clock = seconds, clock
        self._taken: deque[float] = deque(maxlen=count)

    async def take(self) -> None:
        """Wait for a place and take it."""
        while len(self._taken) == self._taken.maxlen:
            wait = self._taken[0] + self._seconds - self._clock.monotonic()
            if wait <= 0:
                break
            await self._clock.sleep(wait)
        self._taken.append(self._clock.monotonic())


def read_answer(status: int, raw: bytes, retry_after: str) -> tuple[int, str]:
    """Return the status and description of an answer; what may be tried again is an exception."""
    try:
        answer: Any = json.loads(raw)
    except ValueError:
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    text = str(answer.get("description", ""))[:300]
    if status == 429:
        parameters = answer.get("parameters")
        stated = parameters.get("retry_after") if isinstance(parameters, dict) else None
        raise RateLimited("telegram", text, _seconds(stated, retry_after), status)
    if status >= 500 or (status == 200 and answer.get("ok") is not True):
        raise VenueUnavailable("telegram", text or "an answer that is none", status)
    return status, text


def _seconds(*candidates: object) -> float:
    for candidate in candidates:
        with contextlib.suppress(TypeError, ValueError):
            seconds = float(str(candidate))
            if 0 <= seconds < 1e6:
                return seconds
    return 1.0

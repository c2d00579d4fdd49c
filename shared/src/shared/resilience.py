"""Trying again, and knowing when not to: the only place that decides about retries."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Protocol

from shared.clock import Clock, SystemClock, seeded_random

type AsyncFunction[**P, R] = Callable[P, Awaitable[R]]


class UniformSource(Protocol):
    """A source of chance, such as `shared.clock.seeded_random` gives."""

    def uniform(self, a: float, b: float, /) -> float:
        """Return a number between `a` and `b`, all equally likely."""


def is_retryable(error: BaseException) -> bool:
    """Return whether a call that ended in `error` may be made again: by its own word, else if a connection failed."""
    word = getattr(error, "retryable", None)
    if isinstance(word, bool):
        return word
    aiohttp = sys.modules.get("aiohttp")  # nobody can raise its errors before it is imported, which takes long
    if aiohttp is not None:
        if isinstance(error, aiohttp.ClientSSLError):  # a certificate does not get better by asking again
            return False
        if isinstance(error, aiohttp.ClientConnectionError):
            return True
    return isinstance(error, ConnectionError | TimeoutError)


def retry_after_seconds(error: BaseException) -> float:
    """Return how long the other side asks us to wait, 0 when it does not say."""
    wait = getattr(error, "retry_after_seconds", None)
    return float(wait) if isinstance(wait, int | float) and math.isfinite(wait) and wait > 0 else 0.0


def retry_with_backoff[**P, R](
    max_retries: int = 3,
    base_delay: float = 1.0,
    max_delay: float = 60.0,
    *,
    clock: Clock | None = None,
    rng: UniformSource | None = None,
    deadline: float | None = None,
    on_retry: Callable[[BaseException, float], object] | None = None,
) -> Callable[[AsyncFunction[P, R]], AsyncFunction[P, R]]:
    """Return a decorator that makes an async function try at most `max_retries` times in all.

    Between attempts it waits a random time up to `base_delay`, 2, 4, 8 ... times that, at most `max_delay` seconds,
    and never less than the other side asked for. It does not start a wait that would pass `deadline` seconds from
    the first attempt. The last error is raised as it came.
    """
    if max_retries < 1:
        raise ValueError(f"max_retries counts the attempts in all and must be at least 1, was {max_retries}")
    if not (0 <= base_delay < math.inf and 0 <= max_delay < math.inf):
        raise ValueError(f"delays must be finite and not negative, were {base_delay} and {max_delay}")
    time, chance = clock or SystemClock(), rng or seeded_random()

    def decorate(function: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
        @functools.wraps(function)
        async def attempt_again(*args: P.args, **kwargs: P.kwargs) -> R:
            start = time.monotonic()
            ceiling = min(base_delay, max_delay)
            for attempt in range(1, max_retries + 1):
                try:
                    return await function(*args, **kwargs)
                except Exception as error:
                    delay = max(chance.uniform(0, ceiling), retry_after_seconds(error))
                    late = deadline is not None and time.monotonic() + delay - start > deadline
                    if attempt == max_retries or late or not is_retryable(error):
                        raise
                    if on_retry is not None:
                        on_retry(error, delay)
                await time.sleep(delay)
                ceiling = min(ceiling * 2, max_delay)
            raise AssertionError("the last attempt returns or raises")

        return attempt_again

    return decorate


class CircuitState(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Stops calling what keeps failing.

    `failure_threshold` failures in a row open it. After `recovery_timeout` seconds it is half open: one probe goes
    through, and its outcome closes the breaker or opens it anew. A probe that never reports is given up after the
    same time. What calls sent before the opening report later changes nothing.
    """

    def __init__(
        self, failure_threshold: int = 5, recovery_timeout: float = 60.0, *, clock: Clock | None = None
    ) -> None:
        if failure_threshold < 1:
            raise ValueError(f"failure_threshold must be at least 1, was {failure_threshold}")
        if not 0 <= recovery_timeout < math.inf:
            raise ValueError(f"recovery_timeout must be finite and not negative, was {recovery_timeout}")
        self.failure_threshold, self.recovery_timeout = failure_threshold, recovery_timeout
        self._clock = clock or SystemClock()
        self._failures = 0
        self._opened_at: float | None = None
        self._probe_at: float | None = None

    @property
    def state(self) -> CircuitState:
        """Return the state now."""
        if self._opened_at is None:
            return CircuitState.CLOSED
        if self._probe_at is None and self._clock.monotonic() - self._opened_at < self.recovery_timeout:
            return CircuitState.OPEN
        return CircuitState.HALF_OPEN

    @property
    def failure_count(self) -> int:
        """Return the failures in a row so far."""
        return self._failures

    @property
    def retry_in_seconds(self) -> float:
        """Return how long until a request may be allowed again; 0 when one may be now."""
        since = self._opened_at if self._probe_at is None else self._probe_at
        return 0.0 if since is None else max(0.0, since + self.recovery_timeout - self._clock.monotonic())

    def allow_request(self) -> bool:
        """Return whether a call may be made now; when half open, true for one caller: the probe."""
        if self._opened_at is None:
            return True
        if self.retry_in_seconds > 0 or (self._probe_at is not None and self.recovery_timeout == 0):
            return False
        self._probe_at = self._clock.monotonic()
        return True

    def record_success(self) -> None:
        """Note a call that worked: it closes a half-open breaker whose probe it was."""
        if self._opened_at is not None and self._probe_at is None:
            return  # sent before the opening: it says nothing about now
        self._failures, self._opened_at, self._probe_at = 0, None, None

    def record_failure(self) -> None:
        """Note a call that failed."""
        if self._opened_at is not None and self._probe_at is None:
            return
        self._failures += 1
        if self._probe_at is not None or self._failures >= self.failure_threshold:
            self._opened_at, self._probe_at = self._clock.monotonic(), None


class Outside:
    """What is known of one thing outside that we call: its name, its breaker, and how often a call was made again."""

    def __init__(self, name: str, breaker: CircuitBreaker) -> None:
        self.name, self.breaker = name, breaker
        self.retry_count = 0

    def retried(self, *_: object) -> None:
        """Count a call that is made again; fits `on_retry`."""
        self.retry_count += 1

    @contextmanager
    def calling(self, failure: type[Exception], refused: Callable[[str], Exception]) -> Iterator[None]:
        """Make one call inside, if the breaker allows it: `failure` counts as one, any other error is an answer.

        A call that is not made raises what `refused` makes of the reason.
        """
        if not self.breaker.allow_request():
            wait = self.breaker.retry_in_seconds
            raise refused(f"not asked, as it kept failing; the next try is in {wait:.1f} s")
        try:
            yield
        except failure:
            self.breaker.record_failure()
            raise
        except Exception:
            self.breaker.record_success()
            raise
        except BaseException:  # cut off from our side: a probe must not leave the breaker waiting for its answer
            if self.breaker.state is not CircuitState.CLOSED:
                self.breaker.record_failure()
            raise
        self.breaker.record_success()


class Backoff:
    """How long something that is tried for ever waits before the next attempt.

    From half of `base_delay` up to it, then 2, 4, 8 ... times that, at most `max_delay` seconds; never less than the
    other side asked for.
    """

    def __init__(self, base_delay: float, max_delay: float, *, rng: UniformSource | None = None) -> None:
        if not (0 < base_delay <= max_delay < math.inf):
            raise ValueError(f"delays must be positive, finite and in order, were {base_delay} and {max_delay}")
        self._base_delay, self._max_delay = base_delay, max_delay
        self._rng = rng or seeded_random()
        self._attempts = 0

    def next_seconds(self, error: BaseException | None = None) -> float:
        """Return how long to wait now, after an attempt that ended in `error`."""
        ceiling = min(self._base_delay * 2 ** min(self._attempts, 32), self._max_delay)
        self._attempts += 1
        asked = retry_after_seconds(error) if error is not None else 0.0
        return max(self._rng.uniform(ceiling / 2, ceiling), asked)

    def reset(self) -> None:
        """Begin anew: an attempt succeeded."""
        self._attempts = 0

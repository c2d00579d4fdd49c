"""Retries and breakers, on a clock that only moves when told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clock import ManualClock, seeded_random
from shared.errors import OrderUnknown, RateLimited, VenueUnavailable
from shared.resilience import CircuitBreaker, CircuitState, is_retryable, retry_with_backoff


class Calls:
    """A function that fails with each error of a list, then returns."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.count = 0

    async def __call__(self, value: str = "done") -> str:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        return value


class FullDelay:
    """A source of chance that always takes the longest wait."""

    def uniform(self, a: float, b: float, /) -> float:
        return max(a, b)


async def run_through(clock: ManualClock, task: asyncio.Task[str]) -> float:
    """Move the clock on whenever the task waits for it; return the seconds it took."""
    while not task.done():
        await asyncio.sleep(0)
        if clock.sleeper_count:
            await clock.advance(0.5)
    return clock.monotonic()


async def test_max_retries_counts_the_attempts_in_all() -> None:
    calls = Calls(*[ConnectionError("away")] * 9)
    again = retry_with_backoff(max_retries=3, base_delay=0)(calls)
    with pytest.raises(ConnectionError):
        await again()
    assert calls.count == 3


async def test_one_attempt_is_no_retry() -> None:
    calls = Calls(ConnectionError())
    with pytest.raises(ConnectionError):
        await retry_with_backoff(max_retries=1, base_delay=0)(calls)()
    assert calls.count == 1


async def test_arguments_and_result_pass_through() -> None:
    @retry_with_backoff(base_delay=0)
    async def echo(left: int, *, right: int) -> tuple[int, int]:
        """Say it again."""
        return left, right

    assert await echo(1, right=2) == (1, 2)
    assert (echo.__name__, echo.__doc__) == ("echo", "Say it again.")


async def test_waits_double_up_to_the_longest() -> None:
    clock = ManualClock()
    waits: list[float] = []
    calls = Calls(*[TimeoutError()] * 5)
    again = retry_with_backoff(6, 1.0, 5.0, clock=clock, rng=FullDelay(), on_retry=lambda _, wait: waits.append(wait))
    task = asyncio.create_task(again(calls)())  # type: ignore[arg-type]
    await run_through(clock, task)
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert task.result() == "done"


@given(st.integers(0, 2**32), st.floats(0, 10), st.floats(0, 10))
def test_every_wait_is_between_nothing_and_the_longest(seed: int, base: float, longest: float) -> None:
    waits: list[float] = []

    class Instant(ManualClock):
        async def sleep(self, seconds: float) -> None:
            waits.append(seconds)

    calls = Calls(*[ConnectionError()] * 6)
    asyncio.run(retry_with_backoff(7, base, longest, clock=Instant(), rng=seeded_random(seed))(calls)())  # type: ignore[arg-type]
    assert len(waits) == 6
    assert all(0 <= wait <= longest for wait in waits)


async def test_the_wait_the_other_side_asks_for_is_kept() -> None:
    clock = ManualClock()
    calls = Calls(RateLimited("venue", "slow down", retry_after_seconds=30))
    task = asyncio.create_task(retry_with_backoff(clock=clock, rng=FullDelay())(calls)())  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await clock.advance(29)
    assert calls.count == 1
    await clock.advance(1)
    assert await task == "done"


async def test_no_wait_begins_that_would_pass_the_deadline() -> None:
    clock = ManualClock()
    calls = Calls(*[TimeoutError()] * 9)
    again = retry_with_backoff(9, 4.0, 60.0, clock=clock, rng=FullDelay(), deadline=13.0)(calls)
    task = asyncio.create_task(again())  # type: ignore[arg-type]
    took = await run_through(clock, task)
    assert isinstance(task.exception(), TimeoutError)
    assert (calls.count, took) == (3, 12.0)  # waits of 4 and 8; the next, 16, would end at 28


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (aiohttp.ServerDisconnectedError(), True),
        (aiohttp.ClientConnectionError(), True),
        (VenueUnavailable("venue", "502"), True),
        (OrderUnknown("venue", "no answer"), False),
        (ValueError(), False),
        (OSError("disk"), False),
        (KeyError("x"), False),
    ],
)
async def test_what_is_tried_again(error: Exception, expected: bool) -> None:
    assert is_retryable(error) is expected
    calls = Calls(error)
    again = retry_with_backoff(base_delay=0)(calls)
    if expected:
        assert await again() == "done"
    else:
        with pytest.raises(type(error)):
            await again()
        assert calls.count == 1


def test_an_error_that_says_no_is_believed_whatever_its_class() -> None:
    class Final(ConnectionError):
        retryable = False

    assert not is_retryable(Final())


async def test_a_cancelled_call_is_not_made_again() -> None:
    count = 0

    @retry_with_backoff(base_delay=0)
    async def cancelled() -> None:
        nonlocal count
        count += 1
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await cancelled()
    assert count == 1


@pytest.mark.parametrize(
    "build",
    [
        lambda: retry_with_backoff(max_retries=0),
        lambda: retry_with_backoff(base_delay=-1),
        lambda: retry_with_backoff(max_delay=float("nan")),
        lambda: CircuitBreaker(failure_threshold=0),
        lambda: CircuitBreaker(recovery_timeout=float("inf")),
    ],
)
def test_impossible_figures_are_refused(build: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"was|were"):
        build()


def opened(clock: ManualClock) -> CircuitBreaker:
    breaker = CircuitBreaker(2, 60.0, clock=clock)
    breaker.record_failure()
    assert breaker.state == CircuitState.CLOSED
    breaker.record_failure()
    assert breaker.state == CircuitState.OPEN
    return breaker


async def test_failures_in_a_row_open_it_and_a_success_between_starts_anew() -> None:
    breaker = CircuitBreaker(2, clock=ManualClock())
    breaker.record_failure()
    breaker.record_success()
    breaker.record_failure()
    assert breaker.allow_request()
    breaker.record_failure()
    assert not breaker.allow_request()
    assert breaker.retry_in_seconds == 60.0


async def test_half_open_lets_exactly_one_probe_through() -> None:
    clock = ManualClock()
    breaker = opened(clock)
    await clock.advance(59.9)
    assert not breaker.allow_request()
    await clock.advance(0.1)
    assert breaker.state == CircuitState.HALF_OPEN
    assert [breaker.allow_request() for _ in range(5)] == [True, False, False, False, False]
    breaker.record_success()
    assert breaker.state == CircuitState.CLOSED
    assert breaker.failure_count == 0


async def test_a_failed_probe_opens_it_for_the_whole_time_again() -> None:
    clock = ManualClock()
    breaker = opened(clock)
    await clock.advance(60)
    assert breaker.allow_request()
    breaker.record_failure()
    assert breaker.state == CircuitState.OPEN
    await clock.advance(59)
    assert not breaker.allow_request()
    await clock.advance(1)
    assert breaker.allow_request()


async def test_a_late_success_does_not_close_an_open_breaker() -> None:
    clock = ManualClock()
    breaker = opened(clock)
    breaker.record_success()
    assert breaker.state == CircuitState.OPEN
    await clock.advance(30)
    breaker.record_failure()  # nor does a late failure keep it open for longer
    await clock.advance(30)
    assert breaker.allow_request()


async def test_a_probe_that_never_reports_is_given_up() -> None:
    clock = ManualClock()
    breaker = opened(clock)
    await clock.advance(60)
    assert breaker.allow_request()
    await clock.advance(60)
    assert [breaker.allow_request(), breaker.allow_request()] == [True, False]


@given(st.lists(st.sampled_from(["ask", "good", "bad", "wait"]), max_size=60))
def test_an_open_breaker_never_lets_two_through_within_its_time(steps: list[str]) -> None:
    async def live() -> None:
        clock = ManualClock()
        breaker = CircuitBreaker(2, 10.0, clock=clock)
        last_probe: float | None = None
        for step in steps:
            before = breaker.state
            if step == "ask" and breaker.allow_request() and before != CircuitState.CLOSED:
                assert before == CircuitState.HALF_OPEN
                assert last_probe is None or clock.monotonic() - last_probe >= 10.0
                last_probe = clock.monotonic()
            elif step == "good":
                breaker.record_success()
                last_probe = None if breaker.state == CircuitState.CLOSED else last_probe
            elif step == "bad":
                breaker.record_failure()
            elif step == "wait":
                await clock.advance(5.0)

    asyncio.run(live())

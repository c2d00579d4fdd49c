"""One guarded call to something outside, and waits without end."""

from __future__ import annotations

import asyncio

import pytest

from shared.clock import ManualClock, seeded_random
from shared.errors import RateLimited
from shared.resilience import Backoff, CircuitBreaker, CircuitState, Outside


def test_a_guarded_call_that_keeps_failing_is_not_made_until_its_pause_is_over() -> None:
    clock = ManualClock()
    outside = Outside("bus", CircuitBreaker(2, 10, clock=clock))
    for _ in range(2):
        with pytest.raises(ConnectionResetError), outside.calling(ConnectionError, ConnectionAbortedError):
            raise ConnectionResetError
    assert outside.breaker.state is CircuitState.OPEN
    with (
        pytest.raises(ConnectionAbortedError, match=r"the next try is in 10\.0 s"),
        outside.calling(OSError, ConnectionAbortedError),
    ):
        raise AssertionError("it was called")


async def test_any_other_error_is_an_answer_and_closes_the_breaker() -> None:
    clock = ManualClock()
    outside = Outside("bus", CircuitBreaker(1, 10, clock=clock))
    outside.breaker.record_failure()
    await clock.advance(10)
    with pytest.raises(ValueError, match="no"), outside.calling(ConnectionError, ConnectionAbortedError):
        raise ValueError("no")
    assert outside.breaker.state is CircuitState.CLOSED


async def test_a_probe_that_is_cut_off_leaves_the_breaker_open() -> None:
    clock = ManualClock()
    outside = Outside("bus", CircuitBreaker(1, 10, clock=clock))
    outside.breaker.record_failure()
    await clock.advance(10)
    with pytest.raises(asyncio.CancelledError), outside.calling(ConnectionError, ConnectionAbortedError):
        raise asyncio.CancelledError
    assert outside.breaker.state is CircuitState.OPEN


def test_waits_for_ever_grow_to_their_bound_keep_what_was_asked_and_begin_anew() -> None:
    backoff = Backoff(1, 8, rng=seeded_random(1))
    waits = [backoff.next_seconds() for _ in range(40)]
    ceilings = [1, 2, 4, *[8] * 37]
    assert all(ceiling / 2 <= wait <= ceiling for wait, ceiling in zip(waits, ceilings, strict=True))
    assert backoff.next_seconds(RateLimited("venue", "later", 30.0)) == 30
    backoff.reset()
    assert backoff.next_seconds() <= 1


@pytest.mark.parametrize(("base", "most"), [(0, 1), (2, 1), (1, float("inf"))])
def test_waits_that_cannot_be_are_refused(base: float, most: float) -> None:
    with pytest.raises(ValueError, match="positive, finite and in order"):
        Backoff(base, most)

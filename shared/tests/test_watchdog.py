"""Foreign code is interrupted after its bound, and signals are left as they were found."""

from __future__ import annotations

import contextlib
import signal

import pytest

from shared.watchdog import CallGuard, DeadlineExceeded, deadline

SECONDS = 0.05


def loop_for_ever() -> None:
    while True:
        pass


def test_code_that_never_answers_is_interrupted() -> None:
    with pytest.raises(DeadlineExceeded, match=r"0\.05 s"), deadline(SECONDS):
        loop_for_ever()


def test_a_catch_all_of_the_code_itself_does_not_swallow_the_interruption() -> None:
    def swallow() -> None:
        while True:
            with contextlib.suppress(Exception):  # what a careless plug-in does
                loop_for_ever()

    with pytest.raises(DeadlineExceeded), deadline(SECONDS):
        swallow()


def test_the_handler_of_before_is_back_after_a_deadline() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with deadline(SECONDS):
        pass
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[1] == 0.0  # ticks no more; a timer of the test runner may wait


@pytest.mark.parametrize("is_entered", [True, False])
def test_a_guard_interrupts_the_one_call_that_never_answers(is_entered: bool) -> None:
    guard = CallGuard(SECONDS)
    if is_entered:
        guard.__enter__()
    try:
        assert [guard.call(abs, -number) for number in range(1_000)] == list(range(1_000))
        with pytest.raises(DeadlineExceeded):
            guard.call(loop_for_ever)
        assert guard.call(abs, -1) == 1
    finally:
        guard.__exit__()


def test_many_short_calls_that_together_take_longer_than_the_bound_go_on() -> None:
    with CallGuard(SECONDS) as guard:
        ticks = signal.getitimer(signal.ITIMER_REAL)[1]
        turns = 0
        while guard.call(lambda: None) is None and turns < 400_000:
            turns += 1
        assert ticks == pytest.approx(SECONDS)
        assert turns == 400_000


def test_a_deadline_inside_a_guard_lets_the_guard_tick_on() -> None:
    with CallGuard(SECONDS) as guard:
        with deadline(10.0):
            pass
        with pytest.raises(DeadlineExceeded):
            guard.call(loop_for_ever)
    assert signal.getitimer(signal.ITIMER_REAL)[1] == 0.0  # ticks no more; a timer of the test runner may wait

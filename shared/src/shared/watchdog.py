"""A bound on how long foreign code may run in the main thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import length_hint
from types import FrameType
from typing import Any, Self


class DeadlineExceeded(BaseException):
    """Foreign code ran past its bound; a BaseException, so that its own `except Exception` cannot swallow it."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Interrupt the body with `DeadlineExceeded` after `seconds`; machine code runs to its end first.

    Works in the main thread, where timer signals arrive; elsewhere the body runs without a bound.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        raise DeadlineExceeded(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)


class CallGuard:
    """Bounds very many short calls with one ticking timer, where a timer of its own for each would cost more than they.

    Entered, a call that is still the same one at two ticks is interrupted: after one to two times `seconds`. Not
    entered, every call has a `deadline` of its own. While `is_ticking`, a loop for which even `call` is dear may go
    through its items under `watching`.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.is_ticking = False
        self._is_calling = False
        self._calls = 0
        self._items: Iterator[Any] = iter(())
        self._place_at_tick = (-1, 0)
        self._before: Any = None
        self._timer: tuple[float, float] = (0.0, 0.0)

    def call[**P, T](self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns, or raise `DeadlineExceeded`."""
        if not self.is_ticking:
            with deadline(self.seconds):
                return function(*args, **kwargs)
        self._calls += 1
        self._is_calling = True
        try:
            return function(*args, **kwargs)
        finally:
            self._is_calling = False

    @contextmanager
    def watching(self, items: Iterator[Any]) -> Iterator[None]:
        """Bound the time that the body takes for each of `items`, an iterator over a list that it goes through.

        How many are left is asked of the iterator, at a tick: an item costs nothing.
        """
        self._calls += 1
        self._items, self._is_calling = items, True
        try:
            yield
        finally:
            self._items, self._is_calling = iter(()), False

    def __enter__(self) -> Self:
        """Start ticking, where timer signals arrive."""
        if threading.current_thread() is threading.main_thread() and not self.is_ticking:
            self._before = signal.signal(signal.SIGALRM, self._tick)
            self._timer = signal.setitimer(signal.ITIMER_REAL, self.seconds, self.seconds)
            self.is_ticking = True
        return self

    def __exit__(self, *_: object) -> None:
        """Stop ticking and leave signals as they were."""
        if self.is_ticking:
            self.is_ticking = False
            signal.setitimer(signal.ITIMER_REAL, *self._timer)
            signal.signal(signal.SIGALRM, self._before)

    def _tick(self, _signum: int, _frame: FrameType | None) -> None:
        place = (self._calls, length_hint(self._items))
        if self._is_calling and place == self._place_at_tick:
            raise DeadlineExceeded(f"no answer within {self.seconds:g} s")
        self._place_at_tick = place

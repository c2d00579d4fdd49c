"""The event engine: any plug-in, candle by candle, through the very book and paper venue that trade."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from itertools import count
from typing import Protocol

from backtester.options import BacktestOptions, checked_balance
from backtester.outcome import Setup, make_result
from backtester.playback import PROGRESS_CANDLES, play
from backtester.result import BacktestResult
from shared.clock import Clock, SystemClock
from shared.domain.book import Book
from shared.domain.matching import signal_age_max
from shared.domain.paper import PaperVenue
from shared.domain.rounding import money
from shared.errors import ConfigError
from shared.models import TIMEFRAME_DELTA, Candle, InstanceKey, Signal
from shared.strategy_runner import CALL_SECONDS_MAX, InstanceStamp, StrategyRunner
from shared.watchdog import CallGuard

__all__ = ["PROGRESS_CANDLES", "BacktestEngine", "StrategyProtocol"]


class StrategyProtocol(Protocol):
    """The least that a strategy must offer to be run."""

    name: str

    @property
    def warmup_period(self) -> int:
        """Return the number of the first candle whose signal counts."""

    def on_candle(self, candle: Candle) -> Signal | None:
        """Return a signal for a candle that has just closed, or None."""

    def reset(self) -> None:
        """Forget every candle."""


class BacktestEngine:
    """Runs a strategy over candles; several symbols trade equal parts of the balance, each with a copy of it.

    `detail` gives the finer candles of a candle that reaches a stop and the target, oldest first.
    """

    def __init__(
        self,
        strategy: StrategyProtocol,
        initial_balance: Decimal | int | float | str = Decimal(10_000),
        options: BacktestOptions | None = None,
        *,
        clock: Clock | None = None,
        detail: Callable[[Candle], Sequence[Candle]] = lambda _candle: (),
    ) -> None:
        self._strategy = strategy
        self._balance = checked_balance(initial_balance)
        self._options = options or BacktestOptions()
        self._clock = clock or SystemClock()
        self._detail = detail

    def run(
        self,
        candles: Iterable[Candle],
        history: Iterable[Candle] = (),
        on_progress: Callable[[int], None] | None = None,
    ) -> BacktestResult:
        """Return the outcome over `candles`; `history` lies before them and is only fed, nothing of it trades.

        `on_progress` is told now and then how many candles are done.
        """
        listed = candles if isinstance(candles, Sequence) else list(candles)
        started = self._clock.monotonic()
        guard = CallGuard(CALL_SECONDS_MAX)
        setup = self._set_up(listed, guard)
        with guard:
            _feed_history(setup, history)
            played = play(
                setup.paper,
                setup.runners,
                listed,
                on_progress or (lambda _done: None),
                ends_flat=self._options.close_at_end,
            )
        return make_result(setup, played, self._clock.monotonic() - started)

    def _set_up(self, candles: Sequence[Candle], guard: CallGuard) -> Setup:
        options, numbers = self._options, count(1)

        def make_id(*_facts: object) -> str:
            return str(next(numbers))  # nothing of a run is stored, so nobody asks for the lasting id

        book = Book(options.book_rules(), self._balance, make_id=make_id)
        runners: dict[tuple[str, str], StrategyRunner] = {}
        streams = _streams(candles)
        for stream in streams:
            if stream[1] not in TIMEFRAME_DELTA:
                raise ConfigError(f"candles: timeframe {stream[1]!r} is unknown; known: {', '.join(TIMEFRAME_DELTA)}")
            strategy = self._strategy if len(streams) == 1 else copy.deepcopy(self._strategy)
            strategy.reset()
            key = InstanceKey(strategy.name, *stream)
            stamp = InstanceStamp(signal_age_max(stream[1], options.age_max), mode="backtest", make_id=make_id)
            runners[stream] = StrategyRunner(key, strategy, stamp, guard=guard)  # type: ignore[arg-type]
            rules = options.instance_rules(key, strategy)  # type: ignore[arg-type]
            book.open_account(key, rules, money(self._balance / len(streams)))
        paper = PaperVenue(book, fills_at_close=options.fill == "close", detail=self._detail)
        return Setup(self._strategy, options, candles, paper, runners)


def _streams(candles: Sequence[Candle]) -> list[tuple[str, str]]:
    if not candles:
        return []
    symbol, timeframe = candles[0].symbol, candles[0].timeframe
    if all([candle.symbol == symbol and candle.timeframe == timeframe for candle in candles]):  # noqa: C419 - quicker
        return [(symbol, timeframe)]
    return sorted({(candle.symbol, candle.timeframe) for candle in candles})


def _feed_history(setup: Setup, history: Iterable[Candle]) -> None:
    """Show strategies and the venue's volumes what lies before the run."""
    for candle in history:
        runner = setup.runners.get((candle.symbol, candle.timeframe))
        if runner is not None:
            runner.feed(candle)
            if setup.paper.volumes is not None:
                setup.paper.volumes.observe(candle.symbol, candle.timeframe, candle.volume)

"""The compiled engine: the event engine's results for strategies with a step, a thousand times as fast."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from types import SimpleNamespace

import msgspec

from backtester.compiled.decoding import Finished, to_result
from backtester.compiled.run import CompiledRun, StepsOverflowError
from backtester.data import CandleData
from backtester.options import BacktestOptions
from backtester.result import BacktestResult, RunSeconds
from shared.clock import Clock, SystemClock
from shared.errors import ConfigError
from shared.models import InstanceKey, to_decimal
from shared.strategy import BaseStrategy, CompiledStrategy

__all__ = ["CompiledEngine", "StepsOverflowError", "why_not_compiled"]

OWN_METHODS = ("on_candle", "signal", "reset")


def why_not_compiled(strategy: BaseStrategy, options: BacktestOptions) -> str | None:
    """Return why only the event engine can run this, or None."""
    if not isinstance(strategy, CompiledStrategy):
        return f"{strategy.name}, which has no step"
    changed = [name for name in OWN_METHODS if getattr(type(strategy), name) is not getattr(CompiledStrategy, name)]
    if changed:
        return f"{strategy.name}, which has its own {', '.join(changed)} beside its step"
    if options.limits is not None:
        return "account limits (--risk live)"
    return None


class CompiledEngine:
    """Runs a strategy that has a step over the candles of one stream.

    Compile or load its machine code by `prepare`, once, before the time is taken.
    """

    def __init__(
        self,
        strategy: CompiledStrategy,
        initial_balance: Decimal | int | float | str = Decimal(10_000),
        options: BacktestOptions | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._options = options or BacktestOptions()
        refusal = why_not_compiled(strategy, self._options)
        if refusal is not None:
            raise ConfigError(f"engine compiled: cannot run {refusal}; use auto or event")
        self._balance = to_decimal(initial_balance)
        if not (self._balance.is_finite() and self._balance > 0):
            raise ConfigError(f"initial balance: must be > 0, was {self._balance}; give the money the run starts with")
        self._strategy = strategy
        self._clock = clock or SystemClock()
        self._run = CompiledRun(strategy, self._balance, self._options)

    @property
    def machine_code(self) -> SimpleNamespace:
        """Return the strategy's loops by name, as numba's functions."""
        return self._run.loops

    def prepare(self, data: CandleData) -> None:
        """Make the machine code now, or load it."""
        self._run.prepare(data)

    def run(
        self, data: CandleData, history_start: int | None = None, on_progress: Callable[[int], None] | None = None
    ) -> BacktestResult:
        """Return the outcome over `data`.

        Its history from row `history_start` on (None: none of it) is fed first and does not trade. `on_progress` is
        told now and then how many candles are done. The strategy is left in the state after the last candle.

        Raises
        ------
        StepsOverflowError
            If a quantity is more steps of the instrument than int64 counts.
        """
        started = self._clock.monotonic()
        outcome = self._run.play(data, history_start, on_progress)
        seconds = self._clock.monotonic() - started
        reasons = self._run.describe(data, outcome.trades, history_start)
        head = self._strategy.snapshot()[: -outcome.states.nbytes]
        assert self._strategy.restore(head + outcome.states.tobytes()), "compiled: the loop's state is the strategy's"
        key = InstanceKey(self._strategy.name, data.symbol, data.timeframe)
        rules = self._options.instance_rules(key, self._strategy)
        finished = Finished(self._strategy, self._options, rules, self._balance, data, outcome, reasons)
        return msgspec.structs.replace(to_result(finished), seconds=RunSeconds(run=seconds))

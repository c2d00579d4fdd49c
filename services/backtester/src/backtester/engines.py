"""Which engine runs a request: the compiled one wherever it can, else the event engine, saying why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from backtester.compiled.engine import CompiledEngine, StepsOverflowError, why_not_compiled
from backtester.data import CandleData
from backtester.detail import DetailCandles
from backtester.engine import BacktestEngine
from backtester.options import BacktestOptions
from backtester.result import BacktestResult, RunSeconds
from shared.clock import Clock
from shared.errors import ConfigError
from shared.strategy import BaseStrategy, CompiledStrategy

AUTO, COMPILED, EVENT = "auto", "compiled", "event"
ENGINES = (AUTO, COMPILED, EVENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineJob:
    """One run for either engine; history from row `history_start` of `data.history` on is fed first (None: none).

    `detail` are finer candles, for runs with a stop and a target.
    """

    strategy: BaseStrategy
    balance: Decimal
    options: BacktestOptions
    data: CandleData
    clock: Clock
    history_start: int | None = None
    detail: DetailCandles | None = None
    on_progress: Callable[[int], None] | None = None


def check_engine(engine: str) -> None:
    """Refuse the name of an engine that there is none of."""
    if engine not in ENGINES:
        raise ConfigError(f"engine: {engine!r} is unknown; known: {', '.join(ENGINES)}")


def run_on(engine: str, job: EngineJob) -> BacktestResult:
    """Return the job's outcome; `auto` takes the compiled engine where it can and notes why where it cannot."""
    reason = None if engine == EVENT else why_not_compiled(job.strategy, job.options)
    if engine != EVENT and reason is None and job.detail is not None:
        reason = "finer candles (--detail)"
    if engine == COMPILED and reason is not None:
        raise ConfigError(f"engine compiled: cannot run {reason}; use auto or event")
    if engine != EVENT and reason is None:
        try:
            return _run_compiled(job)
        except StepsOverflowError as error:
            if engine == COMPILED:
                raise ConfigError(f"engine compiled: {error}; use auto or event") from None
            reason = str(error)
    result = _run_event(job)
    if reason is None:
        return result
    return msgspec.structs.replace(
        result, notes=(*result.notes, f"engine event: the compiled one does not run {reason}")
    )


def _run_compiled(job: EngineJob) -> BacktestResult:
    assert isinstance(job.strategy, CompiledStrategy), "a strategy without a step was refused before"
    engine = CompiledEngine(job.strategy, job.balance, job.options, clock=job.clock)
    started = job.clock.monotonic()
    _tell_start(job)
    engine.prepare(job.data)
    compiled = job.clock.monotonic() - started
    result = engine.run(job.data, job.history_start, job.on_progress)
    return msgspec.structs.replace(result, seconds=RunSeconds(compile=compiled, run=result.seconds.run))


def _run_event(job: EngineJob) -> BacktestResult:
    started = job.clock.monotonic()
    _tell_start(job)
    candles, past = list(job.data.candles()), job.data.history
    history = [] if job.history_start is None or past is None else list(past.candles(job.history_start))
    loaded = job.clock.monotonic()
    if isinstance(job.strategy, CompiledStrategy):
        job.strategy.prepare()  # so that its time is not taken for the run's
    compiled = job.clock.monotonic()
    finer = {} if job.detail is None else {"detail": job.detail}
    engine = BacktestEngine(job.strategy, job.balance, job.options, clock=job.clock, **finer)
    result = engine.run(candles, history, job.on_progress)
    seconds = RunSeconds(load=loaded - started, compile=compiled - loaded, run=result.seconds.run)
    return msgspec.structs.replace(result, seconds=seconds)


def _tell_start(job: EngineJob) -> None:
    """Tell that nothing is done yet: the first run of a strategy makes machine code for many seconds."""
    if job.on_progress is not None:
        job.on_progress(0)

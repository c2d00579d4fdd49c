"""One sweep from request to result: sets found, candles loaded, run on threads, kept as it goes, held against noise."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backtester.compiled.engine import why_not_compiled
from backtester.data import DATABASE_SOURCE, CandleData, load_candles
from backtester.sweep.batch import BatchOutcome, BatchRunner, Scratch, SweepTerms
from backtester.sweep.market import SweepMarket, shuffled, sweep_market
from backtester.sweep.record import TrialRecorder
from backtester.sweep.request import SweepRequest, request_identity
from backtester.sweep.sets import Batch, Sets, batches, find_sets
from backtester.sweep.store import SweepStore, schema
from shared.candle_files import check_stream
from shared.clock import Clock
from shared.errors import ConfigError, TradingError
from shared.instruments import load_instruments
from shared.plugins import discover

if TYPE_CHECKING:
    import polars as pl

KEEP_SECONDS = 0.5  # finished trials are written at least this often

type OnTrials = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Swept:
    """A sweep that is done: every finished trial of the data and of its shuffles, and what was known beside them.

    `resumed` trials were finished before an interruption; `ledger_number` is 0 where no trial was counted.
    """

    request: SweepRequest
    identity: dict[str, Any]
    sets: Sets
    data: CandleData
    table: pl.DataFrame
    resumed: int
    ledger_number: int
    notices: tuple[str, ...]
    seconds: dict[str, float]


def run_sweep(request: SweepRequest, clock: Clock, on_trials: OnTrials | None = None) -> Swept:
    """Return the outcome of a request; every mistake in it is a TradingError that names the place and the remedy.

    Trials are kept as they finish. A KeyboardInterrupt passes through once those that were finished are kept.
    """
    check_stream(request.symbol, request.timeframe)
    plugin = discover(request.strategies_dir).get(request.strategy)
    sets = find_sets(plugin, request.symbol, request.params, request.grid, request.timeframe)
    options = replace(
        request.options, instrument=load_instruments(request.instrument, [request.symbol])[request.symbol]
    )
    refusal = why_not_compiled(sets.base, options)
    if refusal is not None:
        raise ConfigError(f"sweep: the compiled engine does not run {refusal}; leave it out, or run `trading backtest`")
    started = clock.monotonic()
    source = DATABASE_SOURCE if request.data == DATABASE_SOURCE else Path(request.data).expanduser()
    window = (request.start, request.end)
    data = load_candles(source, request.symbol, request.timeframe, *window, database_url=request.database_url)
    loaded = clock.monotonic()
    identity = request_identity(request, plugin, data)
    store = SweepStore(request.out)
    done = store.begin(identity, resume=request.resume)
    recorder = TrialRecorder(request, plugin, sets, data, store.begun_at() if request.resume else None)
    terms = SweepTerms(request.symbol, request.timeframe, request.initial_balance, options)
    work = _Work(request, sets, BatchRunner(sets.base, terms), sweep_market(data), Keeper(store, recorder, clock))
    prepared = clock.monotonic()
    try:
        table = work.run(done, on_trials)
    except TradingError:
        store.forsake()
        raise
    seconds = {
        "load": loaded - started,
        "compile": work.compile_seconds,
        "run": clock.monotonic() - prepared - work.compile_seconds,
    }
    return Swept(request, identity, sets, data, table, len(done), recorder.number, tuple(recorder.notices), seconds)


@dataclass(frozen=True, slots=True)
class Keeper:
    """Where finished trials go: the ledger first, so that none is kept and not counted; then the parts.

    What a kill left between the two is run again, and the ledger knows it.
    """

    store: SweepStore
    recorder: TrialRecorder
    clock: Clock

    def keep(self, rows: pl.DataFrame, market: int) -> None:
        """Keep trials of one market; only those on the data itself are looks at it."""
        if market == 0:
            self.recorder.record(rows, self.clock.now())
        self.store.add(rows)


class _Work:
    """The trials that are left, on threads; the calling thread alone writes."""

    def __init__(
        self, request: SweepRequest, sets: Sets, runner: BatchRunner, market: SweepMarket, keeper: Keeper
    ) -> None:
        self._request, self._sets, self._runner, self._market = request, sets, runner, market
        self._keeper, self._clock = keeper, keeper.clock
        self._scratch: queue.SimpleQueue[Scratch] = queue.SimpleQueue()
        self._layouts: set[str] = set()
        self._finished: list[pl.DataFrame] = []
        self._kept_at = self._clock.monotonic()
        self.compile_seconds = 0.0

    def run(self, done: pl.DataFrame, on_trials: OnTrials | None) -> pl.DataFrame:
        """Run what is not done; return every trial."""
        import polars as pl

        total = len(self._sets.given) * (1 + self._request.null)
        found = [done]
        for _ in range(self._request.threads):
            self._scratch.put(Scratch(self._market))
        with ThreadPoolExecutor(self._request.threads, thread_name_prefix="sweep") as pool:
            for kept in self._run_markets(pool, done):
                found.append(kept)
                if on_trials is not None:
                    on_trials(sum(len(frame) for frame in found), total)
        return pl.concat(found).sort("market", "trial")

    def _run_markets(self, pool: ThreadPoolExecutor, done: pl.DataFrame) -> Iterator[pl.DataFrame]:
        for number in range(1 + self._request.null):
            finished = set(done.filter(done["market"] == number)["trial"].to_list())
            left = [trial for trial in range(len(self._sets.given)) if trial not in finished]
            if left:
                market = shuffled(self._market, self._request.seed + number) if number else self._market
                yield from self._run_market(pool, number, market, left)

    def _run_market(
        self, pool: ThreadPoolExecutor, number: int, market: SweepMarket, left: list[int]
    ) -> Iterator[pl.DataFrame]:
        waiting = batches(self._sets, left)
        running: set[Future[BatchOutcome]] = set()
        try:
            while True:
                while len(running) < 2 * self._request.threads and (batch := next(waiting, None)) is not None:
                    self._prepare(market, batch)
                    running.add(pool.submit(self._run_batch, market, batch))
                if not running:
                    break
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                self._take(ended, number)
                if self._clock.monotonic() - self._kept_at >= KEEP_SECONDS:
                    yield from self._keep(number)
        finally:  # an interruption too: what is running is short, and is kept
            for future in running:
                future.cancel()
            ended, _ = wait(running)
            self._take({future for future in ended if not future.cancelled()}, number)
            kept = list(self._keep(number))
        yield from kept

    def _run_batch(self, market: SweepMarket, batch: Batch) -> BatchOutcome:
        scratch = self._scratch.get()
        try:
            return self._runner.run(market, batch, scratch)
        finally:
            self._scratch.put(scratch)

    def _prepare(self, market: SweepMarket, batch: Batch) -> None:
        """Make the machine code for a layout before threads want it."""
        layout = f"{batch.states.dtype.descr}{batch.values.dtype.descr}"
        if layout not in self._layouts:
            started = self._clock.monotonic()
            self._runner.prepare(market, batch)
            self._layouts.add(layout)
            self.compile_seconds += self._clock.monotonic() - started

    def _take(self, ended: set[Future[BatchOutcome]], market: int) -> None:
        self._finished.extend(_frame(future.result(), market) for future in ended)

    def _keep(self, market: int) -> Iterator[pl.DataFrame]:
        """Write what is finished."""
        import polars as pl

        if self._finished:
            rows = pl.concat(self._finished)
            self._keeper.keep(rows, market)
            self._finished.clear()
            self._kept_at = self._clock.monotonic()
            yield rows


def _frame(outcome: BatchOutcome, market: int) -> pl.DataFrame:
    import polars as pl

    columns: dict[str, Sequence[Any] | np.ndarray[Any, Any]] = {
        "market": [market] * len(outcome.numbers),
        "trial": outcome.numbers,
        **outcome.figures._asdict(),
        **{name: getattr(outcome, name) for name in outcome._fields if name not in ("numbers", "figures")},
    }
    return pl.DataFrame({name: columns[name] for name in schema()}, schema=schema())

"""The platform itself: compiled run (W1), sweep (W2), and a plain-Python plug-in on ready candles (W3)."""

# ruff: noqa: I001 - the clock starts before the imports that it counts

from __future__ import annotations

import measured

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from backtester.compiled.encoding import opening_account
from backtester.compiled.layout import ENTRY, trade_lines
from backtester.compiled.run import CompiledRun, candle_arrays
from backtester.engine import BacktestEngine
from backtester.options import BacktestOptions
from backtester.sweep.batch import BatchRunner, Scratch, SweepTerms
from backtester.sweep.market import sweep_market
from backtester.sweep.sets import Sets, batches
from shared.candle_files import CandleFile
from shared.models import Candle, Signal
from shared.plugins import discover
from shared.strategy import BaseStrategy

SYMBOL, TIMEFRAME = "BTC/USDT", "1m"


class PlainCrossing(BaseStrategy):
    """The same crossing kept in plain Python, as a plug-in without a step would."""

    name = "plain_crossing"
    warmup_period = 21

    def reset(self) -> None:
        """Forget every candle."""
        self.count, self.sign = 0, 0
        self.short = self.long = 0.0

    def on_candle(self, candle: Candle) -> Signal | None:
        """Follow the sign of the difference from candle 21 on."""
        close = float(candle.close)
        self.count += 1
        if self.count == 1:
            self.short = self.long = close
        self.short += (close - self.short) * 0.2
        self.long += (close - self.long) * (2 / 22)
        if self.count < 21 or self.short == self.long:
            return None
        sign = 1 if self.short > self.long else -1
        last, self.sign = self.sign, sign
        if last in (0, sign):
            return None
        return self.buy(candle, "crossed above") if sign > 0 else self.sell(candle, "crossed below")


def candle_file(job: measured.Job) -> CandleFile:
    """Return the job's candles as the platform holds a file it has read."""
    market = job.market()
    names = ("open", "high", "low", "close", "volume")
    return CandleFile(
        path=Path(job.market_path),
        symbol=SYMBOL,
        timeframe=TIMEFRAME,
        sha256="",
        open_time_ms=market["open_time"],
        **{name: market[name] for name in names},
    )


def peers_options(job: measured.Job) -> BacktestOptions:
    """Return the rules that every tool follows."""
    return BacktestOptions(fee=Decimal(repr(job.fee)), slippage_bps=Decimal(0), gap="fill", max_entries=0)


def compiled_work(job: measured.Job, data: CandleFile) -> Callable[[], measured.Outcome]:
    """Return W1: one run, its trades and its equity at every candle written; `exact` also works its money out."""
    strategy: Any = discover().get(job.strategy).create(SYMBOL, job.params)
    balance = Decimal(job.balance)
    run = CompiledRun(strategy, balance, peers_options(job))
    run.prepare(data)
    candles, rules, lines = candle_arrays(data), run.rules(data, 0), trade_lines(2 * data.rows + 1)
    entries, equity, loop = np.empty(data.rows + 1, ENTRY), np.zeros(data.rows), run.loop(rules)

    def once() -> measured.Outcome:
        states, values = strategy.records
        book, ledger = opening_account(balance)
        loop(states, values, candles, (rules, book, ledger, entries, lines), equity, 0, data.rows)
        return measured.Outcome(int(book["trades"][0]), float(equity[-1]))

    def once_exact() -> measured.Outcome:
        outcome = run.play(data)
        return measured.Outcome(len(outcome.trades), float(outcome.equity[-1]))

    return once_exact if job.engine == "exact" else once


def sweep_work(job: measured.Job, data: CandleFile) -> Callable[[], measured.Outcome]:
    """Return W2: all sets, their strategies made and their figures worked out too."""
    base: Any = discover().get(job.strategy).create(SYMBOL)
    given = tuple({"short_period": short, "long_period": long} for short, long in job.sets)
    sets, market = Sets(base, given, {}, ""), sweep_market(data)
    runner = BatchRunner(base, SweepTerms(SYMBOL, TIMEFRAME, Decimal(job.balance), peers_options(job)))
    runner.prepare(market, next(batches(sets, [0])))
    scratches: queue.SimpleQueue[Scratch] = queue.SimpleQueue()
    for _ in range(job.threads):
        scratches.put(Scratch(market))

    def run_batch(batch: Any) -> measured.Outcome:
        scratch = scratches.get()
        outcome = runner.run(market, batch, scratch)
        scratches.put(scratch)
        return measured.Outcome(int(outcome.trades.sum()), float(outcome.final_balance.sum()))

    def once() -> measured.Outcome:
        with ThreadPoolExecutor(job.threads) as pool:
            done = list(pool.map(run_batch, batches(sets, list(range(len(given))))))
        return measured.Outcome(sum(part.orders for part in done), sum(part.equity for part in done))

    return once


def plain_work(job: measured.Job, candles: list[Candle]) -> Callable[[], measured.Outcome]:
    """Return W3: a plug-in called once a candle."""
    engine = BacktestEngine(PlainCrossing(), Decimal(job.balance), peers_options(job))

    def once() -> measured.Outcome:
        result = engine.run(candles)
        return measured.Outcome(result.total_trades, float(result.final_balance))

    return once


def main() -> None:
    """Run the job."""
    imported = measured.import_seconds()
    job = measured.job()
    data = candle_file(job)
    if job.work == "W3":
        started = measured.import_seconds()
        candles = list(data.candles())
        built = measured.import_seconds() - started
        measured.write_figures(job, imported, plain_work(job, candles), candles_built_seconds=built)
    else:
        work = sweep_work if job.work == "W2" else compiled_work
        measured.write_figures(job, imported, work(job, data))


if __name__ == "__main__":
    main()

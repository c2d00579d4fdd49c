"""Runs one batch of sets over a market: all step together, then each trades its own account."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from backtester.compiled.encoding import StepsOverflowError, encode_rules, opening_account
from backtester.compiled.layout import ENTRY, IGNORED_REASONS, REASONS, trade_lines
from backtester.compiled.loop import feed
from backtester.history import history_start
from backtester.options import BacktestOptions
from backtester.sweep.figures import SetFigures, measure_sets
from backtester.sweep.kernel import (
    LAST,
    LAST_CLOSED,
    LINES_SPARE,
    MORE,
    SIGNAL,
    STEPPED_ROWS,
    step_sets,
    trade_guarded,
    trade_plain,
)
from backtester.sweep.market import SweepMarket
from backtester.sweep.sets import SETS_TOGETHER, Batch
from shared.errors import ConfigError
from shared.models import InstanceKey
from shared.step_compiler import compiled, faults_told, load_loops, prepare
from shared.strategy import CompiledStrategy

SIGNALS_MAX = 1 << 16  # of one set in one window: more of them take more windows, not more memory
LINES_MAX = 1 << 16

type Records = npt.NDArray[np.void]
type FloatArray = npt.NDArray[np.float64]


class BatchOutcome(NamedTuple):
    """What a batch came to, one row a set; the numbers say which sets of the grid they are."""

    numbers: tuple[int, ...]
    figures: SetFigures
    final_balance: FloatArray
    fees_paid: FloatArray
    trades: npt.NDArray[np.int64]
    signals: npt.NDArray[np.int64]
    refused: npt.NDArray[np.int64]
    ignored: npt.NDArray[np.int64]
    participation_max: FloatArray  # NaN where slippage does not go by size


@dataclass(frozen=True, slots=True)
class SweepTerms:
    """What is the same for every set: the account it begins with and how it trades."""

    symbol: str
    timeframe: str
    balance: Decimal
    options: BacktestOptions


class Scratch:
    """Room that one thread writes signals and trades into, batch after batch."""

    def __init__(self, market: SweepMarket) -> None:
        self.signals = np.empty((SETS_TOGETHER, min(SIGNALS_MAX, market.rows + STEPPED_ROWS)), SIGNAL)
        self.lines = trade_lines(min(2 * market.rows, LINES_MAX) + LINES_SPARE)


class BatchRunner:
    """Runs batches of one strategy; the machine code is made or loaded by `prepare`, once, before threads use it."""

    def __init__(self, strategy: CompiledStrategy, terms: SweepTerms) -> None:
        self._terms, self._name = terms, strategy.name
        loops = load_loops(type(strategy).step, (step_sets, feed))
        self._step, self._feed = loops.step_sets, loops.feed
        options = terms.options
        is_guarded = options.stop_loss_pct or options.take_profit_pct or options.trailing_pct
        self._trade = compiled(trade_guarded if is_guarded or options.impact else trade_plain)

    def prepare(self, market: SweepMarket, batch: Batch) -> None:
        """Make or load the machine code for the batch's layout, by a run over nothing."""
        states, values, counts = batch.states[:1].copy(), batch.values[:1], np.zeros(1, np.int64)
        room = np.empty((1, 2 * STEPPED_ROWS), SIGNAL)
        prepare(self._step, states, values, market.columns, (0, 0), counts, (room, counts))
        if market.history is not None:
            prepare(self._feed, states, values, market.history, 0, 0)
        desk = (self._rules(batch.strategies[0], 0), *opening_account(self._terms.balance), np.empty(1, ENTRY))
        lines, days, sums = trade_lines(LINES_SPARE), (market.day_rows, 0, np.zeros(len(market.day_rows))), np.zeros(2)
        prepare(self._trade, (*desk, lines), market.columns, (0, 0, MORE), room[0, :0], days, sums)

    def run(self, market: SweepMarket, batch: Batch, scratch: Scratch) -> BatchOutcome:
        """Return what the sets come to; they are left as they were."""
        with faults_told(self._name, lambda: "in a sweep"):
            return self._outcome(market, batch, self._played(market, batch, scratch))

    def _played(self, market: SweepMarket, batch: Batch, scratch: Scratch) -> _Accounts:
        states, fed = self._feed_history(market, batch)
        accounts = _Accounts(market, [self._rules(*pair) for pair in zip(batch.strategies, fed, strict=True)], fed)
        accounts.open(self._terms.balance, scratch)
        speaking = accounts.rules["first_speaking"].copy()
        signals = scratch.signals[: len(states)]
        counts = np.zeros(len(states), np.int64)
        begin = 0
        while begin < market.rows:
            counts[:] = 0
            end = self._step(states, batch.values, market.columns, (begin, market.rows), speaking, (signals, counts))
            follows = MORE if end < market.rows else LAST_CLOSED if self._terms.options.close_at_end else LAST
            for place in range(len(states)):
                noted, sums = signals[place, : counts[place]], accounts.sums[place]
                accounts.finals[place] = self._trade(
                    accounts.desk(place),
                    accounts.candles[place],
                    (begin, end, follows),
                    noted,
                    accounts.days(place, begin),
                    sums,
                )
            begin = end
        accounts.marks[:, -1] = accounts.finals
        return accounts

    def _rules(self, strategy: CompiledStrategy, fed: int) -> Records:
        terms = self._terms
        key = InstanceKey(strategy.name, terms.symbol, terms.timeframe)
        try:
            rules = encode_rules(
                terms.options.book_rules(),
                terms.options.instance_rules(key, strategy),
                strategy.params.quantity,
                terms.timeframe,
                balance=terms.balance,
                is_close=terms.options.fill == "close",
            )
        except StepsOverflowError as error:
            raise ConfigError(f"sweep: {error}; take a smaller quantity or a coarser instrument") from None
        rules["first_speaking"] = max(0, strategy.warmup_period - 1 - fed)
        return rules

    def _feed_history(self, market: SweepMarket, batch: Batch) -> tuple[Records, list[int]]:
        """Return the states after history, and how many candles of it each set was fed."""
        if market.history is None:
            return batch.states.copy(), [0] * len(batch.strategies)
        rows, fed, states = len(market.history[0]), [], []
        for place, strategy in enumerate(batch.strategies):
            begin = history_start(strategy, market.source) or 0
            state = batch.states[place : place + 1].copy()
            self._feed(state, batch.values[place : place + 1], market.history, begin, rows)
            fed.append(rows - begin)
            states.append(state)
        return np.concatenate(states), fed

    def _outcome(self, market: SweepMarket, batch: Batch, accounts: _Accounts) -> BatchOutcome:
        if accounts.books["is_overflown"].any():
            raise ConfigError("sweep: a quantity of more steps than int64 counts; take a coarser instrument")
        trades = accounts.sums[:, 0].astype(np.int64)
        declined = accounts.books["declined"]
        is_ignored = np.array([reason in IGNORED_REASONS for reason in REASONS])
        balance = float(self._terms.balance)
        return BatchOutcome(
            numbers=batch.numbers,
            figures=measure_sets(market.close_times, accounts.marks, balance, accounts.finals, trades),
            final_balance=accounts.finals,
            fees_paid=accounts.sums[:, 1].copy(),
            trades=trades,
            signals=accounts.books["signals"].copy(),
            refused=declined[:, ~is_ignored].sum(axis=1),
            ignored=declined[:, is_ignored].sum(axis=1),
            participation_max=np.where(accounts.rules["has_impact"] > 0, accounts.books["participation"], np.nan),
        )


class _Accounts:
    """The accounts of a batch, each with rules and entries of its own; the trade lines are one room for all."""

    def __init__(self, market: SweepMarket, rules: list[Records], fed: list[int]) -> None:
        count, rows = len(rules), market.rows
        self.rules = np.concatenate(rules)
        entries_max = [min(rows, int(terms["max_entries"]) or rows) + 1 for terms in self.rules]
        self.entries = [np.empty(room, ENTRY) for room in entries_max]
        self.sums, self.finals = np.zeros((count, 2)), np.zeros(count)
        self.marks = np.zeros((count, len(market.day_rows)))
        self.candles = [market.known_after(candles) for candles in fed]
        self._day_rows = market.day_rows
        self.books: Any = None
        self.ledgers: Any = None
        self.lines: Any = None

    def open(self, balance: Decimal, scratch: Scratch) -> None:
        """Give every account its cash, and the room for its trades."""
        self.lines = scratch.lines
        book, ledger = opening_account(balance)
        self.books, self.ledgers = np.repeat(book, len(self.rules)), np.repeat(ledger, len(self.rules))

    def desk(self, place: int) -> tuple[Any, ...]:
        """Return what the loops take of one account."""
        one = slice(place, place + 1)
        return self.rules[one], self.books[one], self.ledgers[one], self.entries[place], self.lines

    def days(self, place: int, begin: int) -> tuple[Any, int, Any]:
        """Return the days' last rows, how many lie before row `begin`, and the account's marks."""
        return self._day_rows, int(np.searchsorted(self._day_rows, begin)), self.marks[place]

"""One run of the compiled loop over a candle file: what goes in, in which pieces, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from backtester.compiled.encoding import StepsOverflowError, encode_rules, opening_account, remember_volumes, to_amount
from backtester.compiled.layout import BUY_SIDE, BY_END, BY_SIGNAL, ENTRY, trade_lines
from backtester.compiled.loop import DESK, feed, run_guarded, run_plain
from backtester.data import CandleData
from backtester.options import BacktestOptions
from shared.models import InstanceKey, OrderSide, from_milliseconds
from shared.step_compiler import faults_told, load_base, load_loops, prepare
from shared.strategy import CompiledStrategy

__all__ = ["CompiledRun", "LoopOutcome", "StepsOverflowError", "candle_arrays"]

LOOPS = (feed, run_plain, run_guarded)
CHUNK_ROWS = 1 << 18

type Records = npt.NDArray[np.void]
type OnRows = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class LoopOutcome:
    """What the loop wrote: trades and counts as `layout` says, float64 equity a candle, exact cash and holding."""

    trades: Records
    equity: npt.NDArray[np.float64]
    book: Records
    cash: Decimal
    held: Decimal
    fees: Decimal
    states: Records


def candle_arrays(data: CandleData, begin: int = 0) -> tuple[npt.NDArray[Any], ...]:
    """Return the six columns from row `begin` on as the loop takes them: contiguous and read-only, always one type."""
    columns = (data.open_time_ms, data.open, data.high, data.low, data.close, data.volume)
    views = tuple(np.ascontiguousarray(column[begin:]).view() for column in columns)
    for view in views:
        view.flags.writeable = False
    return views


class CompiledRun:
    """A strategy with its options, ready to be run over candles; the machine code is made or loaded by `prepare`."""

    def __init__(self, strategy: CompiledStrategy, balance: Decimal, options: BacktestOptions) -> None:
        self._strategy, self._balance, self._options = strategy, balance, options
        self.loops = load_loops(type(strategy).step, LOOPS, DESK)
        self._finish = load_base(DESK).finish

    def rules(self, data: CandleData, fed: int) -> Records:
        """Return the rules of a run over `data` after `fed` candles of history."""
        strategy, options = self._strategy, self._options
        key = InstanceKey(strategy.name, data.symbol, data.timeframe)
        rules = encode_rules(
            options.book_rules(),
            options.instance_rules(key, strategy),
            strategy.params.quantity,
            data.timeframe,
            balance=self._balance,
            is_close=options.fill == "close",
        )
        rules["first_speaking"] = max(0, strategy.warmup_period - 1 - fed)
        return rules

    def prepare(self, data: CandleData) -> None:
        """Make the machine code now, or load it, by a run over nothing."""
        states, values = self._strategy.records
        candles, rules = candle_arrays(data), self.rules(data, 0)
        desk = (rules, *opening_account(self._balance), np.empty(1, ENTRY), trade_lines(1))
        prepare(self.loops.feed, states, values, candles, 0, 0)
        prepare(self.loop(rules), states, values, candles, desk, np.empty(0), 0, 0)
        prepare(self._finish, desk, False, 0, 1.0)

    def loop(self, rules: Records) -> Callable[..., None]:
        """Return the loop that a run by these rules takes."""
        terms = rules[0]
        is_guarded = terms["has_stop"] or terms["has_target"] or terms["has_trailing"]
        chosen: Callable[..., None] = self.loops.run_guarded if is_guarded else self.loops.run_plain
        return chosen

    def play(self, data: CandleData, history_start: int | None = None, on_rows: OnRows | None = None) -> LoopOutcome:
        """Return the outcome over `data`; its history from row `history_start` on is fed first, and does not trade.

        Raises
        ------
        StepsOverflowError
            A quantity is more steps than int64 counts.
        """
        states, values = self._strategy.records
        fed = 0
        if history_start is not None and data.history is not None:
            past = candle_arrays(data.history, history_start)
            fed = len(past[0])
            with faults_told(self._strategy.name, lambda: _candle(states, past[0])):
                self.loops.feed(states, values, past, 0, fed)
        rules = self.rules(data, fed)
        book, ledger = opening_account(self._balance)
        if fed:
            remember_volumes(book, past[5])
        entries = np.empty(min(data.rows, int(rules["max_entries"][0]) or data.rows) + 1, dtype=ENTRY)
        room = 2 * CHUNK_ROWS + 1
        lines, equity = trade_lines(min(2 * room, 2 * data.rows + 1)), np.empty(data.rows)
        desk, candles, loop = (rules, book, ledger, entries, lines), candle_arrays(data), self.loop(rules)
        found: list[Records] = []
        for begin in range(0, data.rows, CHUNK_ROWS):
            end = min(begin + CHUNK_ROWS, data.rows)
            with faults_told(self._strategy.name, lambda: _candle(states, candles[0], fed)):
                loop(states, values, candles, desk, equity, begin, end)
            is_last = end == data.rows
            closing = is_last and self._options.close_at_end
            equity[end - 1] = self._finish(desk, closing, end - 1, float(data.close[end - 1]))
            if book["is_overflown"][0]:
                raise StepsOverflowError("quantities of more steps than int64 counts")
            made = lines[: book["trades"][0]]
            if closing:
                made["time"][made["purpose"] == BY_END] = data.open_time_ms[-1] + data.timeframe_ms
            if is_last or len(made) + room > len(lines):
                found.append(made if is_last else made.copy())
                book["trades"], ledger["settled"] = 0, 0
            if on_rows is not None:
                on_rows(end)
        cash, held, fees = (to_amount(ledger[name][0]) for name in ("cash", "held", "fees"))
        trades = found[0] if len(found) == 1 else np.concatenate(found)
        return LoopOutcome(trades, equity, book, cash, held, fees, states)

    def describe(self, data: CandleData, trades: Records, history_start: int | None = None) -> list[str]:
        """Return the strategy's words for each trade that a signal of its own made; "" for the others.

        The steps are made once more, up to each signal in turn.
        """
        states, values = self._strategy.records
        if history_start is not None and data.history is not None:
            past = candle_arrays(data.history, history_start)
            self.loops.feed(states, values, past, 0, len(past[0]))
        candles, done = candle_arrays(data), 0
        waited = 0 if self._options.fill == "close" else 1
        words = []
        for row, side, purpose in zip(
            trades["row"].tolist(), trades["side"].tolist(), trades["purpose"].tolist(), strict=True
        ):
            if purpose != BY_SIGNAL:
                words.append("")
                continue
            signal_row = row - waited
            self.loops.feed(states, values, candles, done, signal_row + 1)
            done = signal_row + 1
            words.append(self._strategy.describe(states[0], OrderSide.BUY if side == BUY_SIDE else OrderSide.SELL))
        return words


def _candle(states: Records, times: npt.NDArray[np.int64], fed: int = 0) -> str:
    """Return at which of the candles at `times` states stand that `fed` candles went before."""
    row = int(states["candle_count"][0]) - fed - 1
    return f"candle of {from_milliseconds(int(times[row])):%Y-%m-%d %H:%M} UTC"

"""The loops: each candle fills, leaves, marks and steps, in the order of business of the paper venue.

`strategy_step` is the strategy's own step; `shared.step_compiler.load_loops` puts it in and compiles the whole into one
function. What happens seldom is a call, what happens every candle is a few floats here.

Arguments of a run: `states` and `values`, the strategy's records; `candles` (open_time int64 ms, open, high, low,
close, volume); `desk` (rules, book, ledger, entries, lines: arrays of the records of `layout`; the first three hold
one); `equity`, float64, one a candle, written; and the rows `first` to before `last` to run. `lines` has room for two
a row. Runs of neighbouring rows may follow each other: all that lasts is in `states` and `desk`.
"""

from __future__ import annotations

from typing import Any

from backtester.compiled.account import execute
from backtester.compiled.exits import close_at_end, guard_above, guard_below, leave
from backtester.compiled.layout import BUY_SIDE, BY_END, BY_SIGNAL, GAP, NONE, SELL_SIDE
from backtester.compiled.ledger import settle
from backtester.compiled.sizing import buy_steps, decline, sell_steps
from backtester.compiled.slippage import observe
from shared.step_compiler import fetch_ahead, own_record, put_back, seldom, strategy_step

ROWS_AHEAD = 64  # eight lines of the cache


def fill_waiting(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, open: float) -> None:
    """Fill what waits for this open; an increasing order that comes too late is refused."""
    if terms.is_gap_refused and book.order_side == BUY_SIDE and book.time - book.order_time > terms.age_max_ms:
        decline(book, GAP)
    else:
        execute(terms, book, ledger, entries, lines, open)
    book.order_side = NONE


def decide(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, close: float) -> None:
    """Turn the answer of a step in `book.order_side` into the book's order, or count why it makes none."""
    book.signals += 1
    if book.order_side == BUY_SIDE:
        steps = buy_steps(terms, book, ledger, entries, lines, close)
    elif book.order_side == SELL_SIDE:
        steps = sell_steps(terms, book, ledger, entries, close)
    else:
        raise ValueError("a step answers HOLD (0), BUY (1) or SELL (2)")
    if steps <= 0:
        book.order_side = NONE
        return
    book.order_steps = steps
    book.order_time = book.time + terms.timeframe_ms
    book.order_purpose = BY_SIGNAL
    if terms.is_close:
        book.time = book.order_time
        execute(terms, book, ledger, entries, lines, close)
        book.order_side = NONE


def look_ahead(open_time: Any, open: Any, row: int) -> None:
    """Have the two columns at hand that are looked at only where an order is made or filled."""
    fetch_ahead(open_time, row + ROWS_AHEAD)
    fetch_ahead(open, row + ROWS_AHEAD)


def count_candle(state: Any, given: Any) -> None:
    """Count a candle, also in the record that the loop was given: a step that raises is told by it."""
    state.candle_count += 1
    given.candle_count = state.candle_count


def feed(states: Any, values: Any, candles: Any, first: int, last: int) -> None:
    """Step over candles without trading: history, or the way to the candle of a signal."""
    open_time, open, high, low, close, volume = candles
    open_time, open, high, low = open_time[first:last], open[first:last], high[first:last], low[first:last]
    close, volume = close[first:last], volume[first:last]
    state, params = own_record(states[0]), own_record(values[0])
    for row in range(len(close)):
        count_candle(state, states[0])
        strategy_step(state, params, open_time[row], open[row], high[row], low[row], close[row], volume[row])
    put_back(state, states[0])


def run_plain(states: Any, values: Any, candles: Any, desk: Any, equity: Any, first: int, last: int) -> None:
    """Run a strategy without protective orders."""
    open_time, open, high, low, close, volume = candles
    open_time, open, high, low = open_time[first:last], open[first:last], high[first:last], low[first:last]
    close, volume, equity = close[first:last], volume[first:last], equity[first:last]
    state, params = own_record(states[0]), own_record(values[0])
    terms, book, ledger, entries, lines = desk[0][0], desk[1][0], desk[2][0], desk[3][0], desk[4][0]
    speaking, has_impact = terms.first_speaking - first, terms.has_impact != 0
    cash, held, waiting = book.cash, book.held, book.order_side != NONE
    for row in range(len(close)):
        look_ahead(open_time, open, row)
        if seldom(waiting):
            book.row = first + row
            book.time = open_time[row]
            fill_waiting(terms, book, ledger, entries, lines, open[row])
            cash, held, waiting = book.cash, book.held, False
        equity[row] = cash + held * close[row]
        if seldom(has_impact):
            observe(book, volume[row])
        count_candle(state, states[0])
        action = strategy_step(state, params, open_time[row], open[row], high[row], low[row], close[row], volume[row])
        if seldom(action != 0) and row >= speaking:
            book.row = first + row
            book.time = open_time[row]
            book.order_side = action
            decide(terms, book, ledger, entries, lines, close[row])
            cash, held, waiting = book.cash, book.held, book.order_side != NONE
            equity[row] = cash + held * close[row]
    put_back(state, states[0])


def run_guarded(states: Any, values: Any, candles: Any, desk: Any, equity: Any, first: int, last: int) -> None:
    """Run a strategy with a stop, a trailing stop or a target."""
    open_time, open, high, low, close, volume = candles
    open_time, open, high, low = open_time[first:last], open[first:last], high[first:last], low[first:last]
    close, volume, equity = close[first:last], volume[first:last], equity[first:last]
    state, params = own_record(states[0]), own_record(values[0])
    terms, book, ledger, entries, lines = desk[0][0], desk[1][0], desk[2][0], desk[3][0], desk[4][0]
    speaking, is_trailing, has_impact = terms.first_speaking - first, terms.has_trailing != 0, terms.has_impact != 0
    cash, held, waiting = book.cash, book.held, book.order_side != NONE
    below, above = guard_below(terms, book), guard_above(terms, book)
    for row in range(len(close)):
        look_ahead(open_time, open, row)
        if seldom(waiting):
            book.row = first + row
            book.time = open_time[row]
            fill_waiting(terms, book, ledger, entries, lines, open[row])
            cash, held, waiting = book.cash, book.held, False
            below, above = guard_below(terms, book), guard_above(terms, book)
        has_left = False
        if seldom(low[row] <= below or high[row] >= above):
            book.row = first + row
            book.time = open_time[row]
            has_left = leave(terms, book, ledger, entries, lines, (open[row], high[row], low[row]))
            cash, held = book.cash, book.held
            below, above = guard_below(terms, book), guard_above(terms, book)
        if is_trailing and held > 0.0 and not has_left and book.depth > 0 and high[row] > book.candle_high:
            book.candle_high = high[row]
            below = guard_below(terms, book)
        equity[row] = cash + held * close[row]
        if seldom(has_impact):
            observe(book, volume[row])
        count_candle(state, states[0])
        action = strategy_step(state, params, open_time[row], open[row], high[row], low[row], close[row], volume[row])
        if seldom(action != 0) and row >= speaking:
            book.row = first + row
            book.time = open_time[row]
            book.order_side = action
            decide(terms, book, ledger, entries, lines, close[row])
            cash, held, waiting = book.cash, book.held, book.order_side != NONE
            equity[row] = cash + held * close[row]
            below, above = guard_below(terms, book), guard_above(terms, book)
    put_back(state, states[0])


def finish(desk: Any, is_closed: bool, row: int, close: float) -> float:
    """Settle the ledger, selling what is held at the last close when asked to; return the equity it leaves."""
    terms, book, ledger, entries, lines = desk[0][0], desk[1][0], desk[2][0], desk[3][0], desk[4][0]
    if is_closed:
        book.row = row
        book.order_purpose = BY_END
        close_at_end(terms, book, ledger, entries, lines, close)
    settle(terms, ledger, entries, lines, book.trades)
    return float(book.cash + book.held * close)


# compiled once for all strategies; a loop over a step calls these and what it needs of its own
DESK = (fill_waiting, decide, leave, guard_below, guard_above, settle, finish)

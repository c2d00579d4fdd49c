"""The loops of a sweep: many sets of parameters step on the same candle together, then each set's account trades.

A step knows nothing of the account, so the signals come first, all sets stepping on a candle while it is at hand: the
averages of one set do not wait for those of another, which is what a single set's step spends its time on. A signal
takes the prices along that its order will meet, so that an account goes through its signals without looking for
candles; with protective orders armed, or slippage by size, it looks at every candle while something is held. What a
signal, a fill and an exit do is decided by the functions of the single run.

The volumes that a trading loop is given are its account's own: they begin with those of the candles that the strategy
was fed before the window, and so are longer by as much than the other columns. An account reads them when it comes to
an order, so that a candle's volume is not put into every account's window.

`step_sets` is compiled with each strategy (`shared.step_compiler.load_loops`), the trading once for all. Records are
those of `backtester.compiled.layout`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backtester.compiled.exits import close_at_end, guard_above, guard_below, leave
from backtester.compiled.layout import BY_END, NONE
from backtester.compiled.ledger import settle
from backtester.compiled.loop import decide, fill_waiting
from backtester.compiled.slippage import observe_until
from shared.step_compiler import record_at, seldom, strategy_step

STEPPED_ROWS = 1024  # between two looks at how full the lists of signals are
LINES_SPARE = 4  # a candle fills and leaves at most once each
MORE, LAST, LAST_CLOSED = 0, 1, 2  # what follows a window: another one, nothing, or a sale of what is held

SIGNAL = np.dtype(
    [
        ("row", np.int32),
        ("action", np.int32),
        ("close", np.float64),
        ("next_open", np.float64),
    ]
)


def step_sets(states: Any, values: Any, candles: Any, rows: tuple[int, int], speaking: Any, noted: Any) -> int:
    """Step every set over the rows from `rows[0]` to before `rows[1]`; return the row it stopped before.

    `noted` is (signals, counts): SIGNAL of shape (sets, room) and how many each set has noted. It stops early where
    the next rows might need more room.
    """
    open_time, open, high, low, close, volume = candles
    signals, counts = noted
    sets, room = signals.shape
    state, params, first_signal = states[0], values[0], signals[0, 0]
    first, last = rows
    while first < last:
        until = min(first + STEPPED_ROWS, last)
        for place in range(sets):
            if counts[place] + STEPPED_ROWS > room:
                return first
        for row in range(first, until):
            time, opened, highest = open_time[row], open[row], high[row]
            lowest, closed, traded = low[row], close[row], volume[row]
            next_open = open[min(row + 1, len(close) - 1)]
            for place in range(sets):
                own = record_at(state, place)
                own.candle_count += 1
                action = strategy_step(own, record_at(params, place), time, opened, highest, lowest, closed, traded)
                if action != 0 and row >= speaking[place]:
                    signal = record_at(first_signal, place * room + counts[place])
                    signal.row = row
                    signal.action = action
                    signal.close = closed
                    signal.next_open = next_open
                    counts[place] += 1
        first = until
    return first


def trade_plain(desk: Any, candles: Any, window: tuple[int, int, int], signals: Any, days: Any, sums: Any) -> float:
    """Go from signal to signal: between them nothing happens to an account without protective orders.

    Slippage is flat here; by size it needs `trade_guarded`.

    `desk` is (rules, book, ledger, entries, lines), one account's; `window` the first row, the one after the last, and
    what follows; `days` (row of each day's last candle, how many of them lie before these rows, marks: one a day,
    written); `sums` takes trades and their fees, float64 of shape (2,). Return the equity at the window's end.
    """
    terms, book, ledger, entries, lines = desk[0][0], desk[1][0], desk[2][0], desk[3][0], desk[4][0]
    open_time, close, room = candles[0], candles[4], len(desk[4]) - LINES_SPARE
    day_rows, day, marks = days
    first, last, follows = window
    counted = book.trades
    if book.order_side != NONE and first < last:
        book.row = first
        book.time = open_time[first]
        fill_waiting(terms, book, ledger, entries, lines, candles[1][first])
    for place in range(len(signals)):
        signal = signals[place]
        row = signal.row
        while day < len(day_rows) and day_rows[day] < row:
            marks[day] = book.cash + book.held * close[day_rows[day]]
            day += 1
        book.row = row
        book.time = open_time[row]
        book.order_side = signal.action
        decide(terms, book, ledger, entries, lines, signal.close)
        if day < len(day_rows) and day_rows[day] == row:
            marks[day] = book.cash + book.held * signal.close
            day += 1
        if book.order_side != NONE and row + 1 < last:
            book.row = row + 1
            book.time = open_time[row + 1]
            fill_waiting(terms, book, ledger, entries, lines, signal.next_open)
        while counted < book.trades:
            sums[0] += 1.0
            sums[1] += record_at(lines, counted).fee
            counted += 1
        if counted > room:
            counted = put_aside(terms, book, ledger, entries, lines)
    while day < len(day_rows) and day_rows[day] < last:
        marks[day] = book.cash + book.held * close[day_rows[day]]
        day += 1
    return end_window(terms, book, ledger, entries, lines, (follows, last - 1, close[last - 1]), sums)


def trade_guarded(desk: Any, candles: Any, window: tuple[int, int, int], signals: Any, days: Any, sums: Any) -> float:
    """Go from candle to candle while something is held, else from signal to signal. Arguments as `trade_plain`."""
    terms, book, ledger, entries, lines = desk[0][0], desk[1][0], desk[2][0], desk[3][0], desk[4][0]
    open_time, open, high, low, close, volumes = candles
    day_rows, day, marks = days
    row, last, follows = window
    fed, has_impact = len(volumes) - len(close), terms.has_impact != 0
    place, counted, room = 0, book.trades, len(desk[4]) - LINES_SPARE
    guards = guard_below(terms, book), guard_above(terms, book)
    while row < last:
        signal_row = signals[place].row if place < len(signals) else last
        day_row = day_rows[day] if day < len(day_rows) else last
        if book.order_side == NONE and book.held == 0.0:
            row = max(row, min(signal_row, day_row))  # nothing can happen before
            if row >= last:
                break
        book.row = row
        book.time = open_time[row]
        if seldom(has_impact):
            observe_until(book, volumes, fed + row)
        guards = pass_candle(terms, book, ledger, entries, lines, (open[row], high[row], low[row]), guards)
        if row == signal_row:
            book.order_side = signals[place].action
            if seldom(has_impact):
                observe_until(book, volumes, fed + row + 1)
            decide(terms, book, ledger, entries, lines, close[row])
            guards = guard_below(terms, book), guard_above(terms, book)
            place += 1
        if row == day_row:
            marks[day] = book.cash + book.held * close[row]
            day += 1
        while counted < book.trades:
            sums[0] += 1.0
            sums[1] += record_at(lines, counted).fee
            counted += 1
        if counted > room:
            counted = put_aside(terms, book, ledger, entries, lines)
        row += 1
    observe_until(book, volumes, fed + last)
    return end_window(terms, book, ledger, entries, lines, (follows, last - 1, close[last - 1]), sums)


def pass_candle(
    terms: Any,
    book: Any,
    ledger: Any,
    entries: Any,
    lines: Any,
    candle: tuple[float, float, float],
    guards: tuple[float, float],
) -> tuple[float, float]:
    """Fill what waits for this candle (open, high, low) and leave where it meets a guard; return the guards then."""
    open, high, low = candle
    below, above = guards
    if book.order_side != NONE:
        fill_waiting(terms, book, ledger, entries, lines, open)
        below, above = guard_below(terms, book), guard_above(terms, book)
    has_left = False
    if low <= below or high >= above:
        has_left = leave(terms, book, ledger, entries, lines, candle)
        below, above = guard_below(terms, book), guard_above(terms, book)
    if terms.has_trailing and book.held > 0.0 and not has_left and book.depth > 0 and high > book.candle_high:
        book.candle_high = high
        below = guard_below(terms, book)
    return below, above


def put_aside(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any) -> int:
    """Bring the ledger up to the lines and begin them anew; return how many there are now: none."""
    settle(terms, ledger, entries, lines, book.trades)
    book.trades = 0
    ledger.settled = 0
    return 0


def end_window(
    terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, end: tuple[int, int, float], sums: Any
) -> float:
    """Let another set use the lines, or sell what is held at the (row, close) of the end; return the equity then."""
    follows, row, close = end
    if follows == LAST_CLOSED:
        counted = book.trades
        book.row = row
        book.order_purpose = BY_END
        close_at_end(terms, book, ledger, entries, lines, close)
        for place in range(counted, book.trades):
            sums[0] += 1.0
            sums[1] += record_at(lines, place).fee
    elif follows == MORE:
        put_aside(terms, book, ledger, entries, lines)
    return float(book.cash + book.held * close)

"""How much a signal buys or sells, in steps: the twin of `shared.domain.sizing` and of the book's rules."""

from __future__ import annotations

from typing import Any

import numpy as np

from backtester.compiled.account import is_worthless, take_ledger
from backtester.compiled.layout import (
    ALREADY_IN,
    BELOW_MIN_NOTIONAL,
    BELOW_STOP,
    DUST,
    EQUITY_FRACTION,
    FIXED,
    NOTHING_HELD,
    QUOTE,
    RISK,
    STOP_COOLDOWN,
)
from backtester.compiled.money import (
    STEP_TOLERANCE,
    STEPS_MAX,
    Money,
    is_less,
    minus,
    plus,
    price_units,
    product,
    ratio,
    sellable_steps,
    share,
    steps_of,
    times,
    whole,
)
from backtester.compiled.slippage import pair
from shared.step_compiler import record_at, seldom

HUNDRED = 100.0
PERCENT_INVERSE_HIGH, PERCENT_INVERSE_LOW = 1e-20, 5.484672854579043e-37  # together 10^-20
FEW_ROUNDINGS = 4e-15
UNIT_SIZE = 1e-18
UNSURE_MAX = 0.25


def decline(book: Any, reason: int) -> int:
    """Count a signal that makes no order."""
    book.declined[reason] += 1
    return 0


def sell_steps(terms: Any, book: Any, ledger: Any, entries: Any, close: float) -> int:
    """Return how many steps a SELL sells of what is held; 0 and a count when it sells nothing."""
    if book.held <= 0.0:
        return decline(book, NOTHING_HELD)
    if seldom(terms.is_received != 0):
        steps = sellable_steps(wanted_sale(terms, ledger, entries), pair(terms.step))
        if steps < 0:
            book.is_overflown = 1
            return 0
    else:
        steps = book.held_steps
        if terms.max_entries == 0:
            steps = min(steps, terms.signal_steps)
        elif terms.max_entries > 1 and book.depth > 0:
            steps = min(steps, record_at(entries, book.depth - 1).steps)
    if steps == 0 or is_worthless(terms, steps, close):
        return decline(book, DUST if book.depth > 0 else NOTHING_HELD)
    return int(steps)


def wanted_sale(terms: Any, ledger: Any, entries: Any) -> Money:
    """Return what a SELL would sell of a settled ledger."""
    held = pair(ledger.held)
    wanted = held
    if terms.max_entries == 0:
        wanted = pair(terms.signal_quantity)
    elif terms.max_entries > 1 and ledger.depth > 0:
        wanted = pair(record_at(entries, ledger.depth - 1).quantity)
    return wanted if is_less(wanted, held) else held


def buy_steps(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, close: float) -> int:
    """Return how many steps a BUY buys; 0 and a count when it is refused."""
    if terms.max_entries and book.depth >= terms.max_entries:
        return decline(book, ALREADY_IN)
    steps = terms.signal_steps
    if seldom(terms.sizing != FIXED):
        if terms.sizing == RISK and terms.has_anchor and is_at_stop(terms, close):
            return decline(book, BELOW_STOP)
        steps = near_steps(terms, book, close)
        if seldom(steps < 0):
            steps = exact_steps(terms, book, ledger, entries, lines, close)
            if steps < 0:
                book.is_overflown = 1
                return 0
    if book.time < book.cooldown_until:
        return decline(book, STOP_COOLDOWN)
    if steps == 0 or is_worthless(terms, steps, close):
        return decline(book, BELOW_MIN_NOTIONAL)
    return int(steps)


def is_at_stop(terms: Any, close: float) -> bool:
    """Return whether a close is not above the price that the strategy itself stops at."""
    return not is_less(pair(terms.anchor_stop), price_units(close))


def exact_steps(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, close: float) -> int:
    """Return the steps of one entry from the ledger, brought up to the trade list; -1 for more than int64 counts."""
    take_ledger(terms, book, ledger, entries, lines)
    return steps_of(wanted_purchase(terms, ledger, price_units(close)), pair(terms.step))


def near_steps(terms: Any, book: Any, close: float) -> int:
    """Return the steps of one entry from the book's floats; -1 where they might be one more or less."""
    error = 0.0
    if terms.sizing == QUOTE:
        money = terms.sizing_amount
    else:
        equity = book.cash + book.held * close
        if equity <= 2.0 * book.doubt:
            return -1
        error = 2.0 * book.doubt / equity
        money = equity * terms.sizing_amount
    unit = close
    if terms.sizing == RISK:
        if terms.has_anchor:
            return -1
        unit = close * terms.stop_share[0]
        error += UNIT_SIZE / unit  # what a unit may lose is money of 18 decimals, too
    count = money / (unit * terms.step_size) + STEP_TOLERANCE
    unsure = count * (error + FEW_ROUNDINGS) + UNIT_SIZE / terms.step_size + FEW_ROUNDINGS
    if count >= STEPS_MAX or unsure > UNSURE_MAX or abs(count - np.floor(count + 0.5)) <= unsure:
        return -1
    return int(count)


def wanted_purchase(terms: Any, ledger: Any, price: Money) -> Money:
    """Return the quantity of one entry of a settled ledger, before it is floored to the step."""
    if terms.sizing == QUOTE:
        return ratio(pair(terms.amount), price)
    equity = plus(pair(ledger.cash), times(pair(ledger.held), price))
    if equity[0] <= 0.0:
        return 0.0, 0.0
    money = share(equity, pair(terms.amount))
    if terms.sizing == EQUITY_FRACTION:
        return ratio(money, price)
    if terms.has_anchor:
        above = minus(price, pair(terms.anchor_stop))
        percent = ratio(whole(product(above, (HUNDRED, 0.0))), price)
        loss = whole(product(product(price, percent), (PERCENT_INVERSE_HIGH, PERCENT_INVERSE_LOW)))
    else:
        loss = share(price, pair(terms.stop_share))
    return ratio(money, loss)

"""Protective orders: when a candle sells everything, and at what price. The twin of `shared.domain.matching`."""

from __future__ import annotations

from typing import Any

from backtester.compiled.account import market_float, sell, synchronize
from backtester.compiled.layout import BY_STOP, BY_TARGET, BY_TRAILING, NONE, SELL_SIDE
from backtester.compiled.ledger import (
    is_dust,
    paid_price,
    pair,
    put,
    settle,
    stop_level,
    target_level,
    trailing_level,
)
from backtester.compiled.money import UNIT, Money, is_less, price_units, quantity_of, sellable_steps
from shared.step_compiler import record_at

NEAR = 1e-9  # a price this near to a level, as a part of it, is compared exactly
NEVER = 1e308


def guard_below(terms: Any, book: Any) -> float:
    """Return a price that a candle must reach from above before any stop can be met."""
    if book.held < terms.step_size:
        return -1.0
    level = -1.0
    if terms.has_stop:
        level = terms.anchor_stop[0] / UNIT if terms.has_anchor else book.average * terms.stop_keep[0]
    if terms.has_trailing:
        level = max(level, max(book.high_water, book.candle_high) * terms.trailing_keep[0])
    return level * (1.0 + NEAR)


def guard_above(terms: Any, book: Any) -> float:
    """Return a price that a candle must reach from below before the target can be met."""
    if terms.has_target == 0 or book.held < terms.step_size:
        return NEVER
    return float(book.average * terms.target_rise[0] * (1.0 - NEAR))


def leave(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, candle: tuple[float, float, float]) -> bool:
    """Sell everything when this candle (open, high, low) meets a protective order; say whether it sold.

    A stop (the higher of the two) goes before a target: the worst for us when both are met in one candle.
    """
    settle(terms, ledger, entries, lines, book.trades)
    synchronize(terms, book, ledger)
    level, purpose = (-1.0, 0.0), BY_STOP
    if terms.has_stop:
        level = stop_level(terms, ledger)
    if terms.has_trailing and max(book.high_water, book.candle_high) > 0.0:
        trailing = trailing_level(terms, ledger, book.candle_high)
        if is_less(level, trailing):
            level, purpose = trailing, BY_TRAILING
    is_stopped = level[0] >= 0.0 and not is_less(level, price_units(candle[2]))
    is_reached = False
    if terms.has_target:
        target = target_level(terms, ledger)
        is_reached = not is_less(price_units(candle[1]), target)
        if is_reached and not is_stopped:
            level, purpose = target, BY_TARGET
    if not (is_stopped or is_reached):
        return False
    opened = price_units(candle[0])
    is_at_open = not is_less(level, opened) if is_stopped else not is_less(opened, level)
    book.order_purpose = purpose
    if not sell_out(terms, book, ledger, entries, lines, (candle[0], level, is_at_open)):
        return False
    book.contested += is_stopped and is_reached
    return True


def sell_out(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, met: tuple[float, Money, bool]) -> bool:
    """Sell all that is held at (open, level, whether at the open); say whether there was enough to sell."""
    open, level, is_at_open = met
    price = price_units(open) if is_at_open else level
    steps = sellable_steps(pair(ledger.held), pair(terms.step))
    if steps < 0:
        book.is_overflown = 1
    if steps <= 0 or is_dust(terms, quantity_of(steps, pair(terms.step)), price):
        return False
    opened = book.time
    book.order_side = SELL_SIDE
    book.order_steps = steps
    book.order_time = opened + terms.timeframe_ms
    if is_at_open:
        sell(terms, book, ledger, entries, lines, (open, market_float(terms, open, False)))
    else:
        book.time = book.order_time
        paid = paid_price(terms, level, False)[0] / UNIT
        put(record_at(lines, book.trades).exact_market, level)
        book.is_level = 1
        sell(terms, book, ledger, entries, lines, (level[0] / UNIT, paid))
        book.is_level = 0
        book.time = opened
    book.order_side = NONE
    book.cooldown_until = opened + terms.cooldown_ms
    return True


def close_at_end(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, close: float) -> bool:
    """Sell all that is held at the last close, an order that still waits put aside; say whether it sold."""
    settle(terms, ledger, entries, lines, book.trades)
    synchronize(terms, book, ledger)
    book.order_side = NONE
    steps = sellable_steps(pair(ledger.held), pair(terms.step))
    if steps <= 0 or is_dust(terms, quantity_of(steps, pair(terms.step)), price_units(close)):
        return False
    book.order_side = SELL_SIDE
    book.order_steps = steps
    book.order_time = book.time
    sell(terms, book, ledger, entries, lines, (close, market_float(terms, close, False)))
    book.order_side = NONE
    return True

"""Protective orders: when a candle sells everything, and at what price. The twin of `shared.domain.matching`."""

from __future__ import annotations

from typing import Any

from backtester.compiled.account import paid_float, sell, synchronize
from backtester.compiled.layout import BY_STOP, BY_TARGET, BY_TRAILING, NONE, SELL_SIDE
from backtester.compiled.ledger import (
    is_dust,
    settle,
    stop_level,
    target_level,
    trailing_level,
)
from backtester.compiled.money import UNIT, is_less, price_units, quantity_of, sellable_steps
from backtester.compiled.slippage import pair
from shared.step_compiler import record_at

NEAR = 1e-9  # a price this near to a level, as a part of it, is compared exactly
NEVER = 1e308
STAYED, LEFT, UNSURE = 0, 1, 2


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

    A stop (the higher of the two) goes before a target: the worst for us when both are met in one candle. Floats
    decide where no price is near a level, else the ledger does.
    """
    decided = UNSURE
    if terms.is_received == 0 and terms.tick[0] == 0.0:
        decided = leave_by_floats(terms, book, ledger, entries, lines, candle)
    if decided == UNSURE:
        return leave_by_ledger(terms, book, ledger, entries, lines, candle)
    return bool(decided == LEFT)


def compare(price: float, level: float) -> int:
    """Return -1, 0 or 1 as a price is below, too near to tell, or above a level."""
    if price < level * (1.0 - NEAR):
        return -1
    return 1 if price > level * (1.0 + NEAR) else 0


def nearest_stop(terms: Any, book: Any) -> tuple[float, int, bool]:
    """Return the higher of the stops now armed (-1 without any), which it is, and whether that is sure."""
    level, purpose, is_sure = -1.0, BY_STOP, True
    if terms.has_stop:
        level = terms.anchor_stop[0] / UNIT if terms.has_anchor else book.average * terms.stop_keep[0]
    if terms.has_trailing:
        trailing = max(book.high_water, book.candle_high) * terms.trailing_keep[0]
        is_sure = compare(trailing, level) != 0
        if trailing > level:
            level, purpose = trailing, BY_TRAILING
    return level, purpose, is_sure


def leave_by_floats(
    terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, candle: tuple[float, float, float]
) -> int:
    """Do the same by the book alone: LEFT, STAYED, or UNSURE and nothing done."""
    open, high, low = candle
    level, purpose, is_sure = nearest_stop(terms, book)
    below = compare(low, level) if level > 0.0 else 1
    above = -1
    if terms.has_target:
        target = book.average * terms.target_rise[0]
        above = compare(high, target)
        if below > 0:
            level, purpose = target, BY_TARGET
    if not is_sure or below == 0 or above == 0:
        return UNSURE
    if below > 0 and above < 0:
        return STAYED
    side = compare(open, level) if below < 0 else -compare(open, level)
    price = open if side < 0 else level
    if side == 0 or compare(book.held * price * UNIT, terms.notional_min[0]) <= 0:
        return UNSURE
    book.order_purpose = purpose
    book.order_steps = book.held_steps
    if side > 0:  # the ledger works the level out again, from what it was made of
        record_at(lines, book.trades).exact_market[0] = book.candle_high
    record_sale(terms, book, ledger, entries, lines, (price, side > 0))
    book.contested += below < 0 and above > 0
    return LEFT


def record_sale(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, met: tuple[float, bool]) -> None:
    """Sell the book's steps at (market price, whether it is a level): at the open, or within the candle."""
    price, is_level = met
    opened = book.time
    book.order_side = SELL_SIDE
    book.order_time = opened + terms.timeframe_ms
    book.is_level = is_level
    if is_level:
        book.time = book.order_time
    sell(terms, book, ledger, entries, lines, (price, paid_float(terms, book, price)))
    book.time = opened
    book.is_level = 0
    book.order_side = NONE
    book.cooldown_until = opened + terms.cooldown_ms


def leave_by_ledger(
    terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, candle: tuple[float, float, float]
) -> bool:
    """Do the same with exact money."""
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
    steps = sellable_steps(pair(ledger.held), pair(terms.step))
    if steps < 0:
        book.is_overflown = 1
    if steps <= 0 or is_dust(terms, quantity_of(steps, pair(terms.step)), opened if is_at_open else level):
        return False
    book.order_purpose = purpose
    book.order_steps = steps
    if not is_at_open:
        record_at(lines, book.trades).exact_market[0] = book.candle_high
    price = candle[0] if is_at_open else level[0] / UNIT
    record_sale(terms, book, ledger, entries, lines, (price, not is_at_open))
    settle(terms, ledger, entries, lines, book.trades)  # a level between two ticks has no float that says which
    synchronize(terms, book, ledger)
    book.contested += is_stopped and is_reached
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
    sell(terms, book, ledger, entries, lines, (close, paid_float(terms, book, close)))
    book.order_side = NONE
    return True

"""The sub-account in floats and steps: fills and the trade list, asking the ledger wherever a border is near."""

from __future__ import annotations

from typing import Any

from backtester.compiled.layout import BUY_SIDE, BY_TARGET, INSUFFICIENT_CASH
from backtester.compiled.ledger import affordable_steps, after_purchase, is_dust, put, settle
from backtester.compiled.money import UNIT, Money, is_less, price_units, quantity_of, times
from backtester.compiled.slippage import middle_volumes, paid_price, pair, participation, slip_factor, slip_float
from shared.step_compiler import record_at, seldom

MONEY_MARGIN = 1e-9  # a price made of the book's average may be off by so much of it
PRODUCT_MARGIN = 1e-13  # and any figure after a few multiplications
ROUNDING = 1e-15  # what one fill may add to the error of cash, as a part of the money that it moves
SMALLEST = 1e-17  # a few units
PARTIAL_MARGIN = 1e-6  # what is left of cash below this part of an order is looked at exactly where orders are cut


def synchronize(terms: Any, book: Any, ledger: Any) -> None:
    """Take the settled ledger's figures into the book."""
    book.cash = ledger.cash[0] / UNIT
    book.doubt = ROUNDING * abs(book.cash) + SMALLEST
    book.average = ledger.average[0] / UNIT
    if terms.is_received:
        book.held = ledger.held[0] / UNIT
        book.depth = ledger.depth


def take_ledger(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any) -> None:
    """Bring the ledger up to the trade list, and the book to the ledger."""
    settle(terms, ledger, entries, lines, book.trades)
    synchronize(terms, book, ledger)


def is_worthless(terms: Any, steps: int, price: float) -> bool:
    """Return whether so many steps are worth less than the smallest notional at a candle's price."""
    least = terms.notional_min[0]
    return seldom(least != 0.0) and is_worth_less(terms, least, steps, price)


def is_worth_less(terms: Any, least: float, steps: int, price: float) -> bool:
    """Return whether so many steps are worth less than so much at a candle's price."""
    worth = steps * terms.step_size * price * UNIT
    if abs(worth - least) > PRODUCT_MARGIN * least:
        return bool(worth < least)
    return is_less(times(quantity_of(steps, pair(terms.step)), price_units(price)), pair(terms.notional_min))


def execute(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, market: float) -> None:
    """Fill the book's order at a candle's price; a BUY that cash does not cover is rejected, or cut to what it covers."""
    if book.order_side != BUY_SIDE:
        sell(terms, book, ledger, entries, lines, (market, paid_float(terms, book, market)))
        return
    price = paid_float(terms, book, market)
    quantity = book.order_steps * terms.step_size
    left = book.cash - quantity * price * (1.0 if terms.is_received else 1.0 + terms.taker[0])
    doubt = book.doubt + ROUNDING * (book.cash + quantity * price) + SMALLEST
    border = doubt if terms.is_partial == 0 else doubt + PARTIAL_MARGIN * quantity * price
    if seldom(left < border) and (terms.is_partial or left >= -doubt):
        take_ledger(terms, book, ledger, entries, lines)
        left = 0.0 if is_covered(terms, book, ledger, market) else -border - 1.0
        price = paid_float(terms, book, market)
    if left < -doubt:
        book.declined[INSUFFICIENT_CASH] += 1
    else:
        buy(terms, book, ledger, entries, lines, (market, price))


def paid_float(terms: Any, book: Any, market: float) -> float:
    """Return what the book's order pays or gets at a candle's price, as a float."""
    if seldom(terms.tick[0] > 0.0 or terms.has_impact != 0):
        return worked_out_price(terms, book, market)
    return float(market * (terms.slip_buy[0] if book.order_side == BUY_SIDE else terms.slip_sell[0]))


def worked_out_price(terms: Any, book: Any, market: float) -> float:
    """Return the same where it hangs on a tick or on the order's size."""
    if terms.tick[0] > 0.0:
        return exact_paid(terms, book, price_units(market))[0] / UNIT
    quantity = book.order_steps * terms.step_size
    return market * slip_float(terms, quantity, middle_volumes(book), book.order_side == BUY_SIDE)


def exact_paid(terms: Any, book: Any, market: Money) -> Money:
    """Return what the book's order pays or gets at a market price."""
    is_buy = book.order_side == BUY_SIDE
    quantity = quantity_of(book.order_steps, pair(terms.step))
    volumes = middle_volumes(book) if terms.has_impact else (0.0, 0.0)
    return paid_price(terms, market, slip_factor(terms, quantity, volumes, is_buy), is_buy)


def is_covered(terms: Any, book: Any, ledger: Any, market: float) -> bool:
    """Ask the settled ledger whether cash covers the book's order to buy, cutting it to what it covers if allowed."""
    step = pair(terms.step)
    price = exact_paid(terms, book, price_units(market))
    if terms.is_partial:
        most = affordable_steps(terms, ledger, price)
        if most < book.order_steps and most > 0 and not is_dust(terms, quantity_of(most, step), price):
            book.order_steps = most
            book.cut += 1
            price = exact_paid(terms, book, price_units(market))
    return after_purchase(terms, ledger, quantity_of(book.order_steps, step), price)[0][0] >= 0.0


def buy(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, prices: tuple[float, float]) -> None:
    """Book a purchase at (market, paid): a new entry."""
    market, price = prices
    quantity = book.order_steps * terms.step_size
    spent = quantity * price
    fee = spent * terms.taker[0]
    if terms.has_stop or terms.has_target:
        book.average = (book.held * book.average + spent) / (book.held + quantity)
    if book.depth == 0:
        book.high_water = price
        book.candle_high = 0.0
    book.high_water = max(book.high_water, price)
    book.doubt += ROUNDING * (book.cash + spent) + SMALLEST
    book.cash -= spent if terms.is_received else spent + fee
    book.held_steps += book.order_steps
    book.held = book.held_steps * terms.step_size
    record_at(entries, book.depth).steps = book.order_steps
    book.depth += 1
    note(terms, book, lines, market, price, fee)
    if seldom(terms.is_received != 0):
        take_ledger(terms, book, ledger, entries, lines)


def sell(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, prices: tuple[float, float]) -> None:
    """Book a sale at (market, paid)."""
    market, price = prices
    got = book.order_steps * terms.step_size * price
    fee = got * (terms.maker[0] if book.order_purpose == BY_TARGET else terms.taker[0])
    book.cash += got - fee
    book.doubt += ROUNDING * (book.cash + got) + SMALLEST
    note(terms, book, lines, market, price, fee)
    if seldom(terms.is_received != 0):
        take_ledger(terms, book, ledger, entries, lines)
    else:
        book.held_steps -= book.order_steps
        book.held = book.held_steps * terms.step_size
        close_newest(terms, book, ledger, entries, lines, price)
    if book.depth == 0:
        book.high_water = 0.0
        book.candle_high = 0.0


def close_newest(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, price: float) -> None:
    """Close entries from the newest back by the order's steps; what is left of one may be dust."""
    left = book.order_steps
    while book.depth > 0 and left > 0:
        newest = record_at(entries, book.depth - 1).steps
        rest = newest - left
        left -= newest
        is_ended = rest <= 0
        if not is_ended and terms.notional_min[0] > 0.0:
            worth = rest * terms.step_size * price * UNIT
            least = terms.notional_min[0]
            is_ended = worth < least
            if abs(worth - least) <= MONEY_MARGIN * least:
                settle(terms, ledger, entries, lines, book.trades)
                is_ended = ledger.depth < book.depth
        if is_ended:
            book.depth -= 1
        else:
            record_at(entries, book.depth - 1).steps = rest


def note(terms: Any, book: Any, lines: Any, market: float, price: float, fee: float) -> None:
    """Write one line of the trade list."""
    line = record_at(lines, book.trades)
    line.row = book.row
    line.time = book.time
    line.side = book.order_side
    line.purpose = book.order_purpose
    line.is_level = book.is_level
    line.steps = book.order_steps
    line.market = market
    line.price = price
    line.fee = fee
    line.cash = book.cash
    if seldom(terms.has_impact != 0):
        note_volumes(terms, book, line)
    book.trades += 1


def note_volumes(terms: Any, book: Any, line: Any) -> None:
    """Write the volumes that the price hangs on, and how large a part of them the order was."""
    volumes = middle_volumes(book)
    put(line.exact_price, volumes)
    part = participation(quantity_of(book.order_steps, pair(terms.step)), volumes)
    book.participation = max(book.participation, part[0] / UNIT)

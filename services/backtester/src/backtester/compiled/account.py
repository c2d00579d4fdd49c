"""The sub-account in floats and steps: fills and the trade list, asking the ledger wherever a border is near."""

from __future__ import annotations

from typing import Any

from backtester.compiled.layout import BUY_SIDE, BY_TARGET, INSUFFICIENT_CASH
from backtester.compiled.ledger import cash_after_purchase, paid_price, pair, settle
from backtester.compiled.money import UNIT, is_less, price_units, quantity_of, times
from shared.step_compiler import record_at

MONEY_MARGIN = 1e-9  # a price made of the book's average may be off by so much of it
PRODUCT_MARGIN = 1e-13  # and any figure after a few multiplications
ROUNDING = 1e-15  # what one fill may add to the error of cash, as a part of the money that it moves
SMALLEST = 1e-17  # a few units


def synchronize(terms: Any, book: Any, ledger: Any) -> None:
    """Take the settled ledger's figures into the book."""
    book.cash = ledger.cash[0] / UNIT
    book.doubt = ROUNDING * abs(book.cash) + SMALLEST
    book.average = ledger.average[0] / UNIT
    if terms.is_received:
        book.held = ledger.held[0] / UNIT
        book.depth = ledger.depth


def market_float(terms: Any, market: float, is_buy: bool) -> float:
    """Return what a market order pays or gets, as a float."""
    if terms.tick[0] > 0.0:
        return paid_price(terms, price_units(market), is_buy)[0] / UNIT
    return float(market * (terms.slip_buy[0] if is_buy else terms.slip_sell[0]))


def is_worthless(terms: Any, steps: int, price: float) -> bool:
    """Return whether so many steps are worth less than the smallest notional at a candle's price."""
    least = terms.notional_min[0]
    if least == 0.0:
        return False
    worth = steps * terms.step_size * price * UNIT
    if abs(worth - least) > PRODUCT_MARGIN * least:
        return bool(worth < least)
    return is_less(times(quantity_of(steps, pair(terms.step)), price_units(price)), pair(terms.notional_min))


def execute(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, market: float) -> None:
    """Fill the book's order at a candle's price; a BUY that cash does not cover is rejected instead."""
    if book.order_side == BUY_SIDE:
        price = market_float(terms, market, True)
        buy(terms, book, ledger, entries, lines, (market, price))
    else:
        price = market_float(terms, market, False)
        sell(terms, book, ledger, entries, lines, (market, price))


def buy(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, prices: tuple[float, float]) -> None:
    """Book a purchase at (market, paid): a new entry."""
    market, price = prices
    quantity = book.order_steps * terms.step_size
    spent = quantity * price
    fee = spent * terms.taker[0]
    cash = book.cash - spent if terms.is_received else book.cash - spent - fee
    doubt = book.doubt + ROUNDING * (book.cash + spent) + SMALLEST
    if cash < doubt and (cash < -doubt or not is_covered(terms, book, ledger, entries, lines, market)):
        book.declined[INSUFFICIENT_CASH] += 1
        return
    if terms.has_stop or terms.has_target:
        book.average = (book.held * book.average + spent) / (book.held + quantity)
    if book.depth == 0:
        book.high_water = price
        book.candle_high = 0.0
    book.high_water = max(book.high_water, price)
    book.cash = cash
    book.doubt = doubt
    book.held_steps += book.order_steps
    book.held = book.held_steps * terms.step_size
    record_at(entries, book.depth).steps = book.order_steps
    book.depth += 1
    note(book, lines, market, price, fee)
    if terms.is_received:
        settle(terms, ledger, entries, lines, book.trades)
        synchronize(terms, book, ledger)


def is_covered(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, market: float) -> bool:
    """Ask the ledger whether cash covers the book's order to buy."""
    settle(terms, ledger, entries, lines, book.trades)
    synchronize(terms, book, ledger)
    price = paid_price(terms, price_units(market), True)
    left = cash_after_purchase(terms, ledger, quantity_of(book.order_steps, pair(terms.step)), price)
    return left[0] >= 0.0


def sell(terms: Any, book: Any, ledger: Any, entries: Any, lines: Any, prices: tuple[float, float]) -> None:
    """Book a sale at (market, paid)."""
    market, price = prices
    got = book.order_steps * terms.step_size * price
    fee = got * (terms.maker[0] if book.order_purpose == BY_TARGET else terms.taker[0])
    book.cash += got - fee
    book.doubt += ROUNDING * (book.cash + got) + SMALLEST
    note(book, lines, market, price, fee)
    if terms.is_received:
        settle(terms, ledger, entries, lines, book.trades)
        synchronize(terms, book, ledger)
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


def note(book: Any, lines: Any, market: float, price: float, fee: float) -> None:
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
    book.trades += 1

"""The sub-account to the last of 18 decimals, brought up to the trade list when somebody asks.

The twin of `shared.domain.book` and `positions` for one instance. `terms` and `ledger` are records of
`backtester.compiled.layout`, `entries` and `lines` arrays of them.
"""

from __future__ import annotations

from typing import Any

from backtester.compiled.layout import BUY_SIDE, BY_STOP, BY_TARGET, BY_TRAILING, SELL_SIDE
from backtester.compiled.money import (
    UNIT,
    Money,
    is_less,
    minus,
    plus,
    price_units,
    quantity_of,
    ratio,
    sellable_steps,
    share,
    times,
)
from backtester.compiled.slippage import paid_price, pair, slip_factor
from shared.step_compiler import record_at, seldom


def put(place: Any, amount: Money) -> None:
    """Write an amount into a record."""
    place[0] = amount[0]
    place[1] = amount[1]


def is_dust(terms: Any, quantity: Money, price: Money) -> bool:
    """Return whether so little is left that no order could sell it."""
    if is_less(quantity, pair(terms.step)):
        return True
    return terms.notional_min[0] > 0.0 and is_less(times(quantity, price), pair(terms.notional_min))


def high_water_level(ledger: Any, candle_high: float) -> Money:
    """Return the highest price since the position was opened: of fills and of the candles before this one."""
    highest = pair(ledger.fill_high)
    if candle_high > 0.0:
        high = price_units(candle_high)
        if is_less(highest, high):
            return high
    return highest


def stop_level(terms: Any, ledger: Any) -> Money:
    """Return the stop-loss now armed."""
    return pair(terms.anchor_stop) if terms.has_anchor else share(pair(ledger.average), pair(terms.stop_keep))


def target_level(terms: Any, ledger: Any) -> Money:
    """Return the take-profit price now armed."""
    return share(pair(ledger.average), pair(terms.target_rise))


def trailing_level(terms: Any, ledger: Any, candle_high: float) -> Money:
    """Return the trailing stop now armed."""
    return share(high_water_level(ledger, candle_high), pair(terms.trailing_keep))


def market_price(terms: Any, ledger: Any, line: Any) -> Money:
    """Return the market price that a trade met, before the trade is booked.

    It is a candle's open or close, or the level of a protective order. Until then the line holds the highest candle
    since the entry and the middle volumes where the market price and the paid price will stand.
    """
    if line.is_level == 0:
        return price_units(line.market)
    if line.purpose == BY_STOP:
        return stop_level(terms, ledger)
    if line.purpose == BY_TRAILING:
        return trailing_level(terms, ledger, line.exact_market[0])
    return target_level(terms, ledger)


def settle(terms: Any, ledger: Any, entries: Any, lines: Any, count: int) -> None:
    """Bring the ledger up to the first `count` trades and write their exact prices, fee and cash."""
    steps, quantity = 0, (0.0, 0.0)
    for place in range(ledger.settled, count):
        line = record_at(lines, place)
        market = market_price(terms, ledger, line)
        put(line.exact_market, market)
        if seldom(line.steps != steps):  # most orders are as large as the one before
            steps = line.steps
            quantity = quantity_of(steps, pair(terms.step))
        is_buy = line.side == BUY_SIDE
        factor = slip_factor(terms, quantity, pair(line.exact_price), is_buy)
        price = paid_price(terms, market, factor, is_buy)
        if line.side == SELL_SIDE:
            rate = pair(terms.maker) if line.purpose == BY_TARGET else pair(terms.taker)
            fee = book_sale(terms, ledger, entries, (quantity, price, rate))
        else:
            fee = book_purchase(terms, ledger, entries, quantity, price)
        put(ledger.fees, plus(pair(ledger.fees), fee))
        put(line.exact_price, price)
        put(line.exact_fee, fee)
        put(line.exact_cash, pair(ledger.cash))
        line.held = ledger.held[0] / UNIT
    ledger.settled = max(ledger.settled, count)


def affordable_steps(terms: Any, ledger: Any, price: Money) -> int:
    """Return the most steps that the ledger's cash buys at a paid price, fee included."""
    cash = pair(ledger.cash)
    if cash[0] <= 0.0:
        return 0
    steps = sellable_steps(ratio(cash, share(price, pair(terms.unit_cost))), pair(terms.step))
    while steps > 0 and after_purchase(terms, ledger, quantity_of(steps, pair(terms.step)), price)[0][0] < 0.0:
        steps -= 1
    return steps


def after_purchase(terms: Any, ledger: Any, quantity: Money, price: Money) -> tuple[Money, Money]:
    """Return what a purchase leaves of the cash, below 0 when it is not covered, and its fee, valued in quote."""
    cost = times(quantity, price)
    if terms.is_received:
        return minus(pair(ledger.cash), cost), times(share(quantity, pair(terms.taker)), price)
    fee = share(cost, pair(terms.taker))
    return minus(pair(ledger.cash), plus(cost, fee)), fee


def book_purchase(terms: Any, ledger: Any, entries: Any, quantity: Money, price: Money) -> Money:
    """Open an entry; return the fee."""
    left, fee = after_purchase(terms, ledger, quantity, price)
    put(ledger.cash, left)
    base = minus(quantity, share(quantity, pair(terms.taker))) if terms.is_received else quantity
    held = plus(pair(ledger.held), base)
    if terms.has_stop or terms.has_target:
        cost = plus(times(pair(ledger.held), pair(ledger.average)), times(base, price))
        put(ledger.average, ratio(cost, held) if held[0] > 0.0 else held)
    if ledger.depth == 0 or is_less(pair(ledger.fill_high), price):
        put(ledger.fill_high, price)
    put(ledger.held, held)
    put(record_at(entries, ledger.depth).quantity, base)
    ledger.depth += 1
    return fee


def book_sale(terms: Any, ledger: Any, entries: Any, sale: tuple[Money, Money, Money]) -> Money:
    """Close entries from the newest back by a sale (quantity, price, fee rate); return the fee."""
    quantity, price, rate = sale
    got = times(quantity, price)
    fee = share(got, rate)
    put(ledger.cash, plus(pair(ledger.cash), minus(got, fee)))
    put(ledger.held, minus(pair(ledger.held), quantity))
    left = quantity
    while ledger.depth > 0 and left[0] > 0.0:
        newest = pair(record_at(entries, ledger.depth - 1).quantity)
        rest = minus(newest, left)
        left = minus(left, newest)
        if rest[0] > 0.0 and not is_dust(terms, rest, price):
            put(record_at(entries, ledger.depth - 1).quantity, rest)
        else:
            ledger.depth -= 1
    if ledger.depth == 0:
        put(ledger.fill_high, (0.0, 0.0))
    return fee

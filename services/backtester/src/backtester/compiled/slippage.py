"""What a fill pays beside its market price: a flat rate, or half the spread and an impact by size. Exact and in floats.

The twin of `shared.domain.slippage` and of `matching.fill_price`. The median volume is kept as the two middle volumes,
whose mean it is, so that its decimal can be worked out again when the ledger comes to the trade.
"""

from __future__ import annotations

from typing import Any

from backtester.compiled.money import (
    UNIT,
    Money,
    is_less,
    minus,
    plus,
    price_units,
    product,
    quotient,
    ratio,
    share,
    square_root,
    times,
    whole,
)
from shared.domain.slippage import VOLUME_WINDOW

PARTICIPATION_MAX = 100.0
BPS = 1e4
BPS_UNIT_HIGH, BPS_UNIT_LOW = 1e-22, -4.859677432657087e-39  # together 10^-22: a bps in units as a plain fraction


def pair(amount: Any) -> Money:
    """Return a record's amount."""
    return amount[0], amount[1]


def observe(book: Any, volume: float) -> None:
    """Take the volume of a candle that has closed."""
    book.recent[book.recent_seen % VOLUME_WINDOW] = volume
    book.recent_seen += 1


def observe_until(book: Any, volumes: Any, until: int) -> None:
    """Take what is new of an account's volumes before place `until`; of many only the last few are looked at."""
    for place in range(max(book.recent_seen, until - VOLUME_WINDOW), until):
        book.recent[place % VOLUME_WINDOW] = volumes[place]
    book.recent_seen = until


def middle_volumes(book: Any) -> tuple[float, float]:
    """Return the two middle ones of the recent volumes, the same twice for an odd number, zeros for none."""
    count = min(book.recent_seen, VOLUME_WINDOW)
    low, high = 0.0, 0.0
    for place in range(count):
        volume = book.recent[place]
        rank = 0
        for other in range(count):
            if book.recent[other] < volume or (book.recent[other] == volume and other < place):
                rank += 1
        if rank == (count - 1) // 2:
            low = volume
        if rank == count // 2:
            high = volume
    return low, high


def participation(quantity: Money, volumes: tuple[float, float]) -> Money:
    """Return an order's size as a multiple of the median volume, in units, at most PARTICIPATION_MAX."""
    most = (PARTICIPATION_MAX * UNIT, 0.0)
    median = price_units(volumes[0])
    if volumes[1] != volumes[0]:
        both = plus(median, price_units(volumes[1]))
        median = whole(product(both, (0.5, 0.0)))
    if median[0] <= 0.0 or not is_less(quantity, product(median, (PARTICIPATION_MAX, 0.0))):
        return most
    return ratio(quantity, median)


def slip_factor(terms: Any, quantity: Money, volumes: tuple[float, float], is_buy: bool) -> Money:
    """Return what the market price is multiplied by."""
    if terms.has_impact == 0:
        return pair(terms.slip_buy) if is_buy else pair(terms.slip_sell)
    root = square_root(participation(quantity, volumes))
    bps = plus(pair(terms.half_spread), times(pair(terms.impact), root))
    part = product(bps, (BPS_UNIT_HIGH, BPS_UNIT_LOW))
    return plus((1.0, 0.0), part) if is_buy else minus((1.0, 0.0), part)


def slip_float(terms: Any, quantity: float, volumes: tuple[float, float], is_buy: bool) -> float:
    """Return the same as a float."""
    if terms.has_impact == 0:
        return float(terms.slip_buy[0] if is_buy else terms.slip_sell[0])
    median = 0.5 * (volumes[0] + volumes[1])
    part = PARTICIPATION_MAX
    if median > 0.0:
        part = min(PARTICIPATION_MAX, quantity / median)
    bps = (terms.half_spread[0] + terms.impact[0] * part**0.5) / UNIT / BPS
    return float(1.0 + bps if is_buy else 1.0 - bps)


def paid_price(terms: Any, market: Money, factor: Money, is_buy: bool) -> Money:
    """Return what a market order pays or gets: slippage and tick against it."""
    price = market if factor[0] == 1.0 and factor[1] == 0.0 else share(market, factor)
    if terms.tick[0] == 0.0:
        return whole(price)
    tick = pair(terms.tick)
    on_grid = whole(product(tick, whole(quotient(price, tick))))
    if is_buy and is_less(on_grid, price):
        return plus(on_grid, tick)
    if not is_buy and is_less(price, on_grid):
        return minus(on_grid, tick)
    return on_grid

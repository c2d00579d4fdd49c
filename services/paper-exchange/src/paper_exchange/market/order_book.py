"""The book that stands around the last trade: invented, and always the same for the same trade.

A quantity belongs to a price level, so that two books differ only where the price has moved, and the book's update
id is the id of the last trade, so that updates follow one another without a hole.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from paper_exchange.market.symbol_market import SymbolMarket
from paper_exchange.market.tape import Trade

LEVELS_MAX: Final = 1000
_STEPS_A_PRICE = 100_000  # levels lie about a thousandth of a per cent apart
_SPREAD_OF_HASH = 1000

type Level = tuple[int, int]


class OrderBook(NamedTuple):
    """Price and quantity in units, best first."""

    update_id: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


def book_around(market: SymbolMarket, trade: Trade, levels: int = LEVELS_MAX) -> OrderBook:
    """Return the book after `trade`: its price is the best bid when a seller took it, else the best ask."""
    tick = market.base.tick
    bid = trade.price if trade.buyer_is_maker else trade.price - tick
    step = max(tick, trade.price // _STEPS_A_PRICE // tick * tick)
    lot = market.base.lot
    below, above = (bid - 1) // step * step, (bid + tick) // step * step + step
    bids = [bid, *(below - step * number for number in range(levels - 1))]
    asks = [bid + tick, *(above + step * number for number in range(levels - 1))]
    return OrderBook(
        trade.id,
        tuple((price, _quantity(price // tick, lot)) for price in bids if price > 0),
        tuple((price, _quantity(price // tick, lot)) for price in asks),
    )


def changed_levels(before: tuple[Level, ...], after: tuple[Level, ...]) -> list[Level]:
    """Return the levels of `after` that are new or different, and those gone with quantity 0."""
    old, new = dict(before), dict(after)
    changed = [(price, quantity) for price, quantity in after if old.get(price) != quantity]
    return changed + [(price, 0) for price, _ in before if price not in new]


def _quantity(price_ticks: int, lot: int) -> int:
    return (price_ticks * 2_654_435_761 % 4_294_967_296 % _SPREAD_OF_HASH + 1) * lot

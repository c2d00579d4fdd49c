"""Figures that follow from the last trade and from the candles of the last day, as text."""

from __future__ import annotations

from typing import Final, NamedTuple

from paper_exchange.market.intervals import DAY_MS
from paper_exchange.market.numbers import SCALE, number_text, units_text
from paper_exchange.market.order_book import book_around
from paper_exchange.market.symbol_market import SymbolMarket
from paper_exchange.market.tape import Trade

AVERAGE_MINUTES: Final = 5


class TopOfBook(NamedTuple):
    """Best bid and ask."""

    update_id: int
    bid_price: str
    bid_quantity: str
    ask_price: str
    ask_quantity: str


class DayTicker(NamedTuple):
    """The last 24 hours."""

    open: str
    high: str
    low: str
    last: str
    change: str
    change_percent: str
    average: str
    previous_close: str
    volume: str
    quote_volume: str
    trades: int
    first_id: int
    last_id: int


def top_of_book(market: SymbolMarket, trade: Trade) -> TopOfBook:
    """Return the best prices after `trade`."""
    book = book_around(market, trade, levels=1)
    (bid, bid_quantity), (ask, ask_quantity), scale = book.bids[0], book.asks[0], market.base.scale
    return TopOfBook(
        book.update_id,
        units_text(bid),
        units_text(bid_quantity, scale),
        units_text(ask),
        units_text(ask_quantity, scale),
    )


def day_ticker(market: SymbolMarket) -> DayTicker:
    """Return the figures of the last 24 hours of market time."""
    price = market.last_trade().price / SCALE
    day = market.summary(DAY_MS)
    if day is None:
        first = number_text(price)
        return DayTicker(
            first, first, first, first, price_text(0.0), "0.000", first, first, *(price_text(0.0),) * 2, 0, -1, -1
        )
    before = market.close_before(day.open_ms)
    return DayTicker(
        open=number_text(day.open),
        high=number_text(day.high),
        low=number_text(day.low),
        last=number_text(day.close),
        change=price_text(day.close - day.open),
        change_percent=f"{(day.close / day.open - 1) * 100:.3f}",
        average=price_text(day.quote_volume / day.volume if day.volume else day.close),
        previous_close=number_text(day.open if before is None else before),
        volume=price_text(day.volume),
        quote_volume=price_text(day.quote_volume),
        trades=day.trades,
        first_id=day.first_id,
        last_id=day.last_id,
    )


def average_price(market: SymbolMarket) -> float:
    """Return the price of the last five minutes weighted by volume, the last price without any."""
    recent = market.summary(max(AVERAGE_MINUTES * 60_000, market.base.step_ms))
    if recent is None or not recent.volume:
        return market.last_trade().price / SCALE
    return recent.quote_volume / recent.volume


def price_text(value: float) -> str:
    """Return a figure that was worked out, with eight decimals."""
    return f"{value:.8f}"

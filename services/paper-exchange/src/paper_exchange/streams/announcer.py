"""Turns what happens in the market into events of the streams that somebody hears."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from paper_exchange.faults.publisher import Frame, FramePublisher
from paper_exchange.market.order_book import OrderBook, book_around
from paper_exchange.market.run import MarketRun
from paper_exchange.market.symbol_market import SymbolMarket
from paper_exchange.market.tape import Kline, Trade
from paper_exchange.streams.book_frames import book_ticker_event, depth_event, partial_depth_event
from paper_exchange.streams.frames import aggregate_trade_event, kline_event, trade_event
from paper_exchange.streams.hub import EventMaker, StreamHub
from paper_exchange.streams.names import kline_stream
from paper_exchange.streams.ticker_frames import average_price_event, mini_ticker_event, ticker_event
from shared.clock import Clock

TICKER_SECONDS: Final = 1.0
ALL_MINI_TICKERS: Final = "!miniTicker@arr"
_DEPTHS: Final = ("depth", "depth@100ms", "depth@1000ms")
_PARTIAL_DEPTHS: Final[Mapping[str, int]] = MappingProxyType(
    {f"depth{levels}{speed}": levels for levels in (5, 10, 20) for speed in ("", "@100ms", "@1000ms")}
)
_OF_TRADES: Final = ("trade", "aggTrade", "bookTicker", *_DEPTHS, *_PARTIAL_DEPTHS)
_PERIODIC: Final = MappingProxyType(
    {"miniTicker": mini_ticker_event, "ticker": ticker_event, "avgPrice": average_price_event}
)


class StreamAnnouncer:
    """Listens to the market and publishes."""

    def __init__(self, run: MarketRun, hub: StreamHub, publisher: FramePublisher, clock: Clock) -> None:
        self._run, self._hub, self._publisher, self._clock = run, hub, publisher, clock
        self._books: dict[str, OrderBook] = {}
        self._told_trades: dict[str, int] = {}
        self._kline_streams: dict[tuple[str, str], str] = {}
        self._of_trades: dict[str, tuple[str, ...]] = {}

    def wants_kline(self, market: SymbolMarket, interval: str) -> bool:
        """Return whether a candle stream is heard."""
        return self._hub.has(self._kline_stream(market, interval))

    def _kline_stream(self, market: SymbolMarket, interval: str) -> str:
        key = (market.venue_symbol, interval)
        name = self._kline_streams.get(key)
        if name is None:
            name = self._kline_streams[key] = kline_stream(*key)
        return name

    def wants_trades(self, market: SymbolMarket) -> bool:
        """Return whether trades, or what follows from them, are heard."""
        symbol = market.venue_symbol
        names = self._of_trades.get(symbol)
        if names is None:
            names = self._of_trades[symbol] = tuple(f"{symbol.lower()}@{kind}" for kind in _OF_TRADES)
        return any(map(self._hub.has, names))

    def on_kline(self, market: SymbolMarket, interval: str, kline: Kline, is_closed: bool) -> None:
        """Publish a candle as it stands."""
        make = partial(kline_event, market.venue_symbol, interval, kline, is_closed, self._run.server_ms())
        candle = market.candle_number - is_closed
        self._publisher.publish(Frame(self._kline_stream(market, interval), make, candle, is_closed))

    def on_trade(self, market: SymbolMarket, trade: Trade) -> None:
        """Publish an execution, and what it did to the book."""
        symbol, scale, now_ms = market.venue_symbol, market.base.scale, self._run.server_ms()
        self._publish(market, "trade", partial(trade_event, symbol, trade, scale, now_ms))
        self._publish(market, "aggTrade", partial(aggregate_trade_event, symbol, trade, scale, now_ms))
        self._publish(market, "bookTicker", partial(book_ticker_event, market, trade))
        if not any(self._hub.has(f"{symbol.lower()}@{kind}") for kind in (*_DEPTHS, *_PARTIAL_DEPTHS)):
            self._books.pop(symbol, None)
            return
        book = book_around(market, trade)
        before = self._books.get(symbol) or book_around(market, market.trade_before(trade))
        self._books[symbol] = book
        for kind in _DEPTHS:
            self._publish(market, kind, partial(depth_event, market, before, book, now_ms))
        for kind, levels in _PARTIAL_DEPTHS.items():
            self._publish(market, kind, partial(partial_depth_event, market, book, levels))

    async def run(self) -> None:
        """Publish, every second, the figures of the day of every symbol that was traded since the last time."""
        while True:
            await self._clock.sleep(TICKER_SECONDS)
            traded = [market for market in self._run.markets.values() if self._was_traded(market)]
            if not traded:
                continue
            now_ms = self._run.server_ms()
            for market in traded:
                for kind, make in _PERIODIC.items():
                    self._publish(market, kind, partial(make, market, now_ms))
            self._publish_all(traded, now_ms)

    def _was_traded(self, market: SymbolMarket) -> bool:
        newest = market.last_trade().id
        was = self._told_trades.get(market.venue_symbol)
        self._told_trades[market.venue_symbol] = newest
        return newest != was

    def _publish_all(self, traded: list[SymbolMarket], now_ms: int) -> None:
        if self._hub.has(ALL_MINI_TICKERS):
            frame = Frame(
                ALL_MINI_TICKERS,
                lambda ticks: [mini_ticker_event(m, now_ms, ticks) for m in traded],
                traded[0].candle_number,
            )
            self._publisher.publish(frame)

    def _publish(self, market: SymbolMarket, kind: str, make: EventMaker) -> None:
        stream = f"{market.venue_symbol.lower()}@{kind}"
        if self._hub.has(stream):
            self._publisher.publish(Frame(stream, make, market.candle_number))

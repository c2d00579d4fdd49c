"""Turns what happens in the market into events of the streams that somebody hears."""

from __future__ import annotations

from functools import partial

from paper_exchange.market.run import MarketRun
from paper_exchange.market.symbol_market import SymbolMarket
from paper_exchange.market.tape import Kline, Trade
from paper_exchange.streams.frames import aggregate_trade_event, kline_event, trade_event
from paper_exchange.streams.hub import StreamHub
from paper_exchange.streams.names import kline_stream


class StreamAnnouncer:
    """Listens to the market and publishes."""

    def __init__(self, run: MarketRun, hub: StreamHub) -> None:
        self._run, self._hub = run, hub

    def wants_kline(self, market: SymbolMarket, interval: str) -> bool:
        """Return whether a candle stream is heard."""
        return self._hub.has(kline_stream(market.venue_symbol, interval))

    def wants_trades(self, market: SymbolMarket) -> bool:
        """Return whether trades, or what follows from them, are heard."""
        symbol = market.venue_symbol.lower()
        return any(self._hub.has(f"{symbol}@{kind}") for kind in ("trade", "aggTrade"))

    def on_kline(self, market: SymbolMarket, interval: str, kline: Kline, is_closed: bool) -> None:
        """Publish a candle as it stands."""
        symbol, now_ms = market.venue_symbol, self._run.server_ms()
        self._hub.publish(
            kline_stream(symbol, interval),
            lambda ticks: kline_event(symbol, interval, kline, is_closed=is_closed, event_ms=now_ms, ticks=ticks),
        )

    def on_trade(self, market: SymbolMarket, trade: Trade) -> None:
        """Publish an execution."""
        symbol, now_ms = market.venue_symbol, self._run.server_ms()
        for kind, make in (("trade", trade_event), ("aggTrade", aggregate_trade_event)):
            made = partial(make, symbol, trade, market.base.scale, now_ms)
            self._hub.publish(f"{symbol.lower()}@{kind}", made)

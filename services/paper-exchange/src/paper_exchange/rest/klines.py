"""GET klines and uiKlines."""

from __future__ import annotations

from typing import Any

from paper_exchange.market.intervals import STREAM_ZONE, in_zone, length_ms, zone_ms
from paper_exchange.market.numbers import number_text
from paper_exchange.market.symbol_market import KlineQuery, SymbolMarket
from paper_exchange.market.tape import Kline
from paper_exchange.rest.context import RestContext
from paper_exchange.rest.parameters import Parameters
from paper_exchange.streams.names import kline_stream

LIMIT, LIMIT_MAX = 500, 1000
MINUTE_MS = 60_000  # zones are whole minutes: shorter candles begin where they do in UTC


def klines(parameters: Parameters, context: RestContext) -> list[list[Any]]:
    """Return candles, oldest first, the forming one last."""
    symbol, interval, zone = parameters.symbol(), parameters.interval(), parameters.zone()
    if zone and length_ms(interval) > MINUTE_MS:
        interval = in_zone(interval, STREAM_ZONE if zone_ms(zone) == zone_ms(STREAM_ZONE) else zone)
    query = KlineQuery(
        interval, parameters.time_ms("startTime"), parameters.time_ms("endTime"), parameters.limit(LIMIT, LIMIT_MAX)
    )
    parameters.check_all_read()
    market = context.market(symbol)
    rows = visible_klines(market, query, context.now_ms)
    if context.rows_hidden:
        rows = _without_newest(rows, market, interval, context.rows_hidden)
    if context.holes:
        stream = kline_stream(symbol, interval)
        rows = [row for row in rows if (stream, row.open_ms) not in context.holes]
    return [kline_row(row, context.ticks_a_ms) for row in rows]


def _without_newest(rows: list[Kline], market: SymbolMarket, interval: str, count: int) -> list[Kline]:
    """Return the rows but for the newest closed candles of the market and what comes after them."""
    newest = market.closed(KlineQuery(interval, None, None, count))
    return [row for row in rows if row.open_ms < newest[0].open_ms] if newest else []


def visible_klines(market: SymbolMarket, query: KlineQuery, now_ms: int) -> list[Kline]:
    """Return what a client may see: a forming candle whose close the clock has already passed is left out.

    Such a candle exists only while the market lies behind the clock, and its reader would take it for a closed one.
    """
    forming = market.forming(query.interval)
    if forming is not None and forming.close_ms <= now_ms:
        return market.closed(query)
    return market.newest(query)


def kline_row(kline: Kline, ticks_a_ms: int) -> list[Any]:
    """Return one candle as REST tells it."""
    return [
        kline.open_ms * ticks_a_ms,
        number_text(kline.open),
        number_text(kline.high),
        number_text(kline.low),
        number_text(kline.close),
        number_text(kline.volume),
        kline.close_ms * ticks_a_ms - 1,
        number_text(kline.quote_volume),
        kline.trades,
        number_text(kline.taker_base),
        number_text(kline.taker_quote),
        "0",
    ]

"""A start at an exchange that plays its market at speed: the past is there, though the clock is far ahead of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime, timedelta

import pytest
import structlog
from prometheus_client import CollectorRegistry

from data_collector.backfill import BackfillRules, ContiguousFeed
from data_collector.feeds.binance.feed import BinanceFeed, BinanceSource
from data_collector.feeds.ccxt_feed import CcxtFeed, PollRules
from data_collector.feeds.port import LiveFeed, ResumePoint, StreamKey
from paper_exchange.market.sources import SimulatedOptions, simulated_recording
from paper_exchange.server import ExchangeOptions, ExchangeUrls, PaperExchange
from shared.ccxt_exchange import open_exchange
from shared.clock import SystemClock
from shared.errors import VenueUnavailable
from shared.metrics import ServiceMetrics
from shared.models import Candle, from_milliseconds

STREAM = StreamKey("DOGE/USDT", "1m")  # a market without a hole around the beginning of the run
LOG = structlog.stdlib.get_logger("test")
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def exchange() -> AsyncIterator[PaperExchange]:
    recording = simulated_recording(SimulatedOptions(symbols=(STREAM.symbol,), history_candles=900))
    exchange = PaperExchange(recording, ExchangeOptions(speed=60.0, wait=True), SystemClock())
    async with exchange.running():
        yield exchange


def binance(urls: ExchangeUrls) -> LiveFeed:
    return BinanceFeed(BinanceSource((STREAM,), urls.rest, urls.stream), SystemClock(), LOG)


def ccxt(urls: ExchangeUrls) -> LiveFeed:
    clock = SystemClock()
    venue = open_exchange("binance", urls.rest, clock)
    return CcxtFeed([STREAM], venue, clock, LOG, PollRules(poll_seconds=0.05))


@pytest.mark.parametrize("feed_of", [binance, ccxt])
async def test_the_past_is_counted_back_from_the_markets_newest_candle(
    exchange: PaperExchange, feed_of: Callable[[ExchangeUrls], LiveFeed]
) -> None:
    feed, asked = feed_of(exchange.urls), list[datetime]()

    def needed(_: StreamKey, market_now: datetime) -> int:
        asked.append(market_now)
        return 700

    rules = BackfillRules(history_candles=500, history_needed=needed)
    contiguous = ContiguousFeed(feed, SystemClock(), LOG, rules)
    found: list[Candle] = []
    async with aclosing(contiguous.batches(ResumePoint())) as batches:  # type: ignore[type-var]
        async for batch in batches:
            found += batch.candles
            if len(found) >= 700:
                break
    await feed.close()

    assert exchange.market.plan is not None
    begin = from_milliseconds(int(exchange.market.plan.begin_ms))
    assert SystemClock().now() - begin > timedelta(hours=23), "the market lies about a day behind"
    assert begin - MINUTE <= asked[0] < begin + timedelta(hours=2), "readers are asked what they need at its own time"
    times = [each.open_time for each in found]
    assert times == [times[0] + MINUTE * number for number in range(len(times))], "no hole, nothing twice"
    assert times[0] == asked[0] - 700 * MINUTE


async def test_the_breaker_of_any_exchange_shows_among_the_others(unused_tcp_port: int) -> None:
    registry, clock = CollectorRegistry(), SystemClock()
    metrics = ServiceMetrics("data-collector", registry)
    labels = {"service": "data-collector", "breaker": "binance rest"}
    exchange = open_exchange("binance", f"http://127.0.0.1:{unused_tcp_port}", clock)
    feed = CcxtFeed.open([STREAM], exchange, clock, LOG, metrics)
    assert registry.get_sample_value("trading_breaker_state", labels) == 0
    for _ in range(5):
        with pytest.raises(VenueUnavailable):
            await exchange.measure_clock()
    assert registry.get_sample_value("trading_breaker_state", labels) == 2, "open"
    await feed.close()

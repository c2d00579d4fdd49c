"""Makes the feed that the settings name."""

from __future__ import annotations

from structlog.stdlib import BoundLogger

from data_collector.config import CollectorConfig
from data_collector.feeds.binance.connection import StreamRules
from data_collector.feeds.binance.feed import BinanceFeed, BinanceSource
from data_collector.feeds.port import Feed
from data_collector.feeds.replay import ReplayFeed
from data_collector.feeds.simulated import SimulatedFeed, Simulation
from shared.clock import Clock
from shared.errors import ConfigError
from shared.metrics import ServiceMetrics


def choose_feed(config: CollectorConfig, clock: Clock, log: BoundLogger, metrics: ServiceMetrics) -> Feed:
    """Return the feed of `config`; a replay's files are read and checked here, a venue is not asked yet."""
    if config.feed == "simulated":
        simulation = Simulation(
            config.streams,
            seed=config.seed,
            speed=config.speed,
            history_candles=config.history_candles,
            batch_candles_max=config.batch_candles_max,
        )
        return SimulatedFeed(simulation, clock)
    if config.feed == "replay":
        return ReplayFeed.read(config.data, clock, speed=config.speed, batch_candles_max=config.batch_candles_max)
    if config.feed == "binance":
        return _binance(config, clock, log, metrics)
    if config.feed == "ccxt":
        from data_collector.feeds.ccxt_feed import CcxtFeed  # ccxt takes a second to import
        from shared.ccxt_exchange import open_exchange

        exchange = open_exchange(config.venue.exchange, config.venue.exchange_url, clock)
        return CcxtFeed.open(config.streams, exchange, clock, log, metrics)
    raise ConfigError(f"feed: {config.feed!r} is unknown; use simulated, replay, binance or ccxt")


def _binance(config: CollectorConfig, clock: Clock, log: BoundLogger, metrics: ServiceMetrics) -> BinanceFeed:
    venue = config.venue
    rules = StreamRules(
        silence_seconds_max=venue.silence_seconds_max,
        retry_seconds_max=venue.calls.delay_seconds_max,
        breaker_threshold=venue.calls.breaker_threshold,
        breaker_seconds=venue.calls.breaker_seconds,
    )
    source = BinanceSource(
        config.streams,
        venue.binance_rest_url,
        venue.binance_stream_url,
        call_policy=venue.calls,
        stream_rules=rules,
        intake_candles_max=config.intake_candles_max,
        batch_candles_max=config.batch_candles_max,
    )
    return BinanceFeed(source, clock, log, metrics)

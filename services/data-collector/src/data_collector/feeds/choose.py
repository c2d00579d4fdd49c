"""Makes the feed that the settings name."""

from __future__ import annotations

from data_collector.config import CollectorConfig
from data_collector.feeds.port import Feed
from data_collector.feeds.replay import ReplayFeed
from data_collector.feeds.simulated import SimulatedFeed, Simulation
from shared.clock import Clock
from shared.errors import ConfigError


def choose_feed(config: CollectorConfig, clock: Clock) -> Feed:
    """Return the feed of `config`; a replay's files are read and checked here."""
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
    raise ConfigError(f"feed: {config.feed!r} is not in this build; use simulated or replay")

"""What the collector takes from the settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self

from data_collector.feeds.port import StreamKey
from shared.binance_rest import CallPolicy
from shared.config import Settings
from shared.venue_symbols import call_policy

COMPARE_SECONDS = 600.0  # between two comparisons of what streams brought with the venue's history
CONSUMERS = ("engine", "executor", "portfolio")  # whose cursor `{name}/watermark` the feed waits for


@dataclass(frozen=True, slots=True)
class VenueConfig:
    """Where a live feed's candles come from, and how patient calls are."""

    binance_rest_url: str = ""
    binance_stream_url: str = ""
    exchange: str = ""
    exchange_url: str = ""
    silence_seconds_max: float = 60.0
    calls: CallPolicy = field(default_factory=CallPolicy)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return what `settings` say about the venue."""
        return cls(
            binance_rest_url=settings.binance_rest_url,
            binance_stream_url=settings.binance_stream_url,
            exchange=settings.exchange_name,
            exchange_url=settings.exchange_url,
            silence_seconds_max=settings.feed_silence_seconds_max,
            calls=call_policy(settings),
        )


@dataclass(frozen=True, slots=True)
class CollectorConfig:
    """How one collector runs; `speed` None is as fast as the slowest consumer allows."""

    feed: str = "simulated"
    streams: tuple[StreamKey, ...] = (StreamKey("BTC/USDT", "1m"), StreamKey("ETH/USDT", "1m"))
    data: Mapping[StreamKey, Path] = field(default_factory=dict)
    speed: float | None = 1.0
    seed: int = 1
    history_candles: int = 500
    compare_seconds: float = COMPARE_SECONDS
    history_needed: Callable[[StreamKey, datetime], int] = lambda _stream, _now: 0
    feed_ahead_max: int = 2000
    batch_candles_max: int = 500
    intake_candles_max: int = 10_000
    quarantine_rows_max: int = 10_000
    consumers: tuple[str, ...] = CONSUMERS
    venue: VenueConfig = field(default_factory=VenueConfig)

    @classmethod
    def from_settings(cls, settings: Settings, *, consumers: tuple[str, ...] = CONSUMERS) -> Self:
        """Return what `settings` say about the feed and its bounds."""
        return cls(
            feed=settings.feed_kind,
            streams=tuple(StreamKey(*stream) for stream in settings.streams),
            data={StreamKey(item.symbol, item.timeframe): item.path for item in settings.data},
            speed=None if math.isinf(settings.speed) else settings.speed,
            seed=settings.seed,
            history_candles=settings.history_candles,
            feed_ahead_max=settings.feed_ahead_max,
            batch_candles_max=min(settings.batch_rows_max, settings.feed_ahead_max),
            intake_candles_max=settings.collector_queue_max,
            quarantine_rows_max=settings.dead_letters_max,
            consumers=consumers,
            venue=VenueConfig.from_settings(settings),
        )

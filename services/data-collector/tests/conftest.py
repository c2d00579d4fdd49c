"""A bus in memory and a collector around any feed; the database is `shared.testing`'s, once on each server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import structlog
from prometheus_client import CollectorRegistry

from data_collector.collector import Collector
from data_collector.config import CollectorConfig
from data_collector.feeds.port import Feed
from data_collector.storage import CandleStorage
from shared.broker_memory import MemoryBroker
from shared.clock import Clock, SystemClock
from shared.db import Database
from shared.metrics import ServiceMetrics


@pytest.fixture
def bus() -> MemoryBroker:
    return MemoryBroker(stream_length_max=100_000)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def collector_of(database: Database, bus: MemoryBroker, registry: CollectorRegistry) -> Callable[..., Collector]:
    def build(feed: Feed, *, clock: Clock | None = None, **config: object) -> Collector:
        clock = clock or SystemClock()
        return Collector(
            feed,
            CandleStorage(database, bus, clock=clock),
            database,
            bus,
            CollectorConfig(**{"consumers": (), **config}),
            clock=clock,
            metrics=ServiceMetrics("data-collector", registry),
            log=structlog.get_logger("test"),
        )

    return build


@pytest.fixture
def stop() -> asyncio.Event:
    return asyncio.Event()

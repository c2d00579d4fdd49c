"""A bus in memory and a collector around any feed; the database is `shared.testing`'s, once on each server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import structlog
from prometheus_client import CollectorRegistry

from data_collector.collector import Collector, CollectorPorts
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
        ports = CollectorPorts(
            database, bus, clock, ServiceMetrics("data-collector", registry), structlog.stdlib.get_logger("test")
        )
        storage = CandleStorage(database, bus, clock=clock)
        return Collector(feed, storage, CollectorConfig(**{"consumers": (), "compare_seconds": 0.0, **config}), ports)

    return build


@pytest.fixture
def stop() -> asyncio.Event:
    return asyncio.Event()

"""What a service looks at by itself: depths, ages, lags, breakers and checks, as an operator reads them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from shared.broker_memory import MemoryBroker
from shared.clock import ManualClock
from shared.config import load_settings
from shared.db import Database
from shared.events import Event, Watermark
from shared.healthcheck import HealthCheckServer
from shared.metrics import ServiceMetrics
from shared.models import to_milliseconds
from shared.notifier import NotifierLimits, TelegramNotifier
from shared.observation import Observer, Sights, observing
from shared.resilience import CircuitBreaker, Outside
from shared.testing.waiting import until

START = datetime(2024, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Watched:
    """One service's observer over real parts, and its metrics."""

    def __init__(self, service: str, database: Database, **more: Any) -> None:
        self.clock = ManualClock(START)
        self.registry = CollectorRegistry()
        self.bus = MemoryBroker()
        settings = load_settings({"symbols": "BTC/USDT", **more.pop("settings", {})}, env={})
        self.database = database
        sights = Sights(database=database, broker=self.bus, clock=self.clock, **more)
        metrics = ServiceMetrics(service, self.registry, clock=self.clock)
        self.observer = Observer(service, settings, metrics, sights)

    async def store(self, **cursors: int) -> None:
        async with self.database.get_session() as session:
            await self.database.write_cursors(
                session, {name.replace("__", "/"): value for name, value in cursors.items()}
            )

    def value(self, name: str, **labels: str) -> float | None:
        found = [
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"trading_{name}" and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None


CANDLES = "collector__candles__BTC/USDT__1m"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_lag_is_the_market_time_between_the_newest_candle_and_ours(database: Database) -> None:
    watched = Watched("portfolio-manager", database)
    await watched.observer.look()
    assert watched.value("end_to_end_lag_seconds") is None, "nothing is stored yet, so nothing is known"
    await watched.store(
        **{CANDLES: to_milliseconds(START), "portfolio__watermark": to_milliseconds(START - 2 * MINUTE)}
    )
    await watched.observer.look()
    assert watched.value("end_to_end_lag_seconds") == 180  # the candle of START closed at START + 1 min


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_replayed_stream_is_silent_when_nothing_new_comes_whatever_its_dates(database: Database) -> None:
    watched = Watched("data-collector", database)
    await watched.store(**{CANDLES: to_milliseconds(START - timedelta(days=900))})
    await watched.observer.look()
    await watched.clock.advance(200)
    await watched.observer.look()
    assert watched.value("data_age_seconds", stream="BTC/USDT 1m") == 200
    assert watched.value("data_age_seconds_max", stream="BTC/USDT 1m") == 120
    await watched.store(**{CANDLES: to_milliseconds(START - timedelta(days=900) + MINUTE)})
    await watched.observer.look()
    assert watched.value("data_age_seconds", stream="BTC/USDT 1m") == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_live_streams_age_counts_from_its_candles_close(database: Database) -> None:
    watched = Watched("data-collector", database, settings={"feed": "binance"})
    await watched.store(**{CANDLES: to_milliseconds(START - 5 * MINUTE)})
    await watched.observer.look()
    assert watched.value("data_age_seconds", stream="BTC/USDT 1m") == 240


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_streams_and_outbox_are_measured_where_they_belong(database: Database) -> None:
    watched = Watched("strategy-engine", database)
    await watched.bus.publish("signals", Event(data=Watermark(service="x"), as_of=START))
    async with database.get_session() as session:
        row = {"topic": "signals", "key": "a", "payload": "{}", "as_of": START}
        await database.append_outbox(session, [row, {**row, "key": "b"}, {**row, "topic": "orders"}])
        await database.ack_outbox(session, "signals", ["b"])
    await watched.observer.look()
    assert watched.value("stream_length") == watched.value("stream_length", stream="signals") == 1
    assert watched.value("outbox_rows") == watched.value("outbox_rows", topic="signals") == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_breakers_retries_queues_and_checks_are_seen(database: Database) -> None:
    clock = ManualClock(START)
    outside = Outside("exchange", CircuitBreaker(1, 60, clock=clock))
    notifier = TelegramNotifier(
        "1:a", "42", base_url="http://127.0.0.1:1", limits=NotifierLimits(queue_max=2, close_seconds_max=0), clock=clock
    )
    health = HealthCheckServer("up", 0, clock=clock)
    health.register_check("bus", lambda: False)
    watched = Watched("up", database, outsides=[outside], notifier=notifier, health=health)
    for number in range(5):  # from another thread: nothing is sent before the first message of this loop
        await asyncio.to_thread(notifier.post_error, f"error {number}", "up")
    outside.breaker.record_failure()
    outside.retried(TimeoutError(), 1.0)
    await watched.observer.look()
    await watched.observer.look()  # what was counted is not counted again
    assert watched.value("breaker_state", breaker="exchange") == 2
    assert watched.value("retries_total", call="exchange") == 1
    assert watched.value("queue_depth", queue="telegram") == 2
    assert watched.value("queue_dropped_total", queue="telegram") == 3
    assert watched.value("check_ok", check="bus") == 0
    await notifier.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_bus_that_is_away_stops_no_look(database: Database) -> None:
    watched = Watched("strategy-engine", database)
    watched.bus.is_available = False
    await watched.observer.look()
    assert watched.value("errors_total", error_type="BrokerError") == 1
    watched.bus.is_available = True
    await watched.observer.look()
    assert watched.value("stream_length", stream="signals") == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_observer_looks_as_long_as_the_block_lasts(database: Database) -> None:
    watched = Watched("strategy-engine", database)
    async with observing(watched.observer):
        await until(lambda: watched.clock.sleeper_count > 0)
    assert watched.value("outbox_rows", topic="signals") == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_look_that_fails_is_counted_and_is_not_the_last(database: Database) -> None:
    watched = Watched("data-collector", database)
    await watched.store(**{"collector__candles__BTC/USDT__7m": 1})  # a timeframe that nobody knows
    async with observing(watched.observer):
        await until(lambda: watched.clock.sleeper_count > 0)
    assert watched.value("errors_total", error_type="KeyError") == 1

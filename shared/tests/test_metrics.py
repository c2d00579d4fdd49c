"""Metrics: the names on the wire and what a second instance of a name does."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from shared.clock import ManualClock
from shared.metrics import ServiceMetrics


def sample(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_the_names_on_the_wire_are_those_of_the_specification() -> None:
    registry = CollectorRegistry()
    metrics = ServiceMetrics("engine", registry)
    metrics.errors_total.labels(service="engine", error_type="ValueError").inc()
    metrics.events_processed.labels(service="engine", event_type="candle").inc(3)
    metrics.processing_seconds.labels(service="engine").observe(0.2)
    text = generate_latest(registry).decode()
    assert 'trading_errors_total{error_type="ValueError",service="engine"} 1.0' in text
    assert 'trading_events_processed_total{event_type="candle",service="engine"} 3.0' in text
    assert 'trading_processing_seconds_count{service="engine"} 1.0' in text
    assert 'trading_service_up{service="engine"} 1.0' in text
    assert "trading_build_info{" in text
    assert len(list(text_string_to_metric_families(text))) > 20


def test_a_second_one_of_the_same_name_counts_on() -> None:
    registry = CollectorRegistry()
    ServiceMetrics("engine", registry).event("candle")
    ServiceMetrics("engine", registry).event("candle")
    ServiceMetrics("executor", registry).event("candle", 5)
    assert sample(registry, "trading_events_processed_total", service="engine", event_type="candle") == 2
    assert sample(registry, "trading_events_processed_total", service="executor", event_type="candle") == 5


def test_registries_do_not_share_counts() -> None:
    one, two = CollectorRegistry(), CollectorRegistry()
    ServiceMetrics("engine", one).error("Odd")
    ServiceMetrics("engine", two)
    assert sample(two, "trading_errors_total", service="engine", error_type="Odd") is None


def test_without_a_registry_it_is_the_process_wide_one() -> None:
    ServiceMetrics("a-service-of-this-test")
    ServiceMetrics("a-service-of-this-test").up(False)
    assert sample(REGISTRY, "trading_service_up", service="a-service-of-this-test") == 0


async def test_processing_time_is_observed_also_when_the_block_fails() -> None:
    registry, clock = CollectorRegistry(), ManualClock()
    metrics = ServiceMetrics("engine", registry, clock=clock)
    with metrics.processing():
        await clock.advance(0.25)
    with pytest.raises(ValueError, match="x"), metrics.processing():
        raise ValueError("x")
    assert sample(registry, "trading_processing_seconds_count", service="engine") == 2
    assert sample(registry, "trading_processing_seconds_sum", service="engine") == 0.25


def test_every_helper_writes_its_metric() -> None:
    registry = CollectorRegistry()
    metrics = ServiceMetrics("s", registry)
    metrics.error(KeyError("k"))
    metrics.data_age("BTC/USDT 1m", 4)
    metrics.gap("BTC/USDT 1m")
    metrics.quarantined("nan")
    metrics.dead_letter("signals")
    metrics.lag("BTC/USDT 1m", 2)
    metrics.queue("collector", 3, 10)
    metrics.queue_dropped("telegram")
    metrics.stream_length("signals", 8)
    metrics.outbox("orders", 7)
    metrics.order_latency(0.01)
    metrics.signal("rsi", "BUY")
    metrics.order("FILLED")
    metrics.fill("rsi", "BUY")
    metrics.refused("exposure")
    metrics.ignored("already_in")
    metrics.equity(9000, 0.1)
    metrics.pnl("day", -5)
    metrics.exposure("BTC/USDT", 0.12)
    metrics.breaker("telegram", "open")
    metrics.retry("bus")
    metrics.notification("sent")
    written = {
        item.name
        for family in registry.collect()
        for item in family.samples
        if not item.name.endswith("_created") and item.labels.get("service") == "s"
    }
    stems = """errors_total data_age_seconds gaps_total quarantined_total dead_letters_total lag_seconds queue_depth
        queue_depth_max queue_dropped_total stream_length outbox_rows order_latency_seconds_count signals_total
        orders_total fills_total refused_total ignored_total equity_quote drawdown_ratio pnl_quote exposure_ratio
        breaker_state retries_total notifications_total"""
    assert {f"trading_{stem}" for stem in stems.split()} <= written
    assert sample(registry, "trading_breaker_state", service="s", breaker="telegram") == 2
    assert sample(registry, "trading_errors_total", service="s", error_type="KeyError") == 1

"""From a candle's announcement to its orders' commit."""

from __future__ import annotations

from datetime import timedelta

from shared.domain.effects import Placed
from shared.models import Order, OrderSide
from shared.order_latency import ANNOUNCED_MAX, OrderLatency
from shared.testing.builders import BTC, START

MINUTE = timedelta(minutes=1)


def placed(minutes: int) -> Placed:
    order = Order(symbol=BTC, side=OrderSide.BUY, price=1, quantity=1, created_at=START + minutes * MINUTE)  # type: ignore[arg-type]
    return Placed(order, None)


def test_the_time_runs_from_the_announcement_of_the_orders_own_close() -> None:
    observed: list[float] = []
    latency = OrderLatency(observed.append)
    latency.announced(START, 10.0)
    latency.announced(START + MINUTE, 11.0)
    latency.committed([placed(1)], 11.25)
    latency.committed([placed(0)], 12.0)
    assert observed == [0.25, 2.0]
    assert latency.percentiles_ms() == {"p50": 1125.0, "p99": 1982.5}


def test_a_close_time_inside_a_batch_was_not_announced_and_does_not_count() -> None:
    latency = OrderLatency()
    latency.announced(START + 5 * MINUTE, 10.0)
    latency.committed([placed(3)], 10.5)
    assert latency.percentiles_ms() == {"p50": None, "p99": None}


def test_what_is_said_again_counts_from_its_first_time_and_memory_is_bounded() -> None:
    observed: list[float] = []
    latency = OrderLatency(observed.append)
    for minute in range(ANNOUNCED_MAX + 10):
        latency.announced(START + minute * MINUTE, float(minute))
    latency.announced(START + 20 * MINUTE, 1e9)
    latency.committed([placed(3), placed(20)], 21.0)
    assert observed == [1.0], "the oldest announcements are forgotten, known ones stay as they were"

"""From a candle's announcement to its orders' commit."""

from __future__ import annotations

from datetime import timedelta

from shared.clock import ManualClock
from shared.domain.effects import Placed
from shared.events import Event, Watermark
from shared.models import Order, OrderSide
from shared.order_latency import ANNOUNCED_MAX, OrderLatency
from shared.testing.builders import BTC, START

MINUTE = timedelta(minutes=1)


def placed(minutes: int) -> Placed:
    order = Order(symbol=BTC, side=OrderSide.BUY, price=1, quantity=1, created_at=START + minutes * MINUTE)  # type: ignore[arg-type]
    return Placed(order, None)


async def test_the_time_runs_from_the_announcement_of_the_orders_own_close() -> None:
    clock, observed = ManualClock(), list[float]()
    latency = OrderLatency(clock, observed.append)
    latency.announced(START)
    await clock.advance(1)
    latency.announced(START + MINUTE)
    await clock.advance(0.25)
    latency.committed([placed(1)])
    await clock.advance(0.75)
    latency.committed([placed(0)])
    assert observed == [0.25, 2.0]
    assert latency.percentiles_ms() == {"p50": 1125.0, "p99": 1982.5}


async def test_in_another_process_the_collectors_own_word_counts() -> None:
    clock, observed = ManualClock(), list[float]()
    latency = OrderLatency(clock, observed.append)
    said = Watermark(service="data-collector", announced_at=clock.now())
    await clock.advance(3)
    latency.hear(Event.decode(Event(data=said, as_of=START).encode()))
    latency.hear(Event(data=Watermark(service="engine"), as_of=START + MINUTE))
    latency.committed([placed(0), placed(1)])
    assert observed == [3.0]


def test_a_live_order_is_late_from_its_candles_close() -> None:
    observed: list[float] = []
    OrderLatency(ManualClock(START + 90 * MINUTE), observed.append, is_live=True).committed([placed(89)])
    assert observed == [60.0]


def test_a_close_time_inside_a_batch_was_not_announced_and_does_not_count() -> None:
    latency = OrderLatency(ManualClock())
    latency.announced(START + 5 * MINUTE)
    latency.committed([placed(3)])
    assert latency.percentiles_ms() == {"p50": None, "p99": None}


def test_what_is_said_again_counts_from_its_first_time_and_memory_is_bounded() -> None:
    observed: list[float] = []
    latency = OrderLatency(ManualClock(START), observed.append)
    for minute in range(ANNOUNCED_MAX + 10):
        latency.announced(START + minute * MINUTE, START - MINUTE)
    latency.announced(START + 20 * MINUTE, START)
    latency.committed([placed(3), placed(20)])
    assert observed == [60.0], "the oldest announcements are forgotten, known ones stay as they were"

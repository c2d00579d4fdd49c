"""The socket's callback never waits: what is full says so and loses nothing."""

from __future__ import annotations

import asyncio

from data_collector.feeds.intake import LiveIntake
from data_collector.feeds.port import MalformedCandle
from data_collector.testing import SCRIPT_START, build_candle
from shared.clock import ManualClock
from shared.events import CandleOpened


async def test_candles_come_out_in_order_and_at_most_as_many_as_asked() -> None:
    intake = LiveIntake(ManualClock())
    for number in (2, 0, 1, 3):
        assert intake.offer(build_candle(number))
    first = await intake.take(3)
    second = await intake.take(3)
    assert first is not None
    assert second is not None
    assert first.candles == (build_candle(0), build_candle(1), build_candle(2))
    assert second.candles == (build_candle(3),)
    assert not first.reconnected


async def test_a_full_queue_drops_the_newest_and_asks_for_a_back_fill() -> None:
    intake = LiveIntake(ManualClock(), candles_max=2)
    assert [intake.offer(build_candle(number)) for number in range(4)] == [True, True, False, False]
    assert (intake.depth, intake.dropped_total) == (2, 2)
    batch = await intake.take(10)
    assert batch is not None
    assert batch.reconnected
    assert len(batch.candles) == 2
    assert intake.offer(build_candle(5))
    following = await intake.take(10)
    assert following is not None
    assert not following.reconnected


async def test_taking_waits_until_something_comes_and_ends_when_the_socket_has_finished() -> None:
    intake = LiveIntake(ManualClock())
    waiting = asyncio.create_task(intake.take(10))
    await asyncio.sleep(0)
    assert not waiting.done()
    intake.offer(build_candle(1))
    assert (await waiting) is not None
    intake.offer(build_candle(2))
    intake.finish()
    assert (await intake.take(10)) is not None
    assert (await intake.take(10)) is None


async def test_only_the_newest_opened_frame_of_a_stream_is_kept() -> None:
    intake = LiveIntake(ManualClock())
    for price in ("100", "101"):
        intake.offer_opened(CandleOpened(symbol="BTC/USDT", timeframe="1m", open_time=SCRIPT_START, open=price))
    intake.offer_malformed(MalformedCandle("BTC/USDT 1m", "{", "unreadable"))
    batch = await intake.take(10)
    assert batch is not None
    assert [each.open for each in batch.opened] == ["101"]
    assert len(batch.malformed) == 1


async def test_a_reconnect_is_told_with_the_next_batch_and_the_oldest_wait_is_measured() -> None:
    clock = ManualClock()
    intake = LiveIntake(clock)
    assert intake.oldest_wait_seconds == 0
    intake.offer(build_candle(1))
    await clock.advance(4)
    assert intake.oldest_wait_seconds == 4
    intake.note_reconnect()
    batch = await intake.take(10)
    assert batch is not None
    assert batch.reconnected

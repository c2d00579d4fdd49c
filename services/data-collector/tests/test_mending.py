"""What a live stream lacks or sends wrong is mended from the venue's history, and only facts are called facts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta

import structlog

from data_collector.backfill import BackfillRules, ContiguousFeed
from data_collector.collector import Collector
from data_collector.feeds.port import FeedBatch, ResumePoint, StreamKey
from data_collector.testing import SCRIPT_START, ScriptedFeed, build_candle
from shared.clock import ManualClock
from shared.db import Database
from shared.models import Candle
from shared.sa_models import CandleGapRow, QuarantineRow
from shared.testing.waiting import until_done

Build = Callable[..., Collector]
BTC = StreamKey("BTC/USDT", "1m")


def minutes_of(candles: Sequence[Candle]) -> list[int]:
    return [(each.open_time - SCRIPT_START) // timedelta(minutes=1) for each in candles]


async def run(collector: Collector, clock: ManualClock) -> None:
    await until_done(asyncio.create_task(collector.run(asyncio.Event())), clock, step_seconds=1.0)


async def test_a_malformed_candle_is_replaced_by_the_venues_history(collector_of: Build, database: Database) -> None:
    clock = ManualClock(SCRIPT_START + timedelta(minutes=60))
    script = [FeedBatch(candles=(each,)) for each in (build_candle(0), build_candle(1, high="1"), build_candle(2))]
    feed = ScriptedFeed(script, [build_candle(number) for number in range(3)])
    await run(collector_of(feed, clock=clock, history_candles=0), clock)
    assert await database.read_candles("BTC/USDT", "1m", limit=10) == [build_candle(number) for number in range(3)]
    assert await database.count_rows(QuarantineRow) == 1
    assert await database.count_rows(CandleGapRow) == 0


async def test_candles_are_closed_by_the_venues_clock_and_not_by_ours(collector_of: Build, database: Database) -> None:
    clock = ManualClock(SCRIPT_START)  # an hour behind the venue
    feed = ScriptedFeed([FeedBatch(candles=(build_candle(number),)) for number in (58, 59, 60)])
    feed.clock_offset = timedelta(hours=1)
    await run(collector_of(feed, clock=clock, history_candles=0), clock)
    assert minutes_of(await database.read_candles("BTC/USDT", "1m", limit=10)) == [58, 59]


class LaggingFeed:
    """A venue whose sockets lose a candle while an older hole is being asked about."""

    name = "lagging"
    deterministic = False
    identity = "lagging"
    clock_offset = timedelta(0)

    def __init__(self, *, late: Candle, venue: Sequence[Candle]) -> None:
        self._late = late
        self._venue = venue
        self._socket: asyncio.Queue[FeedBatch] = asyncio.Queue()
        self.asked: list[tuple[int, int]] = []

    def streams(self) -> Sequence[StreamKey]:
        return [BTC]

    def troubles(self) -> Sequence[str]:
        return []

    def send(self, *candles: Candle) -> None:
        self._socket.put_nowait(FeedBatch(candles=candles))

    async def history(self, _symbol: str, _timeframe: str, since: datetime, until: datetime) -> Sequence[Candle]:
        first, last = ((each - SCRIPT_START) // timedelta(minutes=1) for each in (since, until))
        self.asked.append((first, last))
        if len(self.asked) == 3:
            self.send(self._late)
            for _ in range(10):
                await asyncio.sleep(0)
        return [each for each in self._venue if since <= each.open_time < until]

    async def batches(self, _resume: ResumePoint) -> AsyncIterator[FeedBatch]:
        while True:
            yield await self._socket.get()

    async def close(self) -> None:
        pass


async def test_a_hole_that_opens_while_another_is_confirmed_is_asked_about_itself() -> None:
    clock = ManualClock(SCRIPT_START + timedelta(minutes=60))
    feed = LaggingFeed(late=build_candle(9), venue=[build_candle(number) for number in (0, 1, 5, 6, 7, 8, 9)])
    contiguous = ContiguousFeed(feed, clock, structlog.stdlib.get_logger(), BackfillRules(history_candles=0))
    batches = contiguous.batches(ResumePoint(open_times={BTC: SCRIPT_START + timedelta(minutes=1)}))
    feed.send(build_candle(5))
    seen: list[FeedBatch] = []
    async with asyncio.timeout(20):
        following = asyncio.ensure_future(anext(batches))
        while 9 not in [minute for batch in seen for minute in minutes_of(batch.candles)]:
            await asyncio.sleep(0.001)
            if following.done():
                seen.append(following.result())
                following = asyncio.ensure_future(anext(batches))
            elif clock.sleeper_count:
                await clock.advance(1.0)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await batches.aclose()
    assert [minute for batch in seen for minute in minutes_of(batch.candles) if minute > 1] == [5, 6, 7, 8, 9]
    assert [(gap.start_time, gap.candles_missing) for batch in seen for gap in batch.confirmed_gaps] == [
        (SCRIPT_START + timedelta(minutes=2), 3)
    ]


async def test_an_answer_that_lacks_what_the_stream_has_closed_confirms_nothing(
    collector_of: Build, database: Database
) -> None:
    clock = ManualClock(SCRIPT_START + timedelta(minutes=60))
    venue = [build_candle(number) for number in (0, 1)]
    feed = ScriptedFeed([FeedBatch(candles=(build_candle(number),)) for number in (0, 1, 4)], venue)
    running = asyncio.create_task(
        collector_of(feed, clock=clock, history_candles=0).run(asyncio.Event()), name="collector"
    )
    async with asyncio.timeout(20):
        while len(feed.asked) < 6 or len(await database.read_candles("BTC/USDT", "1m", limit=10)) < 2:
            await asyncio.sleep(0.001)
            if clock.sleeper_count:
                await clock.advance(30.0)
        assert minutes_of(await database.read_candles("BTC/USDT", "1m", limit=10)) == [0, 1]
        feed.publish(build_candle(2), build_candle(4))
        while not running.done():
            await asyncio.sleep(0.001)
            if clock.sleeper_count:
                await clock.advance(30.0)
    await running
    assert minutes_of(await database.read_candles("BTC/USDT", "1m", limit=10)) == [0, 1, 2, 4]
    assert await database.count_rows(CandleGapRow) == 1


async def test_after_a_reconnect_the_last_candles_are_compared_with_the_venues_history(
    collector_of: Build, database: Database
) -> None:
    clock = ManualClock(SCRIPT_START + timedelta(minutes=3, seconds=1))
    early = build_candle(2, volume=1)  # its stream called it closed too early
    script = [*(FeedBatch(candles=(each,)) for each in (build_candle(0), build_candle(1), early))]
    feed = ScriptedFeed([*script, FeedBatch(reconnected=True)], [build_candle(number) for number in range(3)])
    await run(collector_of(feed, clock=clock, history_candles=0), clock)
    assert (await database.read_candles("BTC/USDT", "1m", limit=10))[-1] == build_candle(2)

"""The collector around its feeds: what is stored, announced, resumed, mended and held back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select

from data_collector.collector import END_CURSOR, WATERMARK_CURSOR, Collector
from data_collector.feeds.port import FeedBatch, ResumePoint, StreamKey
from data_collector.feeds.simulated import SimulatedFeed, Simulation
from data_collector.testing import SCRIPT_START, ScriptedFeed, build_candle
from shared.broker_memory import MemoryBroker
from shared.clock import ManualClock
from shared.db import Database
from shared.errors import ConfigError
from shared.events import WATERMARK_STREAM, CandleOpened
from shared.models import Candle, to_milliseconds
from shared.sa_models import CandleGapRow, CandleRevisionRow, CandleRow, QuarantineRow
from shared.testing.waiting import until, until_done

Build = Callable[..., Collector]
BTC = StreamKey("BTC/USDT", "1m")
ETH = StreamKey("ETH/USDT", "1m")
BTC_BUS = "candles.BTC_USDT.1m"


class RecordedFeed:
    """A replay of candles in memory, for small and odd runs."""

    name = "replay"
    deterministic = True
    identity = "replay"

    def __init__(self, candles: Sequence[Candle], size: int = 3, streams: Sequence[StreamKey] = (BTC,)) -> None:
        self._candles, self._size, self._streams = candles, size, streams
        self.sent = 0

    def streams(self) -> Sequence[StreamKey]:
        return self._streams

    async def history(self, *_: object) -> Sequence[Candle]:
        raise AssertionError("a deterministic feed is never asked for history")

    async def batches(self, resume: ResumePoint):
        rest = [each for each in self._candles if resume.watermark is None or each.close_time > resume.watermark]
        for start in range(0, len(rest), self._size):
            part = tuple(rest[start : start + self._size])
            self.sent += len(part)
            yield FeedBatch(candles=part, watermark=part[-1].close_time)

    async def close(self) -> None:
        pass


async def stored_minutes(database: Database, symbol: str = "BTC/USDT") -> list[int]:
    candles = await database.read_candles(symbol, "1m", limit=100_000)
    return [(each.open_time - SCRIPT_START) // timedelta(minutes=1) for each in candles]


async def stored_gaps(database: Database) -> list[tuple[str, int, int, bool]]:
    async with database.read() as session:
        rows = (await session.execute(select(CandleGapRow).order_by(CandleGapRow.start_time))).scalars()
        return [
            (row.symbol, (row.start_time - SCRIPT_START) // timedelta(minutes=1), row.candles_missing, row.confirmed)
            for row in rows
        ]


async def announced_minutes(bus: MemoryBroker, stream: str = BTC_BUS) -> list[int]:
    events = [message.event for message in await bus.read(stream, count=100_000)]
    return [(each.data.open_time - SCRIPT_START) // timedelta(minutes=1) for each in events if each is not None]


# --- deterministic feeds ------------------------------------------------------------------------------------------


async def test_a_replay_is_stored_announced_and_ended(
    collector_of: Build, database: Database, bus: MemoryBroker, stop: asyncio.Event
) -> None:
    await collector_of(RecordedFeed([build_candle(number) for number in range(10)])).run(stop)
    last = to_milliseconds(SCRIPT_START + timedelta(minutes=10))
    assert await stored_minutes(database) == list(range(10))
    assert await announced_minutes(bus) == list(range(10))
    cursors = await database.read_cursors("collector/")
    assert cursors[WATERMARK_CURSOR] == cursors[END_CURSOR] == str(last)
    assert cursors["collector/candles/BTC/USDT/1m"] == str(last - 60_000)
    marks = [message.event for message in await bus.read(WATERMARK_STREAM)]
    assert [to_milliseconds(mark.as_of) for mark in marks if mark and mark.as_of][-1] == last
    assert {mark.data.service for mark in marks if mark} == {"data-collector"}


async def test_a_hole_in_a_replay_is_a_stated_fact(
    collector_of: Build, database: Database, stop: asyncio.Event
) -> None:
    await collector_of(RecordedFeed([build_candle(number) for number in (0, 1, 5, 6, 9)])).run(stop)
    assert await stored_gaps(database) == [("BTC/USDT", 2, 3, True), ("BTC/USDT", 7, 2, True)]


async def test_malformed_candles_are_quarantined_and_leave_a_stated_hole(
    collector_of: Build, database: Database, bus: MemoryBroker, stop: asyncio.Event
) -> None:
    candles = [build_candle(0), build_candle(1, close="NaN"), build_candle(2, volume=-1), build_candle(3)]
    await collector_of(RecordedFeed(candles)).run(stop)
    assert await stored_minutes(database) == await announced_minutes(bus) == [0, 3]
    assert await database.count_rows(QuarantineRow) == 2
    assert await stored_gaps(database) == [("BTC/USDT", 1, 2, True)]


@pytest.mark.parametrize("batches_before_the_stop", [0, 1, 2, 5])
async def test_a_second_run_goes_on_where_the_first_stopped(
    collector_of: Build, database: Database, bus: MemoryBroker, batches_before_the_stop: int
) -> None:
    candles = [build_candle(number) for number in range(20) if number != 7]
    first = RecordedFeed(candles)
    stop = asyncio.Event()
    running = asyncio.create_task(collector_of(first).run(stop))
    await until(lambda: first.sent >= 3 * batches_before_the_stop)
    stop.set()
    await running
    await collector_of(RecordedFeed(candles)).run(asyncio.Event())
    assert await stored_minutes(database) == [number for number in range(20) if number != 7]
    assert await stored_gaps(database) == [("BTC/USDT", 7, 1, True)]
    assert sorted(set(await announced_minutes(bus))) == await stored_minutes(database)


async def test_what_was_stored_and_never_announced_rings_at_the_next_start(
    collector_of: Build, database: Database, bus: MemoryBroker, stop: asyncio.Event
) -> None:
    feed = [build_candle(number) for number in range(4)]
    await collector_of(RecordedFeed(feed)).run(asyncio.Event())
    bus.wipe()
    await collector_of(RecordedFeed(feed)).run(stop)
    assert await announced_minutes(bus) == [3]
    assert await database.count_rows(CandleRow) == 4


async def test_an_end_is_forgotten_as_soon_as_more_may_come(
    collector_of: Build, database: Database, stop: asyncio.Event
) -> None:
    await collector_of(RecordedFeed([build_candle(0)])).run(asyncio.Event())
    feed = SimulatedFeed(Simulation((BTC,), speed=None), ManualClock())
    feed_like_replay = RecordedFeed([build_candle(number) for number in range(3000)], size=1)
    running = asyncio.create_task(collector_of(feed_like_replay).run(stop))
    await until(lambda: feed_like_replay.sent > 3)
    assert END_CURSOR not in await database.read_cursors("collector/")
    stop.set()
    await running
    assert END_CURSOR not in await database.read_cursors("collector/")
    assert feed.identity == "simulated seed=1"


async def test_a_state_of_another_feed_or_seed_is_refused(collector_of: Build, stop: asyncio.Event) -> None:
    await collector_of(RecordedFeed([build_candle(0)])).run(stop)
    for seed in (1, 2):
        with pytest.raises(ConfigError, match="holds candles of feed 'replay'"):
            await collector_of(SimulatedFeed(Simulation((BTC,), seed=seed), ManualClock())).run(stop)


async def test_a_bus_that_is_away_stops_nothing(
    collector_of: Build, database: Database, bus: MemoryBroker, stop: asyncio.Event
) -> None:
    bus.is_available = False
    await collector_of(RecordedFeed([build_candle(number) for number in range(7)])).run(stop)
    assert await stored_minutes(database) == list(range(7))


async def test_the_simulated_feed_stops_when_told_while_it_waits_for_its_pace(
    collector_of: Build, database: Database
) -> None:
    clock, stop = ManualClock(), asyncio.Event()
    collector = collector_of(SimulatedFeed(Simulation((BTC, ETH), speed=1.0), clock))
    running = asyncio.create_task(collector.run(stop))
    await until(lambda: clock.sleeper_count == 1)
    assert 980 <= await database.count_rows(CandleRow) <= 1000
    assert (await collector.check())[0] is True
    stop.set()
    async with asyncio.timeout(20):
        await running


async def test_fifty_symbols_are_stored_in_whole_close_times(
    collector_of: Build, database: Database, stop: asyncio.Event
) -> None:
    streams = tuple(StreamKey(f"C{number:02}/USDT", "1m") for number in range(50))
    collector = collector_of(SimulatedFeed(Simulation(streams, speed=None, history_candles=30), ManualClock()))
    running = asyncio.create_task(collector.run(stop))
    await until(lambda: collector.watermark is not None)
    stop.set()
    await running
    assert collector.watermark is not None
    found = await database.read_candles_of([(*stream, None) for stream in streams], None, 100_000)
    lasts = {candles[-1].close_time for candles in found.values()}
    assert max(lasts) == collector.watermark


# --- back-pressure ------------------------------------------------------------------------------------------------


async def set_cursor(database: Database, name: str, minute: int) -> None:
    async with database.get_session() as session:
        moment = to_milliseconds(SCRIPT_START + timedelta(minutes=minute))
        await database.write_cursors(session, {f"{name}/watermark": moment})


async def settled(feed: RecordedFeed) -> int:
    """Return how much was sent once nothing more is sent for a while."""
    before = -1
    while before != feed.sent:
        before = feed.sent
        for _ in range(20):
            await asyncio.sleep(0.005)
    return before


async def test_the_feed_never_runs_further_ahead_than_allowed_of_the_slowest_consumer(
    collector_of: Build, database: Database, stop: asyncio.Event
) -> None:
    feed = RecordedFeed([build_candle(number) for number in range(100)])
    collector = collector_of(feed, feed_ahead_max=10, consumers=("engine", "executor"))
    running = asyncio.create_task(collector.run(stop))
    await settled(feed)
    assert len(await stored_minutes(database)) == 9  # three whole batches; a consumer without a cursor has had none
    await set_cursor(database, "engine", 6)
    await settled(feed)
    assert len(await stored_minutes(database)) == 9
    await set_cursor(database, "executor", 3)
    await settled(feed)
    assert len(await stored_minutes(database)) == 12
    for name in ("engine", "executor"):
        await set_cursor(database, name, 1000)
    async with asyncio.timeout(20):
        await running
    assert len(await stored_minutes(database)) == 100


async def test_a_restart_counts_what_the_last_run_left_unhandled(
    collector_of: Build, database: Database, stop: asyncio.Event
) -> None:
    candles = [build_candle(number) for number in range(100)]
    await collector_of(RecordedFeed(candles[:9])).run(asyncio.Event())
    await set_cursor(database, "engine", 2)
    feed = RecordedFeed(candles)
    running = asyncio.create_task(collector_of(feed, feed_ahead_max=10, consumers=("engine",)).run(stop))
    await settled(feed)
    assert len(await stored_minutes(database)) == 12  # two handled, seven waiting, three more
    stop.set()
    async with asyncio.timeout(20):
        await running


# --- live feeds ---------------------------------------------------------------------------------------------------


def live_clock(minute: int) -> ManualClock:
    return ManualClock(SCRIPT_START + timedelta(minutes=minute, seconds=1))


async def run_live(collector: Collector, clock: ManualClock, stop: asyncio.Event) -> None:
    """Run to the end of the script, letting time pass whenever the collector waits for it."""
    await until_done(asyncio.create_task(collector.run(stop)), clock, step_seconds=1.0)


def live_script(*minutes: int, symbol: str = "BTC/USDT") -> list[FeedBatch]:
    return [FeedBatch(candles=(build_candle(minute, symbol),)) for minute in minutes]


async def test_history_is_loaded_before_the_first_live_candle(
    collector_of: Build, database: Database, bus: MemoryBroker, stop: asyncio.Event
) -> None:
    clock = live_clock(31)
    venue = [build_candle(number) for number in range(31)]
    feed = ScriptedFeed(live_script(31, 32), venue, page_rows_max=7)
    await clock.advance(120)
    await run_live(collector_of(feed, clock=clock, history_candles=20), clock, stop)
    assert await stored_minutes(database) == [*range(11, 31), 31, 32]  # counted from the newest candle there is
    assert await announced_minutes(bus) == await stored_minutes(database)
    cursors = await database.read_cursors("collector/")
    assert WATERMARK_CURSOR not in cursors
    assert END_CURSOR not in cursors


async def test_a_hole_is_mended_before_newer_candles_of_that_stream_go_on(
    collector_of: Build, database: Database, bus: MemoryBroker, stop: asyncio.Event
) -> None:
    clock = live_clock(60)
    venue = [build_candle(number) for number in range(20)]
    feed = ScriptedFeed(live_script(0, 1, 5, 6, 9), venue)
    await run_live(collector_of(feed, clock=clock, history_candles=0), clock, stop)
    assert await stored_minutes(database) == list(range(10))
    assert await announced_minutes(bus) == list(range(10))
    assert await stored_gaps(database) == []


async def test_a_hole_that_the_venue_confirms_is_stated_and_the_stream_goes_on(
    collector_of: Build, database: Database, bus: MemoryBroker, stop: asyncio.Event
) -> None:
    clock = live_clock(60)
    feed = ScriptedFeed(live_script(0, 1, 5, 6), [build_candle(3), build_candle(5)])
    await run_live(collector_of(feed, clock=clock, history_candles=0), clock, stop)
    assert await announced_minutes(bus) == [0, 1, 3, 5, 6]
    assert await stored_gaps(database) == [("BTC/USDT", 2, 1, True), ("BTC/USDT", 4, 1, True)]
    about_the_hole = [asked for asked in feed.asked if asked[1] <= SCRIPT_START + timedelta(minutes=2) < asked[2]]
    assert len(about_the_hole) >= 2  # asked twice before it is believed


async def test_a_venue_without_an_answer_is_asked_again_and_nothing_is_lost(
    collector_of: Build, database: Database, stop: asyncio.Event
) -> None:
    clock = live_clock(60)
    venue = [build_candle(number) for number in range(20)]
    feed = ScriptedFeed(live_script(0, 4, 5), venue, history_failures=4)
    await run_live(collector_of(feed, clock=clock, history_candles=0), clock, stop)
    assert await stored_minutes(database) == list(range(6))


async def test_a_stream_that_waits_for_its_hole_does_not_stop_the_others(
    collector_of: Build, database: Database, stop: asyncio.Event
) -> None:
    clock = live_clock(60)
    eth = [FeedBatch(candles=(build_candle(minute, "ETH/USDT"),)) for minute in range(5)]
    script = [*live_script(0), *live_script(3), *eth]
    feed = ScriptedFeed(script, streams=(BTC, ETH), history_failures=1_000_000)
    running = asyncio.create_task(collector_of(feed, clock=clock, history_candles=0).run(stop))

    async def eth_is_stored() -> bool:
        return len(await stored_minutes(database, "ETH/USDT")) == 5

    await until(eth_is_stored)
    assert clock.sleeper_count == 1  # the back-fill of BTC waits before it asks again
    assert await stored_minutes(database) == [0]
    stop.set()
    await running


async def test_duplicates_late_candles_and_revisions_are_harmless(
    collector_of: Build, database: Database, bus: MemoryBroker, stop: asyncio.Event
) -> None:
    clock = live_clock(60)
    script = [*live_script(0, 1, 1, 2, 0), FeedBatch(candles=(build_candle(1, volume=Decimal(8)),)), *live_script(3)]
    feed = ScriptedFeed(script)
    await run_live(collector_of(feed, clock=clock, history_candles=0), clock, stop)
    assert await announced_minutes(bus) == [0, 1, 2, 3]
    assert await database.count_rows(CandleRevisionRow) == 1
    assert await stored_gaps(database) == []


async def test_a_reconnect_back_fills_every_stream(
    collector_of: Build, database: Database, stop: asyncio.Event
) -> None:
    clock = live_clock(6)
    venue = [build_candle(number, symbol) for number in range(6) for symbol in ("BTC/USDT", "ETH/USDT")]
    script = [*live_script(0), *live_script(0, symbol="ETH/USDT"), FeedBatch(reconnected=True)]
    feed = ScriptedFeed(script, venue, streams=(BTC, ETH))
    await run_live(collector_of(feed, clock=clock, history_candles=0), clock, stop)
    assert await stored_minutes(database) == await stored_minutes(database, "ETH/USDT") == list(range(6))


async def test_an_unclosed_candle_is_quarantined(collector_of: Build, database: Database, stop: asyncio.Event) -> None:
    clock = live_clock(2)
    feed = ScriptedFeed(live_script(0, 1, 2))
    await run_live(collector_of(feed, clock=clock, history_candles=0), clock, stop)
    assert await stored_minutes(database) == [0, 1]
    async with database.read() as session:
        (reason,) = (await session.execute(select(QuarantineRow.reason))).scalars()
    assert reason.startswith("not_yet_closed")


async def test_a_hole_torn_by_the_quarantine_is_stated_as_unconfirmed(
    collector_of: Build, database: Database, stop: asyncio.Event
) -> None:
    clock = live_clock(60)
    script = [*live_script(0), FeedBatch(candles=(build_candle(1, low=-5),)), *live_script(2)]
    feed = ScriptedFeed(script, [build_candle(2)])
    await run_live(collector_of(feed, clock=clock, history_candles=0), clock, stop)
    assert await stored_gaps(database) == [("BTC/USDT", 1, 1, False)]


async def test_the_first_frame_of_a_candle_goes_to_its_own_stream(
    collector_of: Build, bus: MemoryBroker, stop: asyncio.Event
) -> None:
    clock = live_clock(60)
    opened = CandleOpened(symbol="BTC/USDT", timeframe="1m", open_time=SCRIPT_START, open="100")
    feed = ScriptedFeed([FeedBatch(opened=(opened,))])
    await run_live(collector_of(feed, clock=clock, history_candles=0), clock, stop)
    (message,) = await bus.read("opened.BTC_USDT.1m")
    assert message.event is not None
    assert message.event.data == opened
    assert await bus.depth(BTC_BUS) == 0


async def test_a_silent_stream_fails_the_check_and_is_named(collector_of: Build, stop: asyncio.Event) -> None:
    clock = live_clock(3)
    collector = collector_of(ScriptedFeed(live_script(0, 1, 2)), clock=clock, history_candles=0)
    await run_live(collector, clock, stop)
    assert (await collector.check())[0] is True
    await clock.advance(180)
    healthy, text = await collector.check()
    assert not healthy
    assert "BTC/USDT 1m" in text

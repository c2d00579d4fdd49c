"""Recorded files become one ordered run of time."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from data_collector.feeds.port import FeedBatch, ResumePoint, StreamKey
from data_collector.feeds.replay import ReplayFeed
from shared.candle_files import read_candle_file
from shared.clock import ManualClock
from shared.errors import ConfigError
from shared.models import TIMEFRAME_DELTA, Candle
from shared.testing.reference import reference_path

pytestmark = pytest.mark.thorough

START = datetime(2024, 8, 4, tzinfo=UTC)
BTC = StreamKey("BTC/USDT", "1m")
ETH = StreamKey("ETH/USDT", "1m")
BTC_5M = StreamKey("BTC/USDT", "5m")


def write_file(folder: Path, stream: StreamKey, minutes: list[int], price: float = 100.0) -> Path:
    step = TIMEFRAME_DELTA[stream.timeframe]
    path = folder / f"{stream.symbol.replace('/', '')}-{stream.timeframe}.parquet"
    rows = len(minutes)
    pl.DataFrame(
        {
            "open_time": [START + step * number for number in minutes],
            "open": [price + number * 0.1 for number in range(rows)],
            "high": [price + number * 0.1 + 1 for number in range(rows)],
            "low": [price + number * 0.1 - 1 for number in range(rows)],
            "close": [price + number * 0.1 + 0.5 for number in range(rows)],
            "volume": [1.5] * rows,
        }
    ).write_parquet(path)
    return path


async def run_whole(feed: ReplayFeed, resume: ResumePoint | None = None) -> list[FeedBatch]:
    return [batch async for batch in feed.batches(resume or ResumePoint())]


def candles_of(batches: list[FeedBatch]) -> list[Candle]:
    return [candle for batch in batches for candle in batch.candles]


@pytest.fixture
def feed(tmp_path: Path) -> ReplayFeed:
    paths = {
        ETH: write_file(tmp_path, ETH, [number for number in range(1500) if number % 7]),
        BTC: write_file(tmp_path, BTC, [*range(700), *range(900, 4000)]),
        BTC_5M: write_file(tmp_path, BTC_5M, list(range(800))),
    }
    return ReplayFeed.read(paths, ManualClock())


async def test_files_are_merged_by_close_time_symbol_and_timeframe(feed: ReplayFeed) -> None:
    batches = await run_whole(feed)
    candles = candles_of(batches)
    keys = [(each.close_time, each.symbol, each.timeframe) for each in candles]
    assert keys == sorted(keys)
    assert len(candles) == 3800 + 1285 + 800
    assert all(len(batch.candles) <= 500 for batch in batches)
    assert batches[-1].watermark == candles[-1].close_time


async def test_a_close_time_is_never_split_between_batches(feed: ReplayFeed) -> None:
    batches = await run_whole(feed)
    for before, after in itertools.pairwise(batches):
        assert before.candles[-1].close_time < after.candles[0].close_time
        assert before.watermark == before.candles[-1].close_time


async def test_a_close_time_larger_than_the_bound_stays_whole(tmp_path: Path) -> None:
    paths = {}
    for number in range(12):
        stream = StreamKey(f"C{number}/USDT", "1m")
        paths[stream] = write_file(tmp_path, stream, list(range(3)))
    batches = await run_whole(ReplayFeed.read(paths, ManualClock(), batch_candles_max=5))
    assert [len(batch.candles) for batch in batches] == [12, 12, 12]


@pytest.mark.parametrize("cut", [1, 499, 500, 777, 3000, 5884, 5885])
async def test_it_resumes_after_the_stored_watermark(feed: ReplayFeed, cut: int) -> None:
    candles = candles_of(await run_whole(feed))
    watermark = candles[cut - 1].close_time
    rest = candles_of(await run_whole(feed, ResumePoint(watermark=watermark)))
    assert rest == [each for each in candles if each.close_time > watermark]


async def test_floats_become_the_decimals_a_person_reads(feed: ReplayFeed) -> None:
    first = candles_of(await run_whole(feed))[0]
    assert (first.open, first.close, first.volume) == (Decimal("100.0"), Decimal("100.5"), Decimal("1.5"))
    assert first.open_time == START


async def test_speed_is_a_factor_of_real_time(tmp_path: Path) -> None:
    clock = ManualClock()
    feed = ReplayFeed.read({BTC: write_file(tmp_path, BTC, [0, 1, 2, 5])}, clock, speed=60.0)
    batches = feed.batches(ResumePoint())
    assert len((await anext(batches)).candles) == 1
    at: list[float] = []

    async def follow() -> None:
        async for batch in batches:
            at.append(round(clock.monotonic(), 6))
            assert len(batch.candles) == 1

    task = asyncio.create_task(follow())
    while not task.done():
        await asyncio.sleep(0)
        await clock.advance(0.25)
    assert at == [1.0, 2.0, 5.0]


async def test_a_run_a_little_late_sends_all_that_is_due_and_a_very_late_one_does_not_hurry(tmp_path: Path) -> None:
    clock = ManualClock()
    feed = ReplayFeed.read({BTC: write_file(tmp_path, BTC, list(range(100)))}, clock, speed=600.0)
    batches = feed.batches(ResumePoint())
    await anext(batches)
    await clock.advance(0.55)
    assert len((await anext(batches)).candles) == 5
    await clock.advance(10.0)
    assert len((await anext(batches)).candles) == 1
    following = asyncio.create_task(anext(batches))
    await asyncio.sleep(0)
    assert not following.done()
    await clock.advance(0.1)
    assert len((await following).candles) == 1


async def test_history_gives_what_the_file_holds(feed: ReplayFeed) -> None:
    rows = await feed.history("BTC/USDT", "1m", START + timedelta(minutes=690), START + timedelta(minutes=905))
    assert [(each.open_time - START) // timedelta(minutes=1) for each in rows] == [*range(690, 700), *range(900, 905)]


async def test_a_stream_given_twice_and_no_file_at_all_are_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path, BTC, [0, 1])
    with pytest.raises(ConfigError, match="at least one file"):
        ReplayFeed.read({}, ManualClock())
    file = read_candle_file(path, symbol="BTC/USDT", timeframe="1m")
    with pytest.raises(ConfigError, match="twice"):
        ReplayFeed([file, file], ManualClock())


async def test_a_recorded_crash_comes_out_as_it_was_recorded() -> None:
    path = reference_path("data/candles/binance-BTCUSDT-1m-2024crash.parquet")
    frame = pl.read_parquet(path)
    feed = ReplayFeed.read({BTC: path}, ManualClock())
    candles = candles_of(await run_whole(feed))
    assert [float(each.close) for each in candles] == frame["close"].to_list()
    assert [each.open_time for each in candles] == frame["open_time"].to_list()

"""One suite for every feed: what the collector relies on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from data_collector.feeds.port import Feed, FeedBatch, ResumePoint, StreamKey
from data_collector.feeds.replay import ReplayFeed
from data_collector.feeds.simulated import SimulatedFeed, Simulation
from data_collector.testing import ScriptedFeed, build_candle
from data_collector.validation import CandleValidator, ValidationRules
from shared.clock import ManualClock
from shared.models import Candle

STREAMS = (StreamKey("BTC/USDT", "1m"), StreamKey("ETH/USDT", "1m"))
CANDLES_SEEN = 2500


def recorded(symbol: str) -> list[Candle]:
    return [build_candle(number, symbol) for number in range(1300) if number % 97 != 5]


def simulated(folder: Path) -> Feed:
    return SimulatedFeed(Simulation(STREAMS, speed=None), ManualClock())


def replay(folder: Path) -> Feed:
    paths = {}
    for stream in STREAMS:
        paths[stream] = folder / f"{stream.symbol[:3]}.parquet"
        rows = recorded(stream.symbol)
        columns = {"open_time": [each.open_time for each in rows]}
        for name in ("open", "high", "low", "close", "volume"):
            columns[name] = [float(getattr(each, name)) for each in rows]
        pl.DataFrame(columns).write_parquet(paths[stream])
    return ReplayFeed.read(paths, ManualClock())


def scripted(folder: Path) -> Feed:
    venue = sorted(
        [each for stream in STREAMS for each in recorded(stream.symbol)],
        key=lambda each: (each.close_time, each.symbol, each.timeframe),
    )
    script = [FeedBatch(candles=tuple(part)) for part in itertools.batched(venue, 3)]
    return ScriptedFeed(script, venue, streams=STREAMS)


@pytest.fixture(params=[simulated, replay, scripted])
def feed(request: pytest.FixtureRequest, tmp_path: Path) -> Feed:
    build: Callable[[Path], Feed] = request.param
    return build(tmp_path)


@pytest.fixture(params=[simulated, replay])
def deterministic_feed(request: pytest.FixtureRequest, tmp_path: Path) -> Feed:
    build: Callable[[Path], Feed] = request.param
    return build(tmp_path)


async def some_batches(feed: Feed, resume: ResumePoint | None = None) -> list[FeedBatch]:
    batches: list[FeedBatch] = []
    async for batch in feed.batches(resume or ResumePoint()):
        batches.append(batch)
        if sum(len(each.candles) for each in batches) >= CANDLES_SEEN:
            break
    return batches


async def test_streams_are_named_sorted_and_stable(feed: Feed) -> None:
    assert list(feed.streams()) == sorted(STREAMS)
    assert feed.name
    assert feed.identity


async def test_candles_are_ordered_closed_and_valid(feed: Feed) -> None:
    batches = await some_batches(feed)
    validator = CandleValidator(ValidationRules(frozenset(STREAMS)))
    for batch in batches:
        keys = [(each.close_time, each.symbol, each.timeframe) for each in batch.candles]
        assert keys == sorted(keys)
        assert [validator.fault(each) for each in batch.candles] == [None] * len(batch.candles)
    assert {(each.symbol, each.timeframe) for batch in batches for each in batch.candles} == set(STREAMS)


async def test_only_a_deterministic_feed_completes_close_times(feed: Feed) -> None:
    batches = await some_batches(feed)
    if not feed.deterministic:
        assert all(batch.watermark is None for batch in batches)
        return
    for batch in batches:
        assert batch.watermark == batch.candles[-1].close_time
    for before, after in itertools.pairwise(batches):
        assert before.candles[-1].close_time < after.candles[0].close_time


async def test_a_deterministic_feed_resumes_without_loss_or_repetition(deterministic_feed: Feed) -> None:
    batches = await some_batches(deterministic_feed)
    whole = [each for batch in batches for each in batch.candles]
    for batch in batches[:3]:
        rest = await some_batches(deterministic_feed, ResumePoint(watermark=batch.watermark))
        expected = [each for each in whole if each.close_time > batch.watermark]
        assert [each for part in rest for each in part.candles][: len(expected)] == expected


async def test_history_is_ordered_within_its_bounds_and_equal_to_what_was_sent(feed: Feed) -> None:
    sent = [each for batch in await some_batches(feed) for each in batch.candles if each.symbol == "ETH/USDT"]
    since, until = sent[100].open_time, sent[300].open_time
    rows = await feed.history("ETH/USDT", "1m", since, until)
    assert list(rows) == sent[100:300]
    assert list(await feed.history("ETH/USDT", "1m", until, until)) == []
    assert list(await feed.history("ETH/USDT", "1m", since - timedelta(days=4000), since - timedelta(days=3000))) == []


async def test_it_closes(feed: Feed) -> None:
    await feed.close()

"""One suite for every feed: what the collector relies on, from files, a seed, a script, Binance and ccxt."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import structlog

from data_collector.feeds.binance.feed import BinanceFeed, BinanceSource
from data_collector.feeds.ccxt_feed import CcxtFeed, PollRules
from data_collector.feeds.port import Feed, FeedBatch, LiveFeed, ResumePoint, StreamKey
from data_collector.feeds.replay import ReplayFeed
from data_collector.feeds.simulated import SimulatedFeed, Simulation
from data_collector.testing import ScriptedFeed, build_candle
from data_collector.validation import CandleValidator, ValidationRules
from paper_exchange.market.sources import file_recording
from paper_exchange.server import ExchangeOptions, ExchangeUrls, PaperExchange
from shared.candle_files import read_candle_file
from shared.ccxt_exchange import open_exchange
from shared.clock import ManualClock, SystemClock
from shared.models import Candle

STREAMS = (StreamKey("BTC/USDT", "1m"), StreamKey("ETH/USDT", "1m"))
LOG = structlog.stdlib.get_logger("test")
SPEED = 6000.0  # a hundred candles of each stream in a second


@dataclass(frozen=True)
class Opened:
    """A feed, and how many candles of it are enough: a venue's come in their own time."""

    feed: Feed
    candles: int


def recorded(symbol: str, count: int = 1300) -> list[Candle]:
    return [build_candle(number, symbol) for number in range(count) if number % 97 != 5]


def write_files(folder: Path, count: int = 1300) -> dict[StreamKey, Path]:
    paths = {}
    for stream in STREAMS:
        paths[stream] = folder / f"{stream.symbol[:3]}.parquet"
        rows = recorded(stream.symbol, count)
        columns: dict[str, list[Any]] = {"open_time": [each.open_time for each in rows]}
        for name in ("open", "high", "low", "close", "volume"):
            columns[name] = [float(getattr(each, name)) for each in rows]
        pl.DataFrame(columns).write_parquet(paths[stream])
    return paths


@asynccontextmanager
async def simulated(_: Path) -> AsyncIterator[Opened]:
    yield Opened(SimulatedFeed(Simulation(STREAMS, speed=None), ManualClock()), 2500)


@asynccontextmanager
async def replay(folder: Path) -> AsyncIterator[Opened]:
    yield Opened(ReplayFeed.read(write_files(folder), ManualClock()), 2500)


@asynccontextmanager
async def scripted(_: Path) -> AsyncIterator[Opened]:
    venue = sorted(
        [each for stream in STREAMS for each in recorded(stream.symbol)],
        key=lambda each: (each.close_time, each.symbol, each.timeframe),
    )
    script = [FeedBatch(candles=tuple(part)) for part in itertools.batched(venue, 3)]
    yield Opened(ScriptedFeed(script, venue, streams=STREAMS), 2500)


@asynccontextmanager
async def exchange(folder: Path) -> AsyncIterator[ExchangeUrls]:
    files = [
        read_candle_file(path, symbol=stream.symbol, timeframe=stream.timeframe)
        for stream, path in write_files(folder, 600).items()
    ]
    options = ExchangeOptions(speed=SPEED, wait=True)
    async with PaperExchange(file_recording(files, 200), options, SystemClock()).running() as urls:
        yield urls


@asynccontextmanager
async def binance(folder: Path) -> AsyncIterator[Opened]:
    async with exchange(folder) as urls:
        feed = BinanceFeed(BinanceSource(STREAMS, urls.rest, urls.stream), SystemClock(), LOG)
        yield Opened(feed, 160)
        await feed.close()


@asynccontextmanager
async def ccxt(folder: Path) -> AsyncIterator[Opened]:
    clock = SystemClock()
    async with exchange(folder) as urls:
        venue = open_exchange("binance", urls.rest, clock)
        feed = CcxtFeed(STREAMS, venue, clock, LOG, PollRules(poll_seconds=0.05))
        yield Opened(feed, 160)
        await feed.close()


@pytest.fixture(params=[simulated, replay, scripted, binance, ccxt])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    async with request.param(tmp_path) as opened:
        yield opened


@pytest.fixture
def feed(opened: Opened) -> Feed:
    return opened.feed


@pytest.fixture(params=[simulated, replay])
async def deterministic_feed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Feed]:
    async with request.param(tmp_path) as opened:
        yield opened.feed


async def some_batches(feed: Feed, candles: int, resume: ResumePoint | None = None) -> list[FeedBatch]:
    """Return batches until they hold so many candles, or the feed has no more."""
    found: list[FeedBatch] = []
    batches = feed.batches(resume or ResumePoint())
    try:
        async for batch in batches:
            found.append(batch)
            if sum(len(each.candles) for each in found) >= candles:
                break
    finally:
        await batches.aclose()  # type: ignore[attr-defined]
    return found


async def test_streams_are_named_sorted_and_stable(feed: Feed) -> None:
    assert list(feed.streams()) == sorted(STREAMS)
    assert feed.name
    assert feed.identity


async def test_candles_are_ordered_closed_and_valid(opened: Opened) -> None:
    batches = await some_batches(opened.feed, opened.candles)
    validator = CandleValidator(ValidationRules(frozenset(STREAMS)))
    for batch in batches:
        keys = [(each.close_time, each.symbol, each.timeframe) for each in batch.candles]
        assert keys == sorted(keys)
        assert [validator.fault(each) for each in batch.candles] == [None] * len(batch.candles)
    assert {(each.symbol, each.timeframe) for batch in batches for each in batch.candles} == set(STREAMS)


async def test_no_candle_of_a_quiet_venue_comes_twice_or_is_left_out(opened: Opened) -> None:
    sent = [each for batch in await some_batches(opened.feed, opened.candles) for each in batch.candles]
    assert len({(each.symbol, each.open_time) for each in sent}) == len(sent)
    minutes = [each.open_time for each in sent if each.symbol == "BTC/USDT"]
    assert minutes == sorted(minutes)
    if isinstance(opened.feed, LiveFeed):
        steps = [later - earlier for earlier, later in itertools.pairwise(minutes)]
        assert set(steps) <= {timedelta(minutes=1), timedelta(minutes=2)}  # the files lack single minutes


async def test_only_a_deterministic_feed_completes_close_times(opened: Opened) -> None:
    batches = await some_batches(opened.feed, opened.candles)
    if not opened.feed.deterministic:
        assert all(batch.watermark is None for batch in batches)
        return
    for batch in batches:
        assert batch.watermark == batch.candles[-1].close_time
    for before, after in itertools.pairwise(batches):
        assert before.candles[-1].close_time < after.candles[0].close_time


async def test_a_deterministic_feed_resumes_without_loss_or_repetition(deterministic_feed: Feed) -> None:
    batches = await some_batches(deterministic_feed, 2500)
    whole = [each for batch in batches for each in batch.candles]
    for batch in batches[:3]:
        rest = await some_batches(deterministic_feed, 2500, ResumePoint(watermark=batch.watermark))
        expected = [each for each in whole if each.close_time > batch.watermark]
        assert [each for part in rest for each in part.candles][: len(expected)] == expected


async def test_history_is_ordered_within_its_bounds_and_equal_to_what_was_sent(opened: Opened) -> None:
    batches = await some_batches(opened.feed, opened.candles)
    sent = [each for batch in batches for each in batch.candles if each.symbol == "ETH/USDT"]
    first, last = len(sent) // 4, len(sent) // 2
    since, until = sent[first].open_time, sent[last].open_time
    rows = await opened.feed.history("ETH/USDT", "1m", since, until)
    assert list(rows) == sent[first:last]
    assert list(await opened.feed.history("ETH/USDT", "1m", until, until)) == []
    long_ago = since - timedelta(days=4000)
    assert list(await opened.feed.history("ETH/USDT", "1m", long_ago, long_ago + timedelta(days=1000))) == []


@pytest.mark.parametrize("venue", [binance, ccxt])
async def test_a_venue_tells_the_first_frame_of_a_candle_before_that_candle_closes(venue: Any, tmp_path: Path) -> None:
    async with venue(tmp_path) as opened:
        batches = await some_batches(opened.feed, opened.candles)
    opens = {(each.symbol, each.open_time): each.open for batch in batches for each in batch.opened}
    closed_before: set[Any] = set()
    for batch in batches:
        assert not {(each.symbol, each.open_time) for each in batch.opened} & closed_before
        closed_before |= {(each.symbol, each.open_time) for each in batch.candles}
    seen = [each for batch in batches for each in batch.candles if (each.symbol, each.open_time) in opens]
    assert len(seen) > opened.candles / 2 or opened.feed.name == "ccxt"  # a poll may come too late for the first frame
    assert all(format(each.open, "f") == opens[each.symbol, each.open_time] for each in seen)


async def test_it_closes(feed: Feed) -> None:
    await feed.close()

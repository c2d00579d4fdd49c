"""The simulated market: reproducible, believable, endless."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from data_collector.feeds.market import SyntheticMarket, aggregate_minutes, usual_price
from data_collector.feeds.port import FeedBatch, ResumePoint, StreamKey
from data_collector.feeds.simulated import SIMULATION_START, SimulatedFeed, Simulation
from shared.clock import ManualClock
from shared.errors import ConfigError
from shared.models import TIMEFRAME_DELTA, Candle

pytestmark = pytest.mark.thorough

BTC = StreamKey("BTC/USDT", "1m")
ETH = StreamKey("ETH/USDT", "1m")
FIRST_DAY = 20_089


def feed_of(*streams: StreamKey, seed: int = 1, speed: float | None = None) -> SimulatedFeed:
    return SimulatedFeed(Simulation(streams, seed=seed, speed=speed), ManualClock())


async def take_candles(feed: SimulatedFeed, count: int, resume: ResumePoint | None = None) -> list[Candle]:
    candles: list[Candle] = []
    async for batch in feed.batches(resume or ResumePoint()):
        candles.extend(batch.candles)
        if len(candles) >= count:
            break
    return candles[:count]


def of_stream(candles: Iterable[Candle], stream: StreamKey) -> list[Candle]:
    return [each for each in candles if (each.symbol, each.timeframe) == stream]


async def test_the_same_seed_gives_the_same_candles_and_another_seed_others() -> None:
    first = await take_candles(feed_of(BTC, ETH), 3000)
    assert first == await take_candles(feed_of(BTC, ETH), 3000)
    assert first != await take_candles(feed_of(BTC, ETH, seed=2), 3000)


async def test_another_symbol_changes_no_other() -> None:
    alone = await take_candles(feed_of(BTC), 1000)
    together = await take_candles(feed_of(BTC, ETH, StreamKey("SOL/USDT", "1m")), 4000)
    assert of_stream(together, BTC)[:1000] == alone


async def test_a_restart_goes_on_bit_for_bit_where_it_stopped() -> None:
    whole = await take_candles(feed_of(BTC, ETH), 4000)
    cut = next(i for i in range(1500, 4000) if whole[i].close_time != whole[i - 1].close_time)
    resume = ResumePoint(watermark=whole[cut - 1].close_time)
    assert await take_candles(feed_of(BTC, ETH), 4000 - cut, resume) == whole[cut:]


async def test_every_stream_starts_with_its_own_history() -> None:
    hour = StreamKey("BTC/USDT", "1h")
    candles = await take_candles(feed_of(BTC, hour), 1100)
    for stream in (BTC, hour):
        mine = of_stream(candles, stream)
        assert mine[0].open_time == SIMULATION_START - 500 * TIMEFRAME_DELTA[stream.timeframe]
        before = [each for each in mine if each.close_time <= SIMULATION_START]
        assert 490 <= len(before) <= 500


async def test_history_comes_at_once_and_then_one_minute_every_sixty_seconds_over_speed() -> None:
    clock = ManualClock()
    batches = SimulatedFeed(Simulation((BTC, ETH), speed=300), clock).batches(ResumePoint())
    history: list[FeedBatch] = [await anext(batches), await anext(batches)]
    assert history[-1].watermark == SIMULATION_START
    seen: list[float] = []

    async def follow() -> None:
        async for batch in batches:
            assert len({each.close_time for each in batch.candles}) == 1
            seen.append(round(clock.monotonic(), 6))
            if len(seen) == 5:
                return

    task = asyncio.create_task(follow())
    while not task.done():
        await asyncio.sleep(0)
        await clock.advance(0.1)
    assert seen == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_prices_stay_around_their_level_and_move_like_a_market() -> None:
    for symbol, level in (("BTC/USDT", 65_000), ("ETH/USDT", 3_200), ("XRP/USDT", 0.55)):
        market = SyntheticMarket(symbol, seed=7)
        days = [market.minutes(FIRST_DAY + day) for day in range(120)]
        close = np.concatenate([day.close for day in days])
        moves = np.abs(np.diff(np.log(close)))
        ranges = [day.high.max() / day.low.min() - 1 for day in days]
        assert level * 0.85 < close.min() < close.max() < level * 1.15
        assert 0.0005 < moves.std() + moves.mean() < 0.002
        assert 0.02 < float(np.median(ranges)) < 0.08
        assert np.corrcoef(moves[30:], moves[:-30])[0, 1] > 0.05  # calm and storm cluster


def test_minutes_are_whole_believable_and_without_a_seam_at_midnight() -> None:
    market = SyntheticMarket("BTC/USDT", seed=3)
    previous = market.minutes(FIRST_DAY)
    for day in range(FIRST_DAY + 1, FIRST_DAY + 30):
        minutes = market.minutes(day)
        assert (minutes.low <= np.minimum(minutes.open, minutes.close)).all()
        assert (minutes.high >= np.maximum(minutes.open, minutes.close)).all()
        assert (minutes.volume > 0).all()
        assert abs(float(minutes.open[0] / previous.close[-1]) - 1) < 0.002
        assert np.array_equal(np.round(minutes.close, 2), minutes.close)
        previous = minutes


def test_volume_grows_with_volatility() -> None:
    minutes = SyntheticMarket("BTC/USDT", seed=1).minutes(FIRST_DAY)
    assert np.corrcoef(np.log(minutes.high / minutes.low), minutes.volume)[0, 1] > 0.1


def test_some_days_lack_some_minutes_and_most_lack_none() -> None:
    market = SyntheticMarket("BTC/USDT", seed=1)
    missing = [1440 - len(market.minutes(FIRST_DAY + day).close) for day in range(100)]
    assert 15 <= sum(count > 0 for count in missing) <= 55
    assert max(missing) <= 8


@pytest.mark.parametrize("timeframe", ["3m", "5m", "15m", "1h", "12h", "1d"])
def test_longer_timeframes_are_made_of_the_minutes(timeframe: str) -> None:
    market = SyntheticMarket("BTC/USDT", seed=1)
    day = next(market.minutes(FIRST_DAY + n) for n in range(50) if len(market.minutes(FIRST_DAY + n).close) < 1440)
    longer = aggregate_minutes(day, timeframe)
    step = TIMEFRAME_DELTA[timeframe] // timedelta(milliseconds=1)
    for row, open_ms in enumerate(longer.open_time_ms.tolist()):
        assert open_ms % step == 0
        inside = day.opening_within(open_ms, open_ms + step)
        assert longer.open[row] == inside.open[0]
        assert longer.close[row] == inside.close[-1]
        assert longer.high[row] == inside.high.max()
        assert longer.low[row] == inside.low.min()
        assert longer.volume[row] == pytest.approx(inside.volume.sum(), rel=1e-12)


def test_unknown_symbols_get_a_level_of_their_own() -> None:
    assert usual_price("BTC/USDT") == 65_000
    assert usual_price("ETH/BTC") == pytest.approx(3_200 / 65_000)
    levels = {usual_price(f"COIN{number}/USDT") for number in range(40)}
    assert len(levels) > 35
    assert all(0.09 < level < 320 for level in levels)


async def test_fifty_symbols_come_in_order() -> None:
    streams = tuple(StreamKey(f"C{number:02}/USDT", "1m") for number in range(50))
    candles = await take_candles(feed_of(*streams), 5000)
    keys = [(each.close_time, each.symbol, each.timeframe) for each in candles]
    assert keys == sorted(keys)
    assert len(set(keys)) == 5000


def test_a_simulation_needs_streams_and_a_midnight() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        SimulatedFeed(Simulation(()), ManualClock())
    with pytest.raises(ConfigError, match="midnight"):
        SimulatedFeed(Simulation((BTC,), start=datetime(2025, 1, 1, 5, tzinfo=UTC)), ManualClock())

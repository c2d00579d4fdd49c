"""A live run speaks about the present, and only where the past it needs lies behind it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

from shared.clock import ManualClock
from shared.db import Database
from shared.live_history import LOADING, history_candles, live_from_cursor
from shared.models import Candle, InstanceKey, OrderSide, Signal, to_milliseconds
from shared.plugins import bundled_strategies_dir, discover
from shared.sa_models import SignalRow
from shared.strategy import BaseStrategy, History
from shared.strategy_runner import InstanceStamp, StrategyRunner
from strategy_engine.loop import EngineLoop

START = datetime(2024, 3, 4, 12, tzinfo=UTC)
STREAM = ("BTC/USDT", "1m")
KEY = InstanceKey("talker", *STREAM)


class Talker(BaseStrategy):
    """Says BUY at every candle; needs what a test tells it to need."""

    need = History()

    @property
    def warmup_period(self) -> int:
        return 1

    def history(self, now: datetime) -> History:  # noqa: ARG002 - whatever the time
        return self.need

    def on_candle(self, candle: Candle) -> Signal | None:
        return self.signal(candle, OrderSide.BUY, "it is there")


def minute(number: int) -> Candle:
    return Candle(
        symbol="BTC/USDT",
        timeframe="1m",
        open_time=START + timedelta(minutes=number),
        open=Decimal(100),
        high=Decimal(101),
        low=Decimal(99),
        close=Decimal(100),
        volume=Decimal(1),
    )


def talker(need: History | None = None) -> StrategyRunner:
    strategy = Talker()
    strategy.need = need or History()
    return StrategyRunner(KEY, strategy, InstanceStamp(age_max=timedelta(minutes=5)))


async def store(database: Database, minutes: Sequence[int], live_from: int | None) -> None:
    """Store candles as the collector does; `live_from` is the last minute of history, None while it is loaded."""
    value = LOADING if live_from is None else to_milliseconds(minute(live_from).open_time)
    async with database.get_session() as session:
        await database.upsert_candles([minute(number) for number in minutes], session)
        await database.write_cursors(session, {live_from_cursor(STREAM): value})


async def run_dry(loop: EngineLoop) -> None:
    while await loop.step():
        pass


async def spoken(database: Database) -> list[int]:
    async with database.read() as session:
        times = (await session.execute(select(SignalRow.candle_open_time))).scalars()
        return sorted((each - START) // timedelta(minutes=1) for each in times)


@pytest.fixture
def live_loop(loop_of: Any) -> Any:
    return lambda need=None: loop_of([talker(need)], clock=ManualClock(), is_deterministic=False, wait_seconds=0.0)


async def test_history_is_fed_and_not_spoken_about(database: Database, live_loop: Any) -> None:
    loop = live_loop()
    await store(database, range(5), live_from=None)
    await run_dry(loop)
    await store(database, range(5, 8), live_from=6)
    await run_dry(loop)
    await store(database, [8], live_from=6)
    await run_dry(loop)
    assert await spoken(database) == [7, 8]


async def test_an_instance_is_silent_until_what_it_needs_lies_behind_it_and_says_so(
    database: Database, live_loop: Any
) -> None:
    loop = live_loop(History(candles=10))
    await store(database, range(7), live_from=6)
    await run_dry(loop)
    assert "it needs candles since 2024-03-04 11:57 UTC and has them since 2024-03-04 12:00" in loop.notices()[0]
    await store(database, range(7, 12), live_from=6)
    await run_dry(loop)
    assert await spoken(database) == [9, 10, 11]
    assert loop.notices() == []


async def test_an_anchor_that_began_before_the_stored_past_keeps_an_instance_silent(
    database: Database, live_loop: Any
) -> None:
    loop = live_loop(History(since=START - timedelta(hours=12), note="from the start of the day"))
    await store(database, range(30), live_from=6)
    await run_dry(loop)
    assert await spoken(database) == []
    assert "from the start of the day" in loop.notices()[0]


async def test_a_restart_remembers_how_far_the_past_reaches_back(database: Database, live_loop: Any) -> None:
    await store(database, range(12), live_from=3)
    await run_dry(live_loop(History(candles=10)))
    loop = live_loop(History(candles=10))
    await store(database, [12], live_from=3)
    await run_dry(loop)
    assert await spoken(database) == [9, 10, 11, 12]


def test_a_stream_is_loaded_as_far_back_as_its_most_demanding_strategy_asks() -> None:
    found = discover(bundled_strategies_dir())
    strategies = [(STREAM, found.get(name).create("BTC/USDT", {})) for name in ("rsi", "macd", "ema_crossover")]
    assert history_candles(strategies, START) == {STREAM: 363}
    vwap = found.get("vwap").create("BTC/USDT", {})
    assert history_candles([*strategies, (STREAM, vwap)], START) == {STREAM: 720}

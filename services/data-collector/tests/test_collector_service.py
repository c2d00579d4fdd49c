"""The service as a process runs it: settings in, a filled database and a rung bus out."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import polars as pl
import pytest

from data_collector.config import CollectorConfig
from data_collector.feeds.port import StreamKey
from data_collector.main import serve
from shared.config import Settings, load_settings
from shared.db import Database
from shared.errors import ConfigError, DatabaseError
from shared.sa_models import CandleRow

START = datetime(2024, 8, 4, tzinfo=UTC)
ROWS = 1000


@pytest.fixture
def candle_file(tmp_path: Path) -> Path:
    path = tmp_path / "btc.csv"
    moments = [START + timedelta(minutes=number) for number in range(ROWS)]
    prices = [100.0 + number % 50 for number in range(ROWS)]
    pl.DataFrame(
        {"open_time": moments, "open": prices, "high": prices, "low": prices, "close": prices, "volume": [1.0] * ROWS}
    ).write_csv(path)
    return path


def settings_of(**options: object) -> Settings:
    return load_settings({"health_port": 0, **options}, env={})


def test_the_settings_become_the_collectors_bounds() -> None:
    config = CollectorConfig.from_settings(
        settings_of(symbols="ETH/USDT,BTC/USDT", timeframes="1m,5m", speed="max", feed_ahead_max=100)
    )
    assert config.streams[0] == StreamKey("BTC/USDT", "1m")
    assert len(config.streams) == 4
    assert config.speed is None
    assert config.batch_candles_max == 100  # a batch never exceeds what the feed may be ahead


@pytest.mark.integration
async def test_a_replay_runs_to_its_end(sqlite_url: str, valkey_url: str, candle_file: Path) -> None:
    settings = settings_of(
        database_url=sqlite_url, redis_url=valkey_url, feed="replay", data=f"BTC/USDT:1m={candle_file}", speed="max"
    )
    async with asyncio.timeout(60):
        await serve(settings, asyncio.Event())
        await serve(settings, asyncio.Event())  # a second run finds nothing new and ends at once
    database = Database(sqlite_url)
    assert await database.count_rows(CandleRow) == ROWS
    cursors = await database.read_cursors("collector/")
    assert cursors["collector/end"] == cursors["collector/watermark"]
    assert cursors["collector/feed"] == "replay"
    assert (await database.stamps())["mode"] == "paper"
    await database.close()


@pytest.mark.integration
async def test_the_duration_ends_a_simulation(sqlite_url: str, valkey_url: str) -> None:
    settings = settings_of(database_url=sqlite_url, redis_url=valkey_url, duration=0.2, speed=300)
    stop = asyncio.Event()
    async with asyncio.timeout(60):
        await serve(settings, stop)
    assert stop.is_set()
    database = Database(sqlite_url)
    assert await database.count_rows(CandleRow) > 0
    await database.close()


@pytest.mark.integration
async def test_health_answers_over_http_while_it_collects(
    sqlite_url: str, valkey_url: str, unused_tcp_port: int
) -> None:
    settings = settings_of(database_url=sqlite_url, redis_url=valkey_url, health_port=unused_tcp_port)
    stop = asyncio.Event()
    running = asyncio.create_task(serve(settings, stop))
    async with asyncio.timeout(60), aiohttp.ClientSession() as client:
        document = None
        while document is None or document["checks"].get("collector", {}).get("detail", "collecting") == "collecting":
            try:
                async with client.get(f"http://127.0.0.1:{unused_tcp_port}/health") as answer:
                    document = await answer.json()
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.01)
        assert document["status"] == "ok"
        assert set(document["checks"]) == {"event_loop", "database", "bus", "lease", "collector", "collector_loop"}
        stop.set()
        await running


async def test_a_database_without_tables_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    settings = settings_of(database_url=f"sqlite:///{tmp_path / 'empty.db'}", redis_url="redis://localhost:1")
    with pytest.raises(DatabaseError, match="trading db upgrade"):
        await serve(settings, asyncio.Event())


async def test_urls_are_demanded() -> None:
    with pytest.raises(ConfigError, match="database_url"):
        await serve(settings_of(), asyncio.Event())

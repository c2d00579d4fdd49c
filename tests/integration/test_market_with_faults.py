"""An hour of market at speed from an exchange on which everything goes wrong: no candle is lost, doubled or changed."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry
from sqlalchemy import select

from data_collector.collector import Collector, CollectorPorts
from data_collector.config import CollectorConfig
from data_collector.feeds.binance.connection import StreamRules
from data_collector.feeds.binance.feed import BinanceFeed, BinanceSource
from data_collector.feeds.port import StreamKey
from data_collector.storage import CandleStorage
from paper_exchange.faults.plan import parse_fault_plan
from paper_exchange.market.sources import file_recording
from paper_exchange.server import ExchangeOptions, PaperExchange
from paper_exchange.testing import simulated_file
from shared.binance_rest import CallPolicy
from shared.broker_memory import MemoryBroker
from shared.candle_files import CandleFile
from shared.clock import SystemClock
from shared.db import Database
from shared.events import candle_stream
from shared.metrics import ServiceMetrics
from shared.models import Candle, from_milliseconds
from shared.sa_models import CandleGapRow
from shared.testing.waiting import until

LOG = structlog.stdlib.BoundLogger(logging.getLogger("test"), [structlog.stdlib.render_to_log_kwargs], {})
SPEED = 300.0
HISTORY = 40
MINUTES = 60
HOLES = (HISTORY + 21, HISTORY + 22, HISTORY + 44)  # the venue itself has nothing there
STREAMS = (StreamKey("BTC/USDT", "1m"), StreamKey("ETH/USDT", "1m"), StreamKey("BTC/USDT", "5m"))

FAULTS: list[dict[str, Any]] = [
    {"kind": "drop", "candle": 3, "every": 17},
    {"kind": "drop", "name": "drop after the frame", "candle": 9, "delivered": True, "code": 1001},
    {"kind": "silence", "candle": 27, "candles": 6, "streams": "btcusdt@kline_1m"},
    {"kind": "silence", "name": "lost closes", "frames": "closed", "chance": 0.1},
    {"kind": "duplicate", "chance": 0.2, "copies": 2},
    {"kind": "reorder", "chance": 0.1, "by": 3},
    {"kind": "malformed", "chance": 0.1},
    {"kind": "malformed", "name": "noise", "chance": 0.05, "frames": "all", "instead": False},
    {"kind": "early_close", "chance": 0.1},
    {"kind": "shutdown", "candle": 30, "candles": 10, "times": 2},
    {"kind": "error", "chance": 0.1},
    {"kind": "slow", "chance": 0.1, "delay_seconds": 0.3, "times": 6},
    {"kind": "rate_limit", "chance": 0.1, "retry_after": 1, "times": 3},
    {"kind": "ban", "skip": 10, "times": 1, "retry_after": 2},
    {"kind": "html", "chance": 0.1, "times": 5},
    {"kind": "cut_answer", "chance": 0.1, "times": 5},
    {"kind": "late_candle", "chance": 0.3, "rows": 2},
    {"kind": "refuse", "after_seconds": 7.0, "seconds": 0.7},
]


@pytest.fixture
def files() -> list[CandleFile]:
    rows = HISTORY + MINUTES
    return [
        simulated_file("BTC/USDT", "1m", rows=rows, without=HOLES),
        simulated_file("ETH/USDT", "1m", rows=rows, without=HOLES),
        simulated_file("BTC/USDT", "5m", rows=rows // 5),
    ]


def expected_candles(file: CandleFile, shift_ms: int) -> list[Candle]:
    names = ("open", "high", "low", "close", "volume")
    rows = zip(*(getattr(file, name).tolist() for name in names), strict=True)
    times = [from_milliseconds(int(each) + shift_ms) for each in file.open_time_ms]
    return [
        Candle(symbol=file.symbol, timeframe=file.timeframe, open_time=moment, **dict(zip(names, values, strict=True)))
        for moment, values in zip(times, rows, strict=True)
    ]


def collector_of(database: Database, bus: MemoryBroker, source: BinanceSource) -> Collector:
    clock = SystemClock()
    metrics = ServiceMetrics("data-collector", CollectorRegistry())
    config = CollectorConfig(
        feed="binance", streams=STREAMS, history_candles=HISTORY + MINUTES, compare_seconds=2.0, consumers=()
    )
    return Collector(
        BinanceFeed(source, clock, LOG, metrics),
        CandleStorage(database, bus, clock=clock),
        config,
        CollectorPorts(database, bus, clock, metrics, LOG),
    )


async def stored(database: Database, stream: StreamKey) -> list[Candle]:
    return await database.read_candles(*stream, limit=1000)


async def until_stored(database: Database, ends: dict[StreamKey, Candle]) -> None:
    async def all_ended() -> bool:
        return all([(await stored(database, stream))[-1:] == [last] for stream, last in ends.items()])

    await until(all_ended, seconds_max=60, poll_seconds=0.1)


async def test_an_hour_with_every_fault_is_stored_as_the_files_have_it(
    sqlite_url: str, files: Sequence[CandleFile]
) -> None:
    database, bus, stop = Database(sqlite_url), MemoryBroker(stream_length_max=10_000), asyncio.Event()
    options = ExchangeOptions(speed=SPEED, wait=True, faults=parse_fault_plan(FAULTS, "test"))
    exchange = PaperExchange(file_recording(files, HISTORY // 5), options, SystemClock())
    async with exchange.running() as urls:
        source = BinanceSource(
            STREAMS,
            urls.rest,
            urls.stream,
            call_policy=CallPolicy(
                base_delay_seconds=0.05, delay_seconds_max=0.5, request_seconds_max=3.0, breaker_seconds=0.5
            ),
            stream_rules=StreamRules(
                silence_seconds_max=0.5, retry_base_seconds=0.05, retry_seconds_max=0.5, breaker_seconds=0.5
            ),
        )
        running = asyncio.create_task(collector_of(database, bus, source).run(stop))
        await exchange.over()
        assert exchange.market.plan is not None
        wanted = {
            StreamKey(file.symbol, file.timeframe): expected_candles(file, exchange.market.plan.shift_ms)
            for file in files
        }
        await until_stored(database, {stream: candles[-1] for stream, candles in wanted.items()})
        fired = Counter({each["name"]: each["fired"] for each in exchange.faults.report()})
        stop.set()
        await running
    for stream, candles in wanted.items():
        found = await stored(database, stream)
        assert found == candles[-len(found) :], str(stream)
        assert len(found) >= MINUTES // 5 if stream.timeframe == "5m" else len(found) >= MINUTES - len(HOLES)
        told = [message.event.data for message in await bus.read(candle_stream(*stream), count=10_000) if message.event]
        assert [each.open_time for each in told] == [each.open_time for each in found], str(stream)
    async with database.read() as session:
        gaps = (await session.execute(select(CandleGapRow))).scalars().all()
    await database.close()
    assert sorted((row.symbol, row.candles_missing, row.confirmed) for row in gaps) == [
        (symbol, missing, True) for symbol in ("BTC/USDT", "ETH/USDT") for missing in (1, 2)
    ]
    assert not [name for name, count in fired.items() if not count], fired

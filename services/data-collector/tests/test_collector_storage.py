"""One candle or many: stored once, announced once."""

from __future__ import annotations

from decimal import Decimal

import pytest
from sqlalchemy import select

from data_collector.feeds.port import CandleGap, MalformedCandle, StreamKey
from data_collector.storage import CandleStorage, StoreBatch
from data_collector.testing import build_candle
from shared.broker_memory import MemoryBroker
from shared.db import Database
from shared.errors import DatabaseError
from shared.events import EventType
from shared.sa_models import CandleGapRow, CandleRevisionRow, CandleRow, QuarantineRow

STREAM = "candles.BTC_USDT.1m"


@pytest.fixture
def storage(database: Database, bus: MemoryBroker) -> CandleStorage:
    return CandleStorage(database, bus)


async def test_a_stored_candle_is_announced_with_its_close_time(
    storage: CandleStorage, database: Database, bus: MemoryBroker
) -> None:
    candle = build_candle(1)
    assert await storage.store(candle) is True
    assert (await database.get_candles("BTC/USDT", "1m"))[0]["close"] == candle.close
    (message,) = await bus.read(STREAM)
    assert message.event is not None
    assert (message.event.type, message.event.data) == (EventType.CANDLE, candle)
    assert message.event.as_of == candle.close_time


async def test_a_duplicate_is_harmless_and_silent(
    storage: CandleStorage, database: Database, bus: MemoryBroker
) -> None:
    assert await storage.store(build_candle(1)) is True
    assert await storage.store(build_candle(1)) is False
    assert await bus.depth(STREAM) == 1
    assert await database.count_rows(CandleRevisionRow) == 0


async def test_a_revised_candle_is_stored_as_a_revision_and_fires_nothing(
    storage: CandleStorage, database: Database, bus: MemoryBroker
) -> None:
    await storage.store(build_candle(1))
    assert await storage.store(build_candle(1, volume=Decimal(99))) is False
    assert (await database.get_candles("BTC/USDT", "1m"))[0]["volume"] == 99
    assert await database.count_rows(CandleRevisionRow) == 1
    assert await bus.depth(STREAM) == 1


async def test_out_of_order_candles_are_all_stored(
    storage: CandleStorage, database: Database, bus: MemoryBroker
) -> None:
    written = await storage.store_many([build_candle(number) for number in (5, 3, 4, 3)])
    assert (written.inserted, written.unchanged) == (3, 1)
    rows = await database.get_candles("BTC/USDT", "1m")
    assert [row["open_time"].minute for row in rows] == [5, 4, 3]
    assert await bus.depth(STREAM) == 3


async def test_a_malformed_candle_goes_to_the_quarantine_with_its_reason(
    storage: CandleStorage, database: Database, bus: MemoryBroker
) -> None:
    assert await storage.store(build_candle(1, close="NaN")) is False
    assert await storage.store(build_candle(1, close="NaN")) is False
    async with database.read() as session:
        (row,) = (await session.execute(select(QuarantineRow))).scalars()
    assert row.stream == "BTC/USDT 1m"
    assert row.reason == "not_a_number: close is NaN"
    assert "close=NaN" in row.payload
    assert await database.count_rows(CandleRow) == 0
    assert await bus.depth(STREAM) == 0


async def test_the_quarantine_keeps_the_newest(database: Database, bus: MemoryBroker) -> None:
    storage = CandleStorage(database, bus, quarantine_rows_max=3)
    for number in range(6):
        await storage.store(build_candle(number, low=-1))
    async with database.read() as session:
        rows = list((await session.execute(select(QuarantineRow))).scalars())
    assert sorted(row.payload[14:16] for row in rows) == ["03", "04", "05"]


async def test_a_batch_is_one_transaction(storage: CandleStorage, database: Database) -> None:
    nameless = MalformedCandle("BTC/USDT 1m", "{", None)  # type: ignore[arg-type]
    bad = StoreBatch(candles=[build_candle(1)], malformed=[nameless])
    with pytest.raises(DatabaseError):
        await storage.write(bad)
    assert await database.count_rows(CandleRow) == 0


async def test_a_batch_written_twice_leaves_what_one_leaves(storage: CandleStorage, database: Database) -> None:
    first, last = build_candle(1), build_candle(4)
    stream = StreamKey("BTC/USDT", "1m")
    batch = StoreBatch(
        candles=[first, last],
        malformed=[MalformedCandle("BTC/USDT 1m", "{", "unreadable: cut off")],
        gaps=[CandleGap(stream, first.close_time, last.open_time, 2)],
        cursors={"collector/watermark": 42},
    )
    assert (await storage.write(batch)).inserted == 2
    assert (await storage.write(batch)).unchanged == 2
    counts = [await database.count_rows(table) for table in (CandleRow, CandleGapRow, QuarantineRow)]
    assert counts == [2, 1, 1]
    assert await database.read_cursors() == {"collector/watermark": "42"}


async def test_an_event_id_names_stream_and_open_time_so_a_repetition_is_seen(
    storage: CandleStorage, bus: MemoryBroker
) -> None:
    await storage.announce([build_candle(1), build_candle(1)])
    first, second = await bus.read(STREAM)
    assert first.event is not None
    assert second.event is not None
    assert first.event.id == second.event.id == "candles.BTC_USDT.1m:1704067260000"

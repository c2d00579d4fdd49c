"""Candles in the database, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from shared.db import CandleWrite, Database
from shared.models import Candle
from shared.sa_models import CandleRevisionRow, CandleRow
from shared.testing.builders import START, candle

MINUTE = timedelta(minutes=1)


def minutes(candles: Sequence[Candle]) -> list[int]:
    return [(each.open_time - START) // MINUTE for each in candles]


async def test_candles_come_back_as_dicts_of_the_eight_columns_newest_first(database: Database) -> None:
    for minute in (1, 0, 2):
        await database.insert_candle(candle(minute, close=f"6500{minute}.10"))
    found = await database.get_candles("BTC/USDT", "1m", limit=2)
    assert [row["open_time"] for row in found] == [START + 2 * MINUTE, START + MINUTE]
    assert list(found[0]) == ["symbol", "timeframe", "open_time", "open", "high", "low", "close", "volume"]
    assert found[0]["close"] == Decimal("65002.1")
    assert isinstance(found[0]["volume"], Decimal)
    assert found[0]["open_time"].utcoffset() == timedelta(0)


async def test_streams_do_not_mix(database: Database) -> None:
    await database.upsert_candles([candle(0), candle(0, symbol="ETH/USDT"), candle(0, timeframe="5m")])
    assert len(await database.get_candles("BTC/USDT", "1m")) == 1
    assert await database.get_candles("BTC/USDT", "1h") == []
    assert await database.count_rows(CandleRow) == 3


async def test_a_candle_stored_twice_is_harmless(database: Database) -> None:
    batch = [candle(minute) for minute in range(10)]
    assert await database.upsert_candles(batch) == CandleWrite(10, 0, 0, tuple(batch))
    assert await database.upsert_candles(batch) == CandleWrite(0, 0, 10)
    assert await database.upsert_candles([*batch, candle(10)]) == CandleWrite(1, 0, 10, (candle(10),))
    assert await database.count_rows(CandleRevisionRow) == 0


async def test_a_revised_candle_replaces_the_latest_and_keeps_what_it_was(database: Database) -> None:
    await database.upsert_candles([candle(0, "1"), candle(1, "1")])
    assert (await database.upsert_candles([candle(0, "2")]))[:3] == (0, 1, 0)
    assert (await database.upsert_candles([candle(0, "3"), candle(2, "1")]))[:3] == (1, 1, 0)
    assert [each.close for each in await database.last_candles("BTC/USDT", "1m", 5)] == [3, 1, 1]
    row = CandleRevisionRow
    async with database.read() as session:
        kept = (await session.execute(select(row.revision, row.close).order_by(row.revision))).all()
    assert [tuple(each) for each in kept] == [(1, Decimal(1)), (2, Decimal(2))]


async def test_one_batch_may_hold_a_candle_and_its_revisions(database: Database) -> None:
    written = await database.upsert_candles([candle(0, "1"), candle(0, "1"), candle(0, "2"), candle(0, "1")])
    assert written[:3] == (1, 2, 1)
    assert [each.close for each in await database.last_candles("BTC/USDT", "1m", 5)] == [1]
    assert await database.count_rows(CandleRevisionRow) == 2


async def test_late_candles_fill_a_hole(database: Database) -> None:
    await database.upsert_candles([candle(0), candle(5)])
    assert (await database.upsert_candles([candle(3), candle(2), candle(5)]))[:3] == (2, 0, 1)
    assert minutes(await database.read_candles("BTC/USDT", "1m")) == [0, 2, 3, 5]


async def test_an_empty_batch_is_nothing(database: Database) -> None:
    assert await database.upsert_candles([]) == CandleWrite(0, 0, 0)


async def test_candles_are_read_after_a_cursor_and_until_a_time(database: Database) -> None:
    await database.upsert_candles([candle(minute) for minute in range(10)])
    read = database.read_candles
    after, until = START + 2 * MINUTE, START + 6 * MINUTE
    assert minutes(await read("BTC/USDT", "1m", after, until)) == [3, 4, 5, 6]
    assert minutes(await read("BTC/USDT", "1m", after, None, 3)) == [3, 4, 5]
    assert minutes(await read("BTC/USDT", "1m", None, until)) == [0, 1, 2, 3, 4, 5, 6]
    assert minutes(await database.last_candles("BTC/USDT", "1m", 3)) == [7, 8, 9]
    assert (await read("BTC/USDT", "1m", after, None, 1)) == [candle(3)]


async def test_many_streams_are_read_at_once_up_to_one_close_time(database: Database) -> None:
    await database.upsert_candles([candle(minute) for minute in range(10)])
    await database.upsert_candles([candle(number, timeframe="5m") for number in (0, 1)])
    streams = [("BTC/USDT", "1m", START + 2 * MINUTE), ("BTC/USDT", "5m", None), ("ETH/USDT", "1m", None)]
    found = await database.read_candles_of(streams, START + 6 * MINUTE, 2)
    assert minutes(found["BTC/USDT", "1m"]) == [3, 4]
    assert minutes(found["BTC/USDT", "5m"]) == [0]
    assert found["ETH/USDT", "1m"] == []
    assert minutes((await database.read_candles_of(streams, None, 100))["BTC/USDT", "5m"]) == [0, 5]


async def test_more_streams_than_one_statement_holds(database: Database) -> None:
    symbols = [f"C{number}/USDT" for number in range(450)]
    written = await database.upsert_candles([candle(0, symbol=symbol) for symbol in symbols])
    assert written.inserted == 450
    found = await database.read_candles_of([(symbol, "1m", None) for symbol in symbols], None, 5)
    assert all(len(found[symbol, "1m"]) == 1 for symbol in symbols)


async def test_a_batch_is_not_bound_by_the_number_of_parameters(database: Database) -> None:
    batch = [candle(minute) for minute in range(9_000)]
    assert (await database.upsert_candles(batch)).inserted == 9_000
    assert (await database.upsert_candles(batch)).unchanged == 9_000


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.tuples(st.integers(0, 6), st.sampled_from("123")), max_size=8), max_size=4))
async def test_the_last_value_wins_and_every_other_is_a_revision(
    database: Database, batches: list[list[tuple[int, str]]]
) -> None:
    async with database.get_session() as session:
        await session.execute(text("DELETE FROM candles"))
        await session.execute(text("DELETE FROM candle_revisions"))
    latest: dict[int, str] = {}
    revisions = 0
    for batch in batches:
        for minute, close in batch:
            revisions += latest.get(minute, close) != close
            latest[minute] = close
        await database.upsert_candles([candle(minute, close) for minute, close in batch])
    stored = await database.read_candles("BTC/USDT", "1m")
    assert {(each.open_time - START) // MINUTE: each.close for each in stored} == {
        minute: Decimal(close) for minute, close in latest.items()
    }
    assert await database.count_rows(CandleRevisionRow) == revisions

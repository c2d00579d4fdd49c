from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.candle_reader import CandleReader, last_open_times, stream_of, whole_close_times
from shared.db import Database
from shared.models import TIMEFRAME_DELTA, Candle, to_milliseconds
from shared.testing.builders import BTC, ETH, START, candle

STREAMS = [(ETH, "1m"), (BTC, "5m"), (BTC, "1m")]


def names(candles: Iterable[Candle]) -> list[tuple[str, str, datetime]]:
    return [(each.symbol, each.timeframe, each.open_time) for each in candles]


def market(minutes: int) -> list[Candle]:
    """Return the candles of all streams that have closed after some minutes."""
    return [
        candle(number, symbol=symbol, timeframe=timeframe)
        for symbol, timeframe in STREAMS
        for number in range(minutes * 60 // int(TIMEFRAME_DELTA[timeframe].total_seconds()))
    ]


async def read_all(reader: CandleReader, database: Database, until: datetime | None) -> list[list[Candle]]:
    pages = []
    while True:
        async with database.read() as session:
            candles, horizon = await reader.page(session, until)
        if not candles or horizon is None:
            return pages
        async with database.get_session() as session:
            await database.write_cursors(session, reader.cursors(candles, horizon))
        reader.advance(candles, horizon)
        pages.append(candles)


@pytest.mark.parametrize("rows_max", [1, 3, 500])
async def test_every_candle_is_read_once_in_order_of_close_time_symbol_and_timeframe(
    database: Database, rows_max: int
) -> None:
    await database.upsert_candles(market(20))
    reader = CandleReader(database, "engine", STREAMS, rows_max)
    await reader.load()

    pages = await read_all(reader, database, START + 20 * TIMEFRAME_DELTA["1m"])

    found = [each for page in pages for each in page]
    assert found == sorted(market(20), key=lambda each: (each.close_time, each.symbol, each.timeframe))


async def test_a_page_ends_with_a_whole_close_time(database: Database) -> None:
    await database.upsert_candles(market(20))
    reader = CandleReader(database, "engine", STREAMS, 3)

    pages = await read_all(reader, database, START + 20 * TIMEFRAME_DELTA["1m"])

    for page, following in pairwise(pages):
        assert page[-1].close_time < following[0].close_time


async def test_nothing_after_the_bound_is_read(database: Database) -> None:
    await database.upsert_candles(market(20))
    reader = CandleReader(database, "engine", STREAMS, 500)
    bound = START + 7 * TIMEFRAME_DELTA["1m"]

    async with database.read() as session:
        candles, horizon = await reader.page(session, bound)

    assert horizon == bound
    assert max(each.close_time for each in candles) == bound
    assert len(candles) == 15


async def test_a_restart_goes_on_after_what_was_committed(database: Database) -> None:
    await database.upsert_candles(market(10))
    first = CandleReader(database, "engine", STREAMS, 500)
    await read_all(first, database, START + 6 * TIMEFRAME_DELTA["1m"])

    second = CandleReader(database, "engine", STREAMS, 500)
    await second.load()
    pages = await read_all(second, database, START + 10 * TIMEFRAME_DELTA["1m"])

    assert second.watermark == START + 10 * TIMEFRAME_DELTA["1m"]
    assert second.open_time((BTC, "5m")) == candle(1, timeframe="5m").open_time
    assert len(pages[0]) == 4 + 4 + 1


async def test_consumers_have_places_of_their_own(database: Database) -> None:
    await database.upsert_candles(market(5))
    engine = CandleReader(database, "engine", STREAMS, 500)
    await read_all(engine, database, START + 5 * TIMEFRAME_DELTA["1m"])

    executor = CandleReader(database, "executor", STREAMS, 500)
    await executor.load()

    assert executor.watermark is None
    assert len((await read_all(executor, database, START + 5 * TIMEFRAME_DELTA["1m"]))[0]) == 11


async def test_without_a_bound_everything_stored_is_read(database: Database) -> None:
    reader = CandleReader(database, "engine", STREAMS, 500)
    async with database.read() as session:
        assert await reader.page(session, None) == ([], None)
    await database.upsert_candles([candle(0), candle(9)])

    async with database.read() as session:
        candles, horizon = await reader.page(session, None)

    assert (names(candles), horizon) == (names([candle(0), candle(9)]), candle(9).close_time)


def test_cursors_name_consumer_and_stream() -> None:
    reader = CandleReader(Database("sqlite:///unused.db"), "engine", STREAMS, 500)

    cursors = reader.cursors([candle(0), candle(1), candle(0, timeframe="5m")], candle(1).close_time)

    assert cursors == {
        "engine/candles/BTC/USDT/1m": to_milliseconds(candle(1).open_time),
        "engine/candles/BTC/USDT/5m": to_milliseconds(START),
        "engine/watermark": to_milliseconds(candle(1).close_time),
    }
    assert stream_of("BTC/USDT/5m") == (BTC, "5m")


@given(
    lengths=st.lists(st.integers(0, 12), min_size=3, max_size=3),
    rows_max=st.integers(1, 12),
)
def test_what_a_page_calls_whole_misses_no_candle(lengths: Sequence[int], rows_max: int) -> None:
    stored = {
        stream: [candle(number, symbol=stream[0], timeframe=stream[1]) for number in range(length)]
        for stream, length in zip(STREAMS, lengths, strict=True)
    }
    until = START + 60 * TIMEFRAME_DELTA["1m"]

    merged, horizon = whole_close_times({key: rows[:rows_max] for key, rows in stored.items()}, until, rows_max)

    due = [each for rows in stored.values() for each in rows if each.close_time <= horizon]
    assert sorted(names(merged)) == sorted(names(due))
    assert merged == sorted(merged, key=lambda each: (each.close_time, each.symbol, each.timeframe))
    assert horizon == until or merged
    assert set(last_open_times(merged)) == {(each.symbol, each.timeframe) for each in merged}

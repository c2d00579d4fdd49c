from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.candle_shelf import CandleRun, CandleShelf
from shared.db import Database
from shared.models import Candle
from shared.testing.builders import BTC, ETH, START, candle
from shared.testing.examples import examples

MINUTE = timedelta(minutes=1)
STREAM = (BTC, "1m")


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{path}")
    try:
        await database.init_tables()
        yield database
    finally:
        await database.close()


async def closed_by(database: Database, after: int | None, minutes: int, limit: int = 500) -> list[Candle]:
    start = None if after is None else START + after * MINUTE
    found = await database.read_candles_of([(*STREAM, start)], START + minutes * MINUTE, limit)
    return found[STREAM]


class Undone(Exception):
    """Ends a transaction."""


WRITES = st.lists(
    st.tuples(
        st.lists(st.integers(0, 12), min_size=1, max_size=5),  # minutes, in any order and with repetitions
        st.sampled_from(["1", "2", "3"]),
        st.sampled_from(["stored", "stored", "stored", "undone", "by another"]),
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Database, Database, Iterator[int]]]:
    path = tmp_path / "state.sqlite3"
    async with opened(path) as writer, opened(path) as another:
        yield writer, another, count()


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(  # another puts a candle between two that are on the shelf
    writes=[([0, 5], "1", "stored"), ([3], "1", "by another"), ([7], "1", "stored")], after=None, until=8, limit=20
)
@example(writes=[([0], "1", "stored"), ([1], "1", "undone")], after=None, until=2, limit=20)
@example(writes=[([0, 1], "1", "stored"), ([1, 2], "2", "stored"), ([3], "2", "stored")], after=None, until=4, limit=20)
@given(writes=WRITES, after=st.none() | st.integers(0, 12), until=st.integers(1, 14), limit=st.integers(1, 20))
async def test_whatever_was_written_undone_or_written_by_another_a_process_reads_what_the_table_holds(
    two: tuple[Database, Database, Iterator[int]],
    writes: list[tuple[list[int], str, str]],
    after: int | None,
    until: int,
    limit: int,
) -> None:
    writer, another, numbers = two
    symbol = f"C{next(numbers)}/USDT"
    start, end = None if after is None else START + after * MINUTE, START + until * MINUTE
    for minutes, close, fate in writes:
        batch = [candle(minute, close, symbol=symbol) for minute in minutes]
        if fate == "by another":
            await another.upsert_candles(batch)
            continue
        with suppress(Undone):
            async with writer.get_session() as session:
                await writer.upsert_candles(batch, session)
                if fate == "undone":
                    raise Undone
        found = await writer.read_candles_of([(symbol, "1m", start)], end, limit)
        assert found[symbol, "1m"] == await another.read_candles(symbol, "1m", start, end - MINUTE, limit)


async def test_what_was_stored_a_moment_ago_is_not_made_from_text_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "state.sqlite3") as database:
        written = (await database.upsert_candles([candle(minute) for minute in range(5)])).new
        found = await closed_by(database, None, 5)
    assert [each is kept for each, kept in zip(found, written, strict=True)] == [True] * 5


async def test_a_number_with_an_exponent_is_kept_as_the_table_gives_it_back(tmp_path: Path) -> None:
    odd = candle(0, Decimal("1E+3"))
    async with opened(tmp_path / "state.sqlite3") as writer, opened(tmp_path / "state.sqlite3") as reader:
        await writer.upsert_candles([odd])
        kept, stored = await closed_by(writer, None, 1), await closed_by(reader, None, 1)
    assert [str(each.close) for each in kept] == [str(each.close) for each in stored] == ["1000"]


@pytest.mark.parametrize("streams", [1, 2])
def test_the_shelf_never_holds_more_than_its_bound_and_lets_go_of_the_oldest(streams: int) -> None:
    shelf = CandleShelf(candles_max=100)
    for minute in range(0, 500, 10):
        for symbol in (BTC, ETH)[:streams]:
            run = shelf.withdraw((symbol, "1m")) or CandleRun(START + (minute - 1) * MINUTE)
            run.candles.extend(candle(minute + place, symbol=symbol) for place in range(10))
            shelf.put((symbol, "1m"), run)
    newest = shelf.read(STREAM, START + 489 * MINUTE, START + 499 * MINUTE, 500)
    assert newest == [candle(minute) for minute in range(490, 500)]
    assert shelf.read(STREAM, START + 100 * MINUTE, START + 499 * MINUTE, 500) is None
    left = [shelf.withdraw((symbol, "1m")) for symbol in (BTC, ETH)]
    assert sum(len(run.candles) for run in left if run is not None) <= 100

"""Addresses and accidents: what a person reads when the database cannot be used."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from shared.clock import ManualClock
from shared.db import Database, EngineOptions
from shared.errors import ConfigError, DatabaseError, DatabaseUnavailable
from shared.resilience import CircuitState
from shared.testing.builders import candle

# --- addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "URL"),
        ("trading.db", "URL"),
        ("mysql://root:hunter2@host/db", "'mysql'"),
        ("sqlite://var/trading.db", "three slashes"),
        ("postgresql://user:hunter2@host", "name of the database"),
        ("postgresql://user:hunter2@host:port/db", "URL"),
    ],
)
def test_a_bad_address_is_a_mistake_of_a_person(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        Database(url)
    assert "hunter2" not in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_all_names_of_postgresql_are_known_and_the_password_stays_inside(scheme: str) -> None:
    database = Database(f"{scheme}://user:50%off@db.example:5432/trading?sslmode=require")
    assert database.dialect == "postgresql"
    assert "off" not in repr(database)
    assert "db.example" in repr(database)


async def test_a_server_that_is_away_is_said_to_be_away(tmp_path: Path) -> None:
    database = Database(f"postgresql://user:hunter2@/trading?host={tmp_path}")
    with pytest.raises(DatabaseUnavailable, match="cannot be reached") as away:
        await database.connect()
    assert away.value.retryable
    assert "hunter2" not in str(away.value)
    await database.close()


@pytest.mark.integration
async def test_a_wrong_password_and_a_missing_database_are_said(postgres_server: str) -> None:
    for url, says in (
        (postgres_server.replace("50%25off", "wrong"), "refused user or password"),
        (postgres_server.replace("/postgres?", "/nowhere?"), "does not exist"),
    ):
        database = Database(url)
        with pytest.raises(DatabaseError, match=says) as refused:
            await database.connect()
        assert not refused.value.retryable
        assert "wrong" not in str(refused.value)
        await database.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
async def test_a_database_in_memory_works_too(url: str) -> None:
    database = Database(url, clock=ManualClock())
    await database.init_tables()
    await database.connect()
    async with database.get_session() as session:
        await database.upsert_candles([candle(0)], session)
        assert len(await database.get_candles("BTC/USDT", "1m")) == 1
    results = await asyncio.gather(*(database.upsert_candles([candle(n)]) for n in range(1, 20)))
    assert sum(result.inserted for result in results) == 19
    assert len(await database.get_candles("BTC/USDT", "1m")) == 20
    await database.close()


async def test_a_relative_path_is_meant_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    database = Database("sqlite:///trading.db")
    await database.init_tables()
    await database.close()
    assert (tmp_path / "trading.db").is_file()


# --- SQLite's own troubles ---------------------------------------------------------------------------------------


async def test_a_full_disk_is_said_and_nothing_is_lost(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    await database.upsert_candles([candle(0)])
    async with database.get_session() as session:
        pages = (await session.execute(text("PRAGMA page_count"))).scalar_one()
        await session.execute(text(f"PRAGMA max_page_count = {pages}"))

    async def write_too_much() -> None:
        async with database.get_session() as session:
            await database.write_cursors(session, {"collector/watermark": 1})
            await database.upsert_candles([candle(minute) for minute in range(1, 5000)], session)

    with pytest.raises(DatabaseError, match=r"database is full: .*rolled back"):
        await write_too_much()
    assert await database.read_cursors() == {}
    assert await database.read_candles("BTC/USDT", "1m") == [candle(0)]
    async with database.get_session() as session:
        await session.execute(text("PRAGMA max_page_count = 1000000"))
    assert (await database.upsert_candles([candle(minute) for minute in range(1, 5000)])).inserted == 4999
    await database.close()


async def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "letter.db"
    path.write_text("Dear reader, this is no database. " * 100)
    database = Database(f"sqlite:///{path}")
    with pytest.raises(DatabaseError, match="not a database"):
        await database.connect()
    await database.close()


async def test_a_folder_that_does_not_exist_is_said(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/nowhere/trading.db")
    with pytest.raises(DatabaseError, match="does its folder exist"):
        await database.connect()
    await database.close()


async def test_a_database_locked_by_a_stranger_may_be_tried_again(sqlite_url: str) -> None:
    path = sqlite_url.removeprefix("sqlite:///")
    database = Database(sqlite_url)
    await database.connect()
    async with database.get_session() as session:
        await session.execute(text("PRAGMA busy_timeout = 1"))
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable, match="locked by another process"):
        await database.upsert_candles([candle(0)])
    stranger.execute("ROLLBACK")
    stranger.close()
    assert (await database.upsert_candles([candle(0)])).inserted == 1
    await database.close()


@pytest.mark.parametrize(("durable", "synchronous"), [(False, 1), (True, 2)])
async def test_the_writer_is_set_up_for_safety(sqlite_url: str, durable: bool, synchronous: int) -> None:
    database = Database(sqlite_url, durable=durable)
    async with database.get_session() as session:
        found = {
            name: (await session.execute(text(f"PRAGMA {name}"))).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert found == {"journal_mode": "wal", "synchronous": synchronous, "foreign_keys": 1}
    await database.close()


async def test_a_transaction_inside_a_transaction_is_a_mistake(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    with pytest.raises(AssertionError, match="pass the session on"):
        async with database.get_session():
            await database.insert_candle(candle(0))
    await database.close()


async def test_a_writer_waits_a_bounded_time_for_its_turn(sqlite_url: str) -> None:
    database = Database(sqlite_url, options=EngineOptions(wait_seconds_max=0.01))
    async with database.get_session():
        waiting = asyncio.create_task(database.insert_candle(candle(0)))
        with pytest.raises(DatabaseUnavailable, match="has not ended"):
            await waiting
    await database.insert_candle(candle(0))
    await database.close()


async def test_two_processes_on_one_file_take_turns(sqlite_url: str) -> None:
    async def count_up(owner: Database) -> None:
        for _ in range(10):
            async with owner.get_session() as session:
                found = await owner.read_cursors("counter", session)
                await owner.write_cursors(session, {"counter": int(found.get("counter", 0)) + 1})

    first, second = Database(sqlite_url), Database(sqlite_url)
    await asyncio.gather(count_up(first), count_up(second))
    assert await first.read_cursors() == {"counter": "20"}
    await first.close()
    await second.close()


async def test_a_server_that_stays_away_is_not_asked_at_every_call() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/nowhere", clock=ManualClock())
    for _ in range(5):
        with pytest.raises(DatabaseUnavailable, match="cannot be reached"):
            await database.ping()
    with pytest.raises(DatabaseUnavailable, match="not asked, as it kept failing"):
        await database.ping()
    assert database.outside.breaker.state is CircuitState.OPEN
    await database.close()

"""What the settings bound is bounded by the server itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from shared.clock import SystemClock
from shared.config import load_settings
from shared.errors import DatabaseUnavailable
from shared.lease import FencedDatabase
from shared.sa_models import CursorRow
from shared.standalone import open_database

pytestmark = pytest.mark.integration

BOUNDS = {"statement_seconds_max": 7, "lock_seconds_max": 0.2, "lease_seconds": 3, "database_connections_max": 2}


@pytest.fixture
async def bounded(postgres_url: str) -> AsyncIterator[FencedDatabase]:
    database = open_database(load_settings(BOUNDS, env={}), postgres_url, SystemClock())
    yield database
    await database.close()


async def test_the_server_is_told_every_bound(bounded: FencedDatabase) -> None:
    async with bounded.read() as session:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        found = [await session.scalar(text(f"SHOW {name}")) for name in names]
    assert found == ["7s", "200ms", "3s"]


async def test_a_lock_that_is_not_had_in_time_is_told_and_may_be_tried_again(bounded: FencedDatabase) -> None:
    async with bounded.get_session() as session:
        await bounded.upsert_rows(session, CursorRow, [{"name": "mine", "value": "1"}])
    async with bounded.get_session() as first:
        await bounded.upsert_rows(first, CursorRow, [{"name": "mine", "value": "2"}])
        with pytest.raises(DatabaseUnavailable, match="a lock was not had in time"):
            async with bounded.get_session() as second:
                await bounded.upsert_rows(second, CursorRow, [{"name": "mine", "value": "3"}])
    assert (await bounded.read_cursors("mine"))["mine"] == "2"


async def test_no_process_opens_more_connections_than_it_may(bounded: FencedDatabase) -> None:
    count = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'trading' AND pid <> 0")

    async def ask() -> int:
        async with bounded.get_session() as session:
            await session.execute(text("SELECT pg_sleep(0.02)"))
            return int(await session.scalar(count) or 0)

    assert max(await asyncio.gather(*(ask() for _ in range(8)))) <= BOUNDS["database_connections_max"]

"""Two copies of a service: one works, the other waits; whoever wakes too late writes nothing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog

from shared.clock import SystemClock
from shared.lease import FencedDatabase, Lease
from shared.testing.process_runs import ProcessRun, wait_while

pytestmark = [pytest.mark.e2e, pytest.mark.integration]

LEASE_SECONDS = 3.0
TAKEN = '"event":"lease.taken"'


@pytest.fixture
def run(make_postgres_url: Callable[[], str], redis_url: str, tmp_path: Path) -> Iterator[ProcessRun]:
    settings = {"feed": "simulated", "speed": "600", "seed": "7", "feed_ahead_max": "100000"}
    settings |= {"lease_seconds": str(LEASE_SECONDS), "symbols": "BTC/USDT"}
    with ProcessRun(tmp_path / "run", make_postgres_url(), redis_url, settings) as started:
        yield started


def query(run: ProcessRun, statement: str) -> list[Any]:
    async def ask() -> list[Any]:
        connection = await asyncpg.connect(run.database_url)
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(ask())


def epoch(run: ProcessRun) -> int:
    return int(query(run, "SELECT epoch FROM lease WHERE name = 'data-collector'")[0][0])


def stored_until(run: ProcessRun) -> int:
    return int(query(run, "SELECT value FROM cursors WHERE name = 'collector/watermark'")[0][0])


def missing(run: ProcessRun) -> int:
    return int(query(run, "SELECT coalesce(sum(candles_missing), 0) FROM candle_gaps")[0][0])


def wait_for(run: ProcessRun, name: str, words: str, times: int = 1) -> None:
    wait_while(run.running[name], lambda: run.said(name).count(words) < times)


def moves_on(run: ProcessRun) -> None:
    """Wait until the collector's watermark has grown."""
    before = stored_until(run)
    run.until(lambda cursors: int(cursors.get("collector/watermark", -1)) > before)


def test_a_standby_takes_over_from_a_dead_and_from_a_paused_holder_which_then_writes_nothing(run: ProcessRun) -> None:
    run.start("data-collector")
    run.until(lambda cursors: "collector/watermark" in cursors)
    run.start("data-collector", name="second")
    wait_for(run, "second", '"event":"lease.standby"')

    began = SystemClock().monotonic()
    run.kill("data-collector")
    wait_for(run, "second", TAKEN)
    assert SystemClock().monotonic() - began < LEASE_SECONDS
    moves_on(run)
    taken = epoch(run)

    run.start("data-collector", name="third")
    wait_for(run, "third", '"event":"lease.standby"')
    run.running["second"].send_signal(signal.SIGSTOP)  # its process is there: only the clock can tell
    wait_for(run, "third", TAKEN)
    assert epoch(run) == taken + 1
    moves_on(run)
    run.running["second"].send_signal(signal.SIGCONT)
    wait_for(run, "second", '"event":"lease.lost"')
    wait_for(run, "second", '"event":"lease.standby"')
    assert epoch(run) == taken + 1
    moves_on(run)

    assert run.stop("third") == {"third": 0}  # an orderly end lets go at once
    wait_for(run, "second", TAKEN)
    moves_on(run)
    assert run.stop("second") == {"second": 0}
    stored, first, last = query(run, "SELECT count(*), min(open_time), max(open_time) FROM candles")[0]
    assert stored == (last - first).total_seconds() // 60 + 1 - missing(run), "no candle is lost between holders"


def test_up_on_a_database_that_a_service_uses_says_who_and_ends_with_3(
    make_postgres_url: Callable[[], str], redis_url: str, tmp_path: Path
) -> None:
    url = make_postgres_url()

    async def begin() -> None:
        database = FencedDatabase(url)
        log = structlog.stdlib.get_logger("lease")
        assert await Lease(database, ["order-executor"], seconds=600, clock=SystemClock(), log=log).take()
        await database.close()

    asyncio.run(begin())
    with ProcessRun(tmp_path / "run", url, redis_url, {}) as run:
        ended = run.trading("up", "--database-url", url, "--redis-url", redis_url, "--feed", "simulated")
    said = (ended.stdout + ended.stderr).decode()
    assert ended.returncode == 3, said
    assert "order-executor is held by process" in said

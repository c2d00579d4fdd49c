"""Four processes on PostgreSQL and Redis, whoever of them and of the servers is killed, end where one process ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from click.testing import CliRunner

from shared.clock import SystemClock, seeded_random
from shared.db import Database
from shared.testing.crash_market import GRID, CrashMarket, Undisturbed
from shared.testing.process_runs import (
    PROCESSES,
    ProcessRun,
    all_handled,
    handled_by,
    truncate_append_only_file,
)
from shared.testing.servers import ServerMissing, ServerRun, postgres_run, redis_program, redis_run
from shared.testing.state_tables import Tables, read_state, state_differences
from trading_cli.verify import verify

pytestmark = [pytest.mark.e2e, pytest.mark.integration, pytest.mark.timeout(1800)]

SEED = 20240805
KILLS, KILLS_PROOF = 4, 20


class Servers(NamedTuple):
    """Both servers, durable, to be killed at will."""

    postgres: ServerRun
    redis: ServerRun


class Kill(NamedTuple):
    """A service to kill when it has handled so many candles, and what happens to the servers meanwhile."""

    service: str
    candles: int
    accident: str


def plan(kills: int, candles: int) -> list[Kill]:
    """Return kills in the order of candles: each service in turn, each accident to a server once."""
    rng = seeded_random(SEED)
    places = sorted(rng.sample(range(candles // 20, candles * 9 // 10), kills))
    accidents = ["bus_wiped", "bus_cut", "database_killed"] + [""] * (kills - 3)
    rng.shuffle(accidents)
    return [
        Kill(PROCESSES[number % len(PROCESSES)], place, accident)
        for number, (place, accident) in enumerate(zip(places, accidents, strict=True))
    ]


@pytest.fixture
def servers() -> Iterator[Servers]:
    try:
        with postgres_run(durable=True) as postgres, redis_run(redis_program(), durable=True) as bus:
            asyncio.run(_make_tables(postgres.url))
            yield Servers(postgres, bus)
    except ServerMissing as missing:
        pytest.skip(f"not installed: {missing}")


async def _make_tables(url: str) -> None:
    database = Database(url)
    await database.init_tables()
    await database.close()


def settings_of(market: CrashMarket) -> dict[str, str]:
    return {
        "feed": "replay",
        "data": market.data,
        "speed": "max",
        "paper_balance": "100000",
        "strategy_params": GRID,
    }


def accidents(servers: Servers) -> dict[str, Callable[[], object]]:
    def wipe() -> None:
        with redis.Redis.from_url(servers.redis.url) as client:
            client.flushall()

    def cut() -> None:
        servers.redis.kill()
        assert truncate_append_only_file(servers.redis) > 0
        servers.redis.start()

    def kill_database() -> None:
        servers.postgres.kill()
        servers.postgres.start()

    return {"": lambda: None, "bus_wiped": wipe, "bus_cut": cut, "database_killed": kill_database}


def assert_verified(url: str, when: object) -> None:
    found = CliRunner().invoke(verify, ["--database-url", url])
    assert found.exit_code == 0, f"{when}: {found.output}"


def summary(kills: list[Kill], tables: Tables, seconds: float) -> str:
    """Return what the four processes went through, in one line."""
    killed = ", ".join(f"{name} {count}" for name, count in sorted(Counter(kill.service for kill in kills).items()))
    befell = ", ".join(kill.accident for kill in kills if kill.accident)
    counts = f"{len(tables['candles'])} candles, {len(tables['trades'])} fills"
    rows = sum(len(rows) for rows in tables.values())
    return (
        f"four processes: {len(kills)} kills ({killed}), {befell}; {counts}, "
        f"{len(tables)} tables of {rows} rows equal, verified {len(kills) + 1} times, {seconds:.0f} s"
    )


def test_processes_and_servers_killed_in_turn_end_with_the_state_of_an_undisturbed_process(
    undisturbed: Undisturbed, servers: Servers, tmp_path: Path, is_proof: bool, record_property: Callable[..., None]
) -> None:
    market, accident_of, clock = undisturbed.market, accidents(servers), SystemClock()
    kills, began = plan(KILLS_PROOF if is_proof else KILLS, market.candles), clock.monotonic()
    with ProcessRun(tmp_path / "run", servers.postgres.url, servers.redis.url, settings_of(market)) as run:
        run.start(*reversed(PROCESSES))  # any order will do
        for kill in kills:
            run.until(handled_by(kill.service, market.close_ms(kill.candles)))
            run.kill(kill.service)
            accident_of[kill.accident]()
            assert_verified(servers.postgres.url, kill)
            run.start(kill.service)
        run.until(all_handled)
        assert run.wait("data-collector") == 0  # a replay ends by itself
        assert run.stop("strategy-engine", "order-executor", "portfolio-manager") == dict.fromkeys(PROCESSES[1:], 0)
    assert_verified(servers.postgres.url, "the end")
    expected = asyncio.run(read_state(f"sqlite:///{undisturbed.database}"))
    assert state_differences(expected, asyncio.run(read_state(servers.postgres.url))) == []
    record_property("proved", summary(kills, expected, clock.monotonic() - began))

"""A service that is started before its servers waits for them, says so, and can be stopped meanwhile."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.db import Database
from shared.testing.process_runs import ProcessRun, wait_while
from shared.testing.servers import ServerMissing, ServerRun, free_port, postgres_run, redis_program, redis_run

pytestmark = [pytest.mark.e2e, pytest.mark.integration]

SERVICE = "portfolio-manager"


@pytest.fixture
def servers() -> Iterator[tuple[ServerRun, ServerRun]]:
    try:
        with postgres_run(durable=True) as postgres, redis_run(redis_program()) as bus:
            yield postgres, bus
    except ServerMissing as missing:
        pytest.skip(f"not installed: {missing}")


async def migrated(url: str) -> None:
    database = Database(url)
    await database.init_tables()
    await database.close()


def ready(port: int) -> tuple[int, dict[str, Any]]:
    """Return status and document of /ready; status 0 while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, {}


def test_a_service_waits_for_its_servers_and_says_which_is_away(
    servers: tuple[ServerRun, ServerRun], tmp_path: Path
) -> None:
    postgres, bus = servers
    asyncio.run(migrated(postgres.url))
    postgres.kill()
    bus.kill()
    port = free_port()
    settings = {"start_seconds_max": "120", "health_port": str(port)}
    with ProcessRun(tmp_path / "run", postgres.url, bus.url, settings) as run:
        run.start(SERVICE)
        wait_while(run.running[SERVICE], lambda: ready(port)[0] == 0)
        status, document = ready(port)
        assert status == 503
        assert document["checks"]["database"]["status"] != "ok"
        assert document["checks"]["bus"]["status"] != "ok"
        assert run.stop(SERVICE) == {SERVICE: 0}, "a process that waits can be stopped"

        run.start(SERVICE)
        wait_while(run.running[SERVICE], lambda: run.said(SERVICE).count('"event":"start.waits"') < 2)
        postgres.start()
        bus.start()
        wait_while(run.running[SERVICE], lambda: ready(port)[0] != 200)
        _, document = ready(port)
        assert document["checks"]["lease"]["detail"].startswith("held")
        assert run.stop(SERVICE) == {SERVICE: 0}


def test_a_database_without_tables_is_refused_at_once_with_the_command_that_makes_them(
    servers: tuple[ServerRun, ServerRun], tmp_path: Path
) -> None:
    postgres, bus = servers
    with ProcessRun(tmp_path / "run", postgres.url, bus.url, {}) as run:
        run.start(SERVICE)
        assert run.wait(SERVICE) == 2
        assert "has no tables" in run.said(SERVICE)
        made = run.trading("db", "upgrade", "--database-url", postgres.url)
        assert made.returncode == 0, made.stderr
        run.start(SERVICE)
        wait_while(run.running[SERVICE], lambda: '"event":"lease.taken"' not in run.said(SERVICE))
        assert run.stop(SERVICE) == {SERVICE: 0}

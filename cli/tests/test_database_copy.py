"""A state moves from its file to PostgreSQL and back without losing a digit, or does not move at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog

from shared.clock import SystemClock
from shared.lease import FencedDatabase, Lease
from shared.testing.state_tables import read_state, state_differences
from trading_cli.state_dir import hold_state

pytestmark = pytest.mark.integration

type Trading = Callable[..., Any]


def run_sql(url: str, statement: str) -> list[Any]:
    async def ask() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_a_state_goes_to_postgresql_and_back_and_every_value_is_the_same(
    trading: Trading, state: Path, make_empty_postgres_url: Callable[[], str], tmp_path: Path
) -> None:
    url, back = make_empty_postgres_url(), f"sqlite:///{tmp_path / 'back.db'}"
    there = trading("db", "copy", "--state", str(state), "--to", url, "--json")
    assert there.exit_code == 0, there.output
    again = trading("db", "copy", "--from", url, "--to", back, "--json")
    assert again.exit_code == 0, again.output
    tables = json.loads(there.stdout)["tables"]
    assert json.loads(again.stdout)["tables"] == tables, "the hashes are the same on both databases"
    assert {"candles", "trades", "ledger"} <= {each["table"] for each in tables if each["rows"]}
    expected = asyncio.run(read_state(f"sqlite:///{state / 'trading.db'}"))
    assert state_differences(expected, asyncio.run(read_state(url))) == []
    assert state_differences(expected, asyncio.run(read_state(back))) == []
    assert trading("verify", "--database-url", url).exit_code == 0
    last = run_sql(url, "SELECT max(id) FROM outbox")[0][0] or 0
    new = "INSERT INTO outbox (topic, key, payload, created_at) VALUES ('t', 'k', '', now()) RETURNING id"
    assert run_sql(url, new)[0][0] == last + 1, "new rows are numbered after the copied ones"


def test_a_target_that_holds_rows_is_refused(
    trading: Trading, state: Path, make_postgres_url: Callable[[], str]
) -> None:
    url = make_postgres_url()
    run_sql(url, "INSERT INTO cursors VALUES ('mine', '1')")
    refused = trading("db", "copy", "--state", str(state), "--to", url)
    assert refused.exit_code == 2
    assert "cursors holds 1 rows already" in refused.output


def test_what_cannot_be_read_back_as_it_was_is_not_copied_at_all(
    trading: Trading, state: Path, make_postgres_url: Callable[[], str]
) -> None:
    url = make_postgres_url()
    run_sql(url, "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.fee = 0; RETURN NEW; END'")
    run_sql(url, "CREATE TRIGGER spoil BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION spoil()")
    failed = trading("db", "copy", "--state", str(state), "--to", url)
    assert failed.exit_code == 2
    assert "table trades does not agree" in failed.output
    assert run_sql(url, "SELECT count(*) FROM candles") == [(0,)]


def test_a_database_that_a_process_uses_is_neither_copied_nor_booked_in(
    trading: Trading, state: Path, make_postgres_url: Callable[[], str], make_empty_postgres_url: Callable[[], str]
) -> None:
    with hold_state(state):
        refused = trading("db", "copy", "--state", str(state), "--to", make_empty_postgres_url())
    assert refused.exit_code == 3
    assert "in use by process" in refused.output
    url = make_postgres_url()

    async def hold() -> None:
        database = FencedDatabase(url)
        log = structlog.stdlib.get_logger("copy")
        assert await Lease(database, ["data-collector"], seconds=600, clock=SystemClock(), log=log).take()
        await database.close()

    asyncio.run(hold())
    for words in (
        ("db", "copy", "--from", url, "--to", make_empty_postgres_url()),
        ("allocate", "alpha=0.2", "--database-url", url, "--services-stopped"),
    ):
        refused = trading(*words)
        assert refused.exit_code == 3, refused.output
        assert "data-collector is held by process" in refused.output


def test_a_database_is_not_copied_into_itself(trading: Trading, state: Path) -> None:
    url = f"sqlite:///{(state / 'trading.db').absolute()}"
    refused = trading("db", "copy", "--state", str(state), "--to", url)
    assert refused.exit_code == 2
    assert "the same database" in refused.output

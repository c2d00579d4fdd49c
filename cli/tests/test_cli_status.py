"""The state at a glance, and the check of every projection."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import Result

from portfolio_manager.verification import verify_database
from shared.db import Database
from shared.models import InstanceKey
from trading_cli.overview import OverviewMemory, read_overview
from trading_cli.state_dir import DATABASE_FILE, database_url, hold_state

pytestmark = pytest.mark.thorough

type Trading = Callable[..., Result]

ALPHA = InstanceKey("alpha", "BTC/USDT", "1m")


def change(state: Path, statement: str) -> None:
    with sqlite3.connect(state / DATABASE_FILE) as writer:
        writer.execute(statement)


def test_status_shows_account_strategies_refusals_and_lag(trading: Trading, state: Path) -> None:
    result = trading("status", "--state", state)
    assert result.exit_code == 0
    page = result.stdout
    for words in (
        "no `trading up` runs on it",
        "equity 10,011.39 USDT (+0.11 %)",
        "state ACTIVE",
        "signals 6   fills 3   orders FILLED 3",
        "refused  position_size 1",
        "ignored  already_in 1, nothing_held 1",
        "portfolio 60 s",
    ):
        assert words in page


def test_status_as_json_adds_up(trading: Trading, state: Path) -> None:
    document = json.loads(trading("status", "--json", "--state", state).stdout, parse_float=Decimal)
    assert document["schema"] == "status/1"
    assert document["running"] is False
    account, instances = document["account"], document["instances"]
    assert {each["strategy"]: each["fills"] for each in instances} == {"alpha": 2, "beta": 1, "gamma": 0}
    assert account["initial_balance"] + sum(each["pnl"] for each in instances) == account["equity"]
    assert document["refused"] == {"position_size": 1}


async def test_break_even_is_gross_gain_over_turnover(state: Path) -> None:
    database = Database(database_url(state))
    overview = await read_overview(database)
    await database.close()
    alpha = next(each for each in overview.instances if each.key == ALPHA)
    gross = 2 * (Decimal("103.9792") - Decimal("101.0202"))
    turnover = 2 * (Decimal("103.9792") + Decimal("101.0202"))
    assert alpha.turnover == turnover
    assert alpha.breakeven_bps == pytest.approx(float(gross / turnover * 10_000))
    assert alpha.last_signal is not None
    assert str(alpha.last_signal) == "SELL ignored nothing_held: test"


async def test_both_databases_tell_the_same(
    database: Database, state: Path, trade_on: Callable[[Database], Awaitable[None]]
) -> None:
    await trade_on(database)
    template = Database(database_url(state))
    expected, found = await read_overview(template), await read_overview(database)
    await template.close()
    assert found == expected
    assert (await verify_database(database)).is_clean


async def test_a_reader_with_a_memory_sees_what_one_without_sees(state: Path) -> None:
    database, memory = Database(database_url(state)), OverviewMemory()
    first = await read_overview(database, memory)
    change(
        state,
        "INSERT INTO trades SELECT 'again', order_id, symbol, side, price, quantity, fee, fee_asset, fee_quote, "
        "traded_at, as_of, 4, strategy, timeframe, reason, venue, 'again' FROM trades WHERE sequence = 2",
    )
    change(
        state,
        "INSERT INTO signals (id, strategy, symbol, timeframe, side, price, quantity, reason, created_at, mode) "
        "SELECT 'new', strategy, symbol, timeframe, 'SELL', price, quantity, 'later', '2024-03-04 00:08:00.000000+00:00', "
        "mode FROM signals WHERE strategy = 'beta'",
    )
    again, fresh = await read_overview(database, memory), await read_overview(database)
    await database.close()
    assert again == fresh
    assert again != first
    assert again.undecided == 1


async def test_a_position_without_an_enabled_strategy_is_an_orphan(state: Path) -> None:
    change(state, "UPDATE allocations SET active = 0")
    database = Database(database_url(state))
    overview = await read_overview(database)
    await database.close()
    assert [str(each.key) for each in overview.orphans] == ["beta BTC/USDT 1m"]


def test_a_running_up_is_named_by_its_pid(trading: Trading, state: Path) -> None:
    with hold_state(state):
        assert f"runs (pid {os.getpid()})" in trading("status", "--state", state).stdout
        assert json.loads(trading("status", "--json", "--state", state).stdout)["pid"] == os.getpid()


def test_a_state_named_by_the_environment_is_found(
    trading: Trading, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADING_STATE", str(state))
    assert trading("status").exit_code == 0


def test_the_environments_url_goes_before_its_state_and_a_named_state_before_both(
    trading: Trading, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADING_STATE", str(state))
    monkeypatch.setenv("DATABASE_URL", "sqlite:///of_the_services.db")
    asked = trading("status")
    assert (asked.exit_code, "of_the_services.db: holds no database" in asked.stderr) == (2, True)
    assert trading("status", "--state", state).exit_code == 0


def test_verify_is_clean_and_says_how_far_behind_a_service_is(trading: Trading, state: Path) -> None:
    result = trading("verify", "--state", state)
    assert result.exit_code == 0
    assert "everything agrees (3 fills, 3 orders, 6 signals" in result.stdout
    assert "portfolio: 60 s of market behind" in result.stdout


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        ("UPDATE accounts SET cash = '1'", "accounts paper cash"),
        ("UPDATE accounts SET equity = '1'", "accounts paper equity"),
        ("UPDATE positions SET quantity = '3'", "positions BTC/USDT quantity"),
        ("UPDATE strategy_positions SET realized_pnl = '9' WHERE strategy = 'alpha'", "strategy_positions alpha"),
        ("DELETE FROM ledger WHERE leg = 'quote'", "ledger"),
        ("UPDATE orders SET filled_quantity = '1' WHERE strategy = 'alpha'", "orders"),
        ("DELETE FROM decisions WHERE outcome = 'refused'", "signals"),
    ],
)
def test_verify_prints_each_difference_and_exits_1(trading: Trading, state: Path, statement: str, where: str) -> None:
    change(state, statement)
    result = trading("verify", "--state", state)
    assert result.exit_code == 1
    assert f"DIFFERENCE  {where}" in result.stdout
    document = json.loads(trading("verify", "--json", "--state", state).stdout)
    assert not document["clean"]
    assert document["differences"]

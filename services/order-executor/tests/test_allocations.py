"""Sub-accounts: who gets which part of the cash, and what a changed list moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from decimal import Decimal

import pytest

from order_executor.config import ExecutorConfig
from shared.db import Database
from shared.domain.rounding import ZERO
from shared.models import InstanceKey
from shared.sa_models import AccountRow, AllocationRow, MovementRow, StrategyPositionRow
from shared.testing.builders import ALPHA, BETA, BTC, candle, instance_rules, signal

from .conftest import BuildLoop, Market, config_of, rows_of, run_dry

D = Decimal
GAMMA = InstanceKey("gamma", BTC, "1m")


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    database = Database(sqlite_url)
    yield database
    await database.close()


def of(*keys: InstanceKey, shares: Mapping[InstanceKey, Decimal] | None = None, **changes: object) -> ExecutorConfig:
    given = {"shares": shares} if shares is not None else {}
    return config_of({key: instance_rules(key) for key in keys}, **{"orphans": "keep", **given, **changes})


async def cash_of(database: Database) -> dict[str, Decimal]:
    return {row.strategy: row.cash for row in await rows_of(database, StrategyPositionRow)}


async def reserve_of(database: Database) -> Decimal:
    """Return the account's cash that belongs to nobody, and check that the stored sums agree."""
    account = (await rows_of(database, AccountRow))[0]
    own = sum((await cash_of(database)).values(), ZERO)
    allocated = sum((row.cash for row in await rows_of(database, AllocationRow)), ZERO)
    reserve = account.initial_balance - allocated
    assert own + reserve == account.cash
    assert reserve >= 0
    return reserve


async def test_the_first_start_gives_equal_shares_of_the_balance(database: Database, loop_of: BuildLoop) -> None:
    await loop_of(of(ALPHA, BETA, GAMMA)).load()

    assert await cash_of(database) == dict.fromkeys(("alpha", "beta", "gamma"), D("3333.33333333"))
    assert await reserve_of(database) == D("0.00000001")
    allocations = {row.strategy: (row.cash, row.active) for row in await rows_of(database, AllocationRow)}
    assert allocations["beta"] == (D("3333.33333333"), True)
    assert await rows_of(database, MovementRow) == []


async def test_the_same_list_moves_nothing_whatever_the_shares_say(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    await loop_of(of(ALPHA, BETA)).load()

    await loop_of(of(ALPHA, BETA, shares={ALPHA: D("0.9"), BETA: D("0.1")})).load()

    assert await cash_of(database) == {"alpha": 5000, "beta": 5000}


async def test_a_new_instance_gets_its_share_from_the_idle_ones(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    await market([candle(0), candle(1)])
    await run_dry(loop_of(of(ALPHA, BETA)))

    await loop_of(of(ALPHA, BETA, GAMMA)).load()

    cash = await cash_of(database)
    assert all(abs(each - D(10_000) / 3) < D("0.000001") for each in cash.values())
    await reserve_of(database)
    moves = {row.account: row.delta for row in await rows_of(database, MovementRow)}
    assert set(moves) == {f"paper/{key}" for key in (ALPHA, BETA, GAMMA)}
    assert {row.kind for row in await rows_of(database, MovementRow)} == {"transfer"}
    assert {row.as_of for row in await rows_of(database, MovementRow)} == {candle(1).close_time}


async def test_a_busy_instance_gives_nothing(database: Database, market: Market, loop_of: BuildLoop) -> None:
    await market([candle(0), candle(1)], [signal("BUY", 0)])
    await run_dry(loop_of(of(ALPHA, BETA)))

    await loop_of(of(ALPHA, BETA, GAMMA)).load()

    cash = await cash_of(database)
    assert cash["alpha"] == 4_900
    assert abs(cash["gamma"] - D(5000) / 3) < D("0.000001")
    await reserve_of(database)


async def test_what_a_removed_instance_leaves_goes_to_the_others(database: Database, loop_of: BuildLoop) -> None:
    await loop_of(of(ALPHA, BETA)).load()

    await loop_of(of(ALPHA)).load()

    assert await cash_of(database) == {"alpha": 10_000, "beta": 0}
    assert await reserve_of(database) == 0
    assert {row.strategy: row.active for row in await rows_of(database, AllocationRow)} == {
        "alpha": True,
        "beta": False,
    }


async def test_a_list_that_goes_to_and_fro_keeps_every_coin_on_record(database: Database, loop_of: BuildLoop) -> None:
    for keys in ((ALPHA, BETA), (ALPHA,), (ALPHA, BETA), (BETA, GAMMA), (ALPHA, BETA, GAMMA), (GAMMA,)):
        await loop_of(of(*keys)).load()
        await reserve_of(database)

    moved: dict[str, Decimal] = {}
    for row in await rows_of(database, MovementRow):
        moved[row.account] = moved.get(row.account, ZERO) + row.delta
    first = {"alpha": D(5000), "beta": D(5000), "gamma": ZERO}
    cash = await cash_of(database)
    assert {key.strategy: first[key.strategy] + moved[f"paper/{key}"] for key in (ALPHA, BETA, GAMMA)} == cash
    assert cash["gamma"] > D("9999.999")


async def test_moved_cash_is_what_the_instance_trades_with(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    await loop_of(of(ALPHA, BETA)).load()
    await market([candle(0), candle(1)], [signal("BUY", 0, quantity=80)])

    await run_dry(loop_of(of(ALPHA)))

    assert (await cash_of(database))["alpha"] == 2_000


async def test_new_parameters_keep_the_account(database: Database, market: Market, loop_of: BuildLoop) -> None:
    await market([candle(0), candle(1)], [signal("BUY", 0)])
    await run_dry(loop_of(of(ALPHA, BETA)))

    loop = loop_of(config_of({ALPHA: instance_rules(max_entries=5), BETA: instance_rules(BETA)}))
    await loop.load()

    assert loop.executor.book.accounts[ALPHA].holding.quantity == 1
    assert loop.executor.book.accounts[ALPHA].rules.max_entries == 5

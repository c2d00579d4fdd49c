"""`verify_database`: clean where everything agrees, and every kind of tampering found where it was done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from portfolio_manager.verification import verify_database
from shared.db import Database
from shared.models import to_milliseconds
from shared.sa_models import (
    AccountRow,
    AllocationRow,
    DecisionRow,
    LedgerRow,
    OrderRow,
    OutboxRow,
    PositionRow,
    SignalRow,
    StrategyPositionRow,
    TradeRow,
)
from shared.testing.builders import BTC, candle

from .conftest import Trade, lively, rows_of

pytestmark = pytest.mark.thorough

D = Decimal


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    database = Database(sqlite_url)
    yield database
    await database.close()


@pytest.fixture
async def traded(database: Database, trade: Trade) -> Database:
    await trade(*lively(range(40)))
    return database


async def change(database: Database, *statements: Any) -> None:
    async with database.get_session() as session:
        for statement in statements:
            await session.execute(statement.execution_options(synchronize_session=False))


async def test_an_empty_database_is_clean(database: Database) -> None:
    found = await verify_database(database)

    assert found.is_clean
    assert (found.fills, found.orders, found.signals, found.as_of) == (0, 0, 0, None)
    assert found.lags == {"engine": "not started", "executor": "not started", "portfolio": "not started"}


async def test_what_the_executor_wrote_is_clean(traded: Database) -> None:
    found = await verify_database(traded)

    assert found.differences == ()
    assert found.fills == len(await rows_of(traded, TradeRow)) > 20
    assert found.orders == len(await rows_of(traded, OrderRow))
    assert found.signals == 120
    assert found.as_of == candle(39).close_time


async def test_a_service_that_is_behind_is_no_difference(traded: Database) -> None:
    async with traded.get_session() as session:
        until = to_milliseconds(candle(99).close_time)
        await traded.write_cursors(session, {"collector/watermark": until, "engine/watermark": until})

    found = await verify_database(traded)

    assert found.is_clean
    assert found.lags["engine"] == "0 s of market behind"
    assert found.lags["executor"] == "3600 s of market behind"


async def test_a_signal_that_still_waits_for_its_decision_is_no_difference(traded: Database) -> None:
    first = (await rows_of(traded, DecisionRow, "as_of"))[0].signal_id
    await change(
        traded,
        delete(DecisionRow).where(DecisionRow.signal_id == first),
        update(OutboxRow).where(OutboxRow.topic == "signals", OutboxRow.key == first).values(acked_at=None),
    )

    wheres = [difference.where for difference in (await verify_database(traded)).differences]

    assert f"signals {first}" not in wheres


def some(row: Any, *conditions: Any) -> Any:
    """Return the key of one row that meets the conditions."""
    key = next(iter(row.__table__.primary_key.columns))
    return key == select(key).where(*conditions).order_by(key).limit(1).scalar_subquery()


TAMPERINGS: dict[str, tuple[Callable[[], Any], str]] = {
    "a traded quantity": (lambda: update(TradeRow).where(TradeRow.sequence == 1).values(quantity=D("1.5")), "ledger"),
    "a traded price": (lambda: update(TradeRow).where(TradeRow.sequence == 1).values(price=D(1)), "ledger"),
    "a fee": (lambda: update(TradeRow).where(TradeRow.sequence == 1).values(fee=D(9), fee_quote=D(9)), "ledger"),
    "a side": (lambda: update(TradeRow).where(TradeRow.sequence == 1).values(side="SELL"), "trades"),
    "a missing trade": (lambda: delete(TradeRow).where(TradeRow.sequence == 3), "trades"),
    "a missing last trade": (
        lambda: delete(TradeRow).where(
            TradeRow.sequence == select(TradeRow.sequence).order_by(TradeRow.sequence.desc()).limit(1).scalar_subquery()
        ),
        "ledger",
    ),
    "a ledger entry": (
        lambda: update(LedgerRow).where(some(LedgerRow, LedgerRow.leg == "quote")).values(delta=D(1)),
        "ledger",
    ),
    "a ledger asset": (
        lambda: update(LedgerRow).where(some(LedgerRow, LedgerRow.leg == "fee")).values(asset="BNB"),
        "ledger",
    ),
    "a missing ledger leg": (lambda: delete(LedgerRow).where(some(LedgerRow, LedgerRow.leg == "fee")), "ledger"),
    "a ledger entry of no known cause": (
        lambda: (
            update(LedgerRow).where(some(LedgerRow, LedgerRow.leg == "fee")).values(entry_id="gift", cause_type="gift")
        ),
        "ledger gift",
    ),
    "an instance's quantity": (
        lambda: update(StrategyPositionRow).where(StrategyPositionRow.strategy == "alpha").values(quantity=D(7)),
        "strategy_positions alpha BTC/USDT 1m quantity",
    ),
    "an instance's cash": (
        lambda: update(StrategyPositionRow).where(StrategyPositionRow.strategy == "beta").values(cash=D(1)),
        "strategy_positions beta BTC/USDT 1m cash",
    ),
    "an instance's profit": (
        lambda: update(StrategyPositionRow).where(StrategyPositionRow.strategy == "beta").values(realized_pnl=D(1)),
        "strategy_positions beta BTC/USDT 1m realized_pnl",
    ),
    "an instance's average": (
        lambda: update(StrategyPositionRow).where(StrategyPositionRow.strategy == "beta").values(avg_entry_price=D(1)),
        "strategy_positions beta BTC/USDT 1m avg_entry_price",
    ),
    "a missing instance": (
        lambda: delete(StrategyPositionRow).where(StrategyPositionRow.strategy == "gamma"),
        "strategy_positions gamma ETH/USDT 1m",
    ),
    "an allocation": (
        lambda: update(AllocationRow).where(AllocationRow.strategy == "gamma").values(cash=D(5)),
        "strategy_positions gamma ETH/USDT 1m cash",
    ),
    "a position": (
        lambda: update(PositionRow).where(PositionRow.symbol == BTC).values(quantity=D(99)),
        "positions BTC/USDT quantity",
    ),
    "a position's average": (
        lambda: update(PositionRow).where(PositionRow.symbol == BTC).values(avg_entry_price=D(99)),
        "positions BTC/USDT avg_entry_price",
    ),
    "a mark": (
        lambda: update(PositionRow).where(PositionRow.symbol == BTC).values(current_price=D(999)),
        "accounts paper equity",
    ),
    "the account's cash": (lambda: update(AccountRow).values(cash=D(1)), "accounts paper cash"),
    "the account's equity": (lambda: update(AccountRow).values(equity=D(1)), "accounts paper equity"),
    "the opening balance": (lambda: update(AccountRow).values(initial_balance=D(1)), "accounts paper cash"),
    "the number of fills": (lambda: update(AccountRow).values(sequence=1), "accounts paper sequence"),
    "a filled order's status": (
        lambda: update(OrderRow).where(some(OrderRow, OrderRow.status == "FILLED")).values(status="CANCELED"),
        "orders",
    ),
    "a filled quantity": (
        lambda: update(OrderRow).where(some(OrderRow, OrderRow.status == "FILLED")).values(filled_quantity=D("0.5")),
        "orders",
    ),
    "an order's quantity": (
        lambda: update(OrderRow).where(some(OrderRow, OrderRow.status == "FILLED")).values(quantity=D(50)),
        "orders",
    ),
    "an order's fill price": (
        lambda: update(OrderRow).where(some(OrderRow, OrderRow.status == "FILLED")).values(avg_fill_price=D(50)),
        "orders",
    ),
    "an order's signal": (
        lambda: update(OrderRow).where(some(OrderRow, OrderRow.signal_id.is_not(None))).values(signal_id=None),
        "decisions",
    ),
    "a decision's order": (
        lambda: update(DecisionRow).where(some(DecisionRow, DecisionRow.outcome == "ordered")).values(order_id="x"),
        "decisions",
    ),
    "a missing decision": (
        lambda: delete(DecisionRow).where(some(DecisionRow, DecisionRow.outcome == "ignored")),
        "signals",
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_tampering_is_found(traded: Database, name: str) -> None:
    statement, where = TAMPERINGS[name]
    await change(traded, statement())

    found = await verify_database(traded)

    assert not found.is_clean
    assert any(difference.where.startswith(where) for difference in found.differences), found.differences


async def test_an_invented_signal_is_found(traded: Database) -> None:
    first = (await rows_of(traded, SignalRow, "created_at"))[0]
    row = {column.name: getattr(first, column.name) for column in SignalRow.__table__.columns} | {"id": "invented"}
    async with traded.get_session() as session:
        await traded.insert_rows(session, SignalRow, [row])

    found = await verify_database(traded)

    assert [str(difference) for difference in found.differences] == [
        "signals invented: the fills say a decision, stored is none"
    ]


async def test_what_is_told_is_bounded(traded: Database) -> None:
    await change(traded, update(LedgerRow).values(delta=D(1)), update(OrderRow).values(filled_quantity=D(9)))

    assert len((await verify_database(traded)).differences) == 100

"""The book as the database has it: opened at the first start, rebuilt from its fills at every later one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from order_executor.config import ACCOUNT, ExecutorConfig
from order_executor.records import account_row
from order_executor.sub_accounts import SubAccounts, follow_list
from shared.db import Database
from shared.db_orders import fill_of, order_of
from shared.db_rows import read_rows
from shared.domain.account import AccountFigures
from shared.domain.allocation import allocated_cash
from shared.domain.book import Book
from shared.domain.order_lifecycle import WORKING_STATUSES
from shared.domain.restore import BookRecord, InstanceRecord, restore_book
from shared.domain.risk import ControlState
from shared.domain.rounding import ZERO
from shared.models import InstanceKey, OrderSide
from shared.sa_models import (
    AccountRow,
    AllocationRow,
    ControlRow,
    OrderRow,
    PositionRow,
    StrategyPositionRow,
    TradeRow,
)

RATE_WINDOW = timedelta(hours=1)


class ControlOrder(msgspec.Struct, frozen=True):
    """What a person, or the answer to lost truth, ordered through the table `control`."""

    state: ControlState = ControlState.ACTIVE
    reason: str = ""
    set_by: str = ""


async def open_book(database: Database, config: ExecutorConfig) -> Book:
    """Return the account's book, opened on first use; its sub-accounts follow the configured instances."""
    async with database.get_session() as session:
        stored = (
            (await session.execute(select(AccountRow.__table__).where(AccountRow.account == ACCOUNT)))
            .mappings()
            .first()
        )
        if stored is None:
            return await _open_account(database, session, config)
        allocations = (await session.execute(select(AllocationRow.__table__))).mappings().all()
        book = await _restore(session, config, dict(stored), {_key(row): row["cash"] for row in allocations})
        active = {_key(row) for row in allocations if row["active"]}
        await follow_list(SubAccounts(database, session, book, config, stored["as_of"]), active)
        return book


async def _open_account(database: Database, session: AsyncSession, config: ExecutorConfig) -> Book:
    book = Book(config.rules, config.balance)
    for key in sorted(config.instances):
        cash = allocated_cash(config.balance, config.shares.get(key, ZERO))
        book.open_account(key, config.instances[key], cash)
    await database.insert_rows(
        session,
        AccountRow,
        [account_row(book, account=ACCOUNT, mode=config.mode, quote_asset=config.quote_asset, as_of=None)],
    )
    await SubAccounts(database, session, book, config, None).write_allocations()
    return book


async def read_control(session: AsyncSession) -> ControlOrder:
    """Return what the kill switch says now; never set means ACTIVE."""
    rows = await read_rows(session, ControlRow, "WHERE account = ?", (ACCOUNT,))
    if not rows:
        return ControlOrder()
    return ControlOrder(ControlState(rows[0]["state"]), rows[0]["reason"], rows[0]["set_by"])


async def _restore(
    session: AsyncSession,
    config: ExecutorConfig,
    account: Mapping[str, Any],
    allocations: Mapping[InstanceKey, Decimal],
) -> Book:
    subs = {_key(row): row for row in (await session.execute(select(StrategyPositionRow.__table__))).mappings()}
    fills = [
        fill_of(dict(row))
        for row in (await session.execute(select(TradeRow.__table__).order_by(TradeRow.sequence))).mappings()
    ]
    working = [status.value for status in WORKING_STATUSES]
    wanted: ColumnElement[bool] = OrderRow.status.in_(working)
    if account["as_of"] is not None:
        recent = (OrderRow.side == OrderSide.BUY.value) & (OrderRow.created_at > account["as_of"] - RATE_WINDOW)
        wanted = or_(wanted, recent)
    query = (
        select(OrderRow.__table__)
        .where(wanted)
        .order_by(OrderRow.created_at, OrderRow.symbol, OrderRow.timeframe, OrderRow.strategy)
    )
    orders = [order_of(dict(row)) for row in (await session.execute(query)).mappings()]
    marks = {
        row["symbol"]: row["current_price"] for row in (await session.execute(select(PositionRow.__table__))).mappings()
    }
    record = BookRecord(
        balance=account["initial_balance"],
        instances={
            key: InstanceRecord(
                rules=config.instances.get(key) or config.default_rules(key),
                allocation=cash,
                high_water_price=subs[key]["high_water_price"] if key in subs else ZERO,
                cooldown_until=subs[key]["cooldown_until"] if key in subs else None,
                is_orphan=not config.adopts and key not in config.instances,
            )
            for key, cash in sorted(allocations.items())
        },
        fills=fills,
        orders=orders,
        marks={symbol: mark for symbol, mark in marks.items() if mark},
        figures=_figures(account),
        control=(await read_control(session)).state,
    )
    return restore_book(config.rules, record)


def _key(row: Mapping[Any, Any]) -> InstanceKey:
    return InstanceKey(row["strategy"], row["symbol"], row["timeframe"])


def _figures(account: Mapping[str, Any]) -> AccountFigures:
    return AccountFigures(
        equity=account["equity"],
        equity_peak=account["equity_peak"],
        day=date.fromisoformat(account["day"]) if account["day"] else None,
        day_base=account["day_equity"],
        day_flows=account["day_flows"],
        state=ControlState(account["state"]),
        state_reason=account["state_reason"],
    )

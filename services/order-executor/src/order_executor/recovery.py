"""The book as the database has it: opened at the first start, rebuilt from its fills at every later one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from order_executor.config import ACCOUNT, ExecutorConfig
from order_executor.records import account_row, sub_account_row
from shared.clock import derived_id
from shared.db import Database
from shared.domain.account import AccountFigures
from shared.domain.allocation import SubAccountCash, allocated_cash, plan_transfers
from shared.domain.book import Book
from shared.domain.order_lifecycle import WORKING_STATUSES
from shared.domain.orphans import find_orphans
from shared.domain.restore import BookRecord, InstanceRecord, restore_book
from shared.domain.risk import ControlState
from shared.domain.rounding import ZERO, minus, plus
from shared.errors import ConfigError
from shared.models import Fill, InstanceKey, Order, OrderSide, OrderStatus, OrderType, from_milliseconds
from shared.sa_models import (
    AccountRow,
    AllocationRow,
    ControlRow,
    MovementRow,
    OrderRow,
    PositionRow,
    StrategyPositionRow,
    TradeRow,
)

RATE_WINDOW = timedelta(hours=1)


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
        book = await _restore(session, config, dict(stored))
        await _follow_list(database, session, book, config)
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
    await _write_allocations(database, session, book, config, {key: a.cash for key, a in book.accounts.items()})
    return book


async def _restore(session: AsyncSession, config: ExecutorConfig, account: Mapping[str, Any]) -> Book:
    allocations = {
        InstanceKey(row["strategy"], row["symbol"], row["timeframe"]): row["cash"]
        for row in (await session.execute(select(AllocationRow.__table__))).mappings()
    }
    subs = {
        InstanceKey(row["strategy"], row["symbol"], row["timeframe"]): row
        for row in (await session.execute(select(StrategyPositionRow.__table__))).mappings()
    }
    fills = [
        _fill(dict(row))
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
    orders = [_order(dict(row)) for row in (await session.execute(query)).mappings()]
    marks = {
        row["symbol"]: row["current_price"] for row in (await session.execute(select(PositionRow.__table__))).mappings()
    }
    control = (
        await session.execute(select(ControlRow.state).where(ControlRow.account == ACCOUNT))
    ).scalar_one_or_none()
    record = BookRecord(
        balance=account["initial_balance"],
        instances={
            key: InstanceRecord(
                rules=config.instances.get(key) or config.default_rules(key),
                allocation=cash,
                high_water_price=subs[key]["high_water_price"] if key in subs else ZERO,
                cooldown_until=subs[key]["cooldown_until"] if key in subs else None,
                is_orphan=key not in config.instances,
            )
            for key, cash in sorted(allocations.items())
        },
        fills=fills,
        orders=orders,
        marks={symbol: mark for symbol, mark in marks.items() if mark},
        figures=_figures(account),
        control=ControlState(control) if control else ControlState.ACTIVE,
    )
    return restore_book(config.rules, record)


async def _follow_list(database: Database, session: AsyncSession, book: Book, config: ExecutorConfig) -> None:
    """Open sub-accounts for new instances and take idle cash of removed ones: transfers of free cash, on record."""
    holdings = {key: account.holding for key, account in book.accounts.items()}
    orphans = find_orphans(holdings, config.instances)
    if orphans and config.orphans == "ask":
        names = "; ".join(f"{key} holds {holdings[key].quantity.normalize():f}" for key in orphans)
        raise ConfigError(
            f"orphans: {names}, but not enabled; start with --orphans keep or --orphans close, or enable them again"
        )
    idle_gone = [
        key for key, a in book.accounts.items() if key not in config.instances and not a.holding.quantity and a.cash
    ]
    if set(config.instances) <= set(book.accounts) and not idle_gone:
        return
    allocated = ZERO
    for account in book.accounts.values():
        allocated = plus(allocated, minus(account.cash, account.holding.cash_flow))
    transfers = plan_transfers(
        equity=book.equity() or book.cash,
        reserve=minus(book.initial_balance, allocated),
        shares=config.shares,
        accounts={
            key: SubAccountCash(account.cash, bool(account.holding.quantity or account.working))
            for key, account in book.accounts.items()
        },
    )
    as_of = _as_of(await session.scalar(select(AccountRow.as_of).where(AccountRow.account == ACCOUNT)))
    moves: list[dict[str, Any]] = []
    for number, transfer in enumerate(transfers):
        if transfer.key not in book.accounts:
            book.open_account(transfer.key, config.instances[transfer.key], ZERO)
        account = book.accounts[transfer.key]
        account.cash = plus(account.cash, transfer.delta)
        moves.append(
            {
                "ext_id": derived_id("transfer", *transfer.key, as_of.isoformat(), number),
                "account": f"{ACCOUNT}/{transfer.key}",
                "asset": config.quote_asset,
                "delta": transfer.delta,
                "kind": "transfer",
                "as_of": as_of,
            }
        )
    if moves:
        await database.insert_rows(session, MovementRow, moves, ignore_conflicts=True)
    cash = {key: minus(account.cash, account.holding.cash_flow) for key, account in book.accounts.items()}
    await _write_allocations(database, session, book, config, cash)


async def _write_allocations(
    database: Database, session: AsyncSession, book: Book, config: ExecutorConfig, cash: Mapping[InstanceKey, Decimal]
) -> None:
    as_of = _as_of(None)
    rows = [
        {
            **key._asdict(),
            "share": config.shares.get(key, ZERO),
            "cash": cash[key],
            "as_of": as_of,
            "active": key in config.instances,
        }
        for key in sorted(book.accounts)
    ]
    if rows:
        await database.upsert_rows(session, AllocationRow, rows)
        subs = [sub_account_row(book.accounts[key], as_of, book.sequence) for key in sorted(book.accounts)]
        await database.upsert_rows(session, StrategyPositionRow, subs)


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


def _fill(row: Mapping[str, Any]) -> Fill:
    return Fill(**{**row, "side": OrderSide(row["side"])})


def _order(row: Mapping[str, Any]) -> Order:
    words = {"side": OrderSide(row["side"]), "type": OrderType(row["type"]), "status": OrderStatus(row["status"])}
    return Order(**{**{name: row[name] for name in Order.__struct_fields__}, **words})


def _as_of(moment: datetime | None) -> datetime:
    """Return a business time for what happens before the first candle: the beginning of time."""
    return moment if moment is not None else from_milliseconds(0)


async def adopt_instance(
    database: Database, session: AsyncSession, book: Book, config: ExecutorConfig, key: InstanceKey
) -> None:
    """Open a sub-account for an instance that nobody configured, with all cash that belongs to no other."""
    free = book.initial_balance
    for account in book.accounts.values():
        free = minus(free, minus(account.cash, account.holding.cash_flow))
    rules = config.instances.get(key) or config.default_rules(key)
    if config.stop_loss_pct is not None:
        rules = msgspec.structs.replace(rules, stop_loss_pct=config.stop_loss_pct)
    book.open_account(key, rules, max(free, ZERO))
    cash = {other: minus(account.cash, account.holding.cash_flow) for other, account in book.accounts.items()}
    await _write_allocations(database, session, book, config, cash)

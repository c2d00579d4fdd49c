"""`trading allocate`: free cash moved between strategies, on record, while nothing trades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.clock import derived_id
from shared.config import SERVICE_PORTS
from shared.config_values import Allocation, parse_allocation
from shared.db import Database
from shared.domain.allocation import SubAccountCash, Transfer, divide_pool, plan_transfers
from shared.domain.order_lifecycle import WORKING_STATUSES
from shared.domain.rounding import ZERO, minus, plus, times
from shared.errors import ConfigError, StateLocked
from shared.instances import allocation_shares
from shared.lease import holders_of
from shared.models import InstanceKey, from_milliseconds
from shared.sa_models import AccountRow, AllocationRow, MovementRow, OrderRow, PositionRow, StrategyPositionRow
from trading_cli.rows_output import short_money
from trading_cli.state_dir import hold_state
from trading_cli.stored_state import find_state, read_stored, state_options

FORM = "write strategy=share, strategy@SYMBOL=share or strategy@SYMBOL:TIMEFRAME=share, for example rsi=0.2"


@dataclass(frozen=True, slots=True)
class SubAccount:
    """What the database says of one instance; money in quote, `value` is what it holds at the last close."""

    key: InstanceKey
    cash: Decimal
    value: Decimal
    is_busy: bool
    active: bool


@dataclass(frozen=True, slots=True)
class Account:
    """The account and its instances, as they are now."""

    name: str
    quote_asset: str
    equity: Decimal
    reserve: Decimal
    as_of: datetime | None
    instances: tuple[SubAccount, ...]


@click.command("allocate")
@click.argument("shares", nargs=-1, required=True)
@state_options
@click.option("--dry-run", is_flag=True, help="only show what would be moved")
@click.option("--services-stopped", is_flag=True, help="needed for a database that services share: say that none runs")
def allocate(
    shares: tuple[str, ...], state: Path | None, database_url: str | None, *, dry_run: bool, services_stopped: bool
) -> None:
    """Give strategies shares of equity: strategy[@SYMBOL[:TIMEFRAME]]=share ...; the others divide what is left.

    Only free cash moves: an instance that holds or has ordered something gives nothing.
    """
    entries = _parsed(shares)
    stored = find_state(state, database_url)
    stored.require()
    if not (stored.is_own or services_stopped or dry_run):
        raise ConfigError(
            f"allocate: {stored.name} may be in use; stop every service and repeat with --services-stopped"
        )
    with ExitStack() as stack:
        if stored.is_own and not dry_run:
            stack.enter_context(hold_state(stored.directory))

        async def work(database: Database) -> None:
            if not dry_run:
                await _refuse_holders(database)
            async with database.read() as session:
                account = await read_account(session)
            wanted = allocation_shares([each.key for each in account.instances if each.active], entries)
            transfers = plan_allocation(account, wanted)
            _show(account, wanted, transfers)
            if dry_run:
                click.echo("dry run: nothing was moved")
                return
            async with database.get_session() as session:
                await book_transfers(database, session, account, wanted, transfers)
            click.echo("booked; `trading up` goes on with it")

        read_stored(stored, work)


async def _refuse_holders(database: Database) -> None:
    """Refuse while a service holds a lease: what it has in memory would overwrite what is booked here."""
    holders = await holders_of(database, tuple(SERVICE_PORTS))
    if holders:
        raise StateLocked(f"allocate: {holders[0]}; stop every service first")


def plan_allocation(account: Account, wanted: Mapping[InstanceKey, Decimal]) -> list[Transfer]:
    """Return what moves: idle instances give what is above their share, those below it divide what there is.

    What is given and what is in reserve is divided in proportion to what each lacks, floored to 8 decimals; the sum
    of all transfers never exceeds the reserve.
    """
    accounts = {each.key: SubAccountCash(each.cash, each.is_busy) for each in account.instances}
    gives = plan_transfers(equity=account.equity, reserve=account.reserve, shares=wanted, accounts=accounts)
    pool = account.reserve
    for give in gives:
        pool = minus(pool, give.delta)
    lacking = {
        each.key: minus(times(account.equity, wanted.get(each.key, ZERO)), plus(each.cash, each.value))
        for each in account.instances
    }
    return gives + divide_pool(pool, lacking)


async def read_account(session: AsyncSession) -> Account:
    """Return the account of a database; one that never began is refused."""
    accounts = (await session.execute(select(AccountRow.__table__))).mappings().all()
    if not accounts:
        raise ConfigError("allocate: nothing has been traded yet; give the first start its shares with --allocation")
    row = accounts[0]
    marks = {mark["symbol"]: mark["current_price"] for mark in await _rows(session, PositionRow)}
    working = select(OrderRow.strategy, OrderRow.symbol, OrderRow.timeframe).where(
        OrderRow.status.in_([status.value for status in WORKING_STATUSES])
    )
    busy = {InstanceKey(*found) for found in await session.execute(working)}
    allocations = {_key(each): each for each in await _rows(session, AllocationRow)}
    held = {_key(each): each for each in await _rows(session, StrategyPositionRow)}
    reserve = row["initial_balance"]
    instances: list[SubAccount] = []
    for key in sorted(allocations):
        own = held.get(key, {})
        quantity = own.get("quantity", ZERO)
        price = marks.get(key.symbol) or own.get("avg_entry_price", ZERO)
        cash = own.get("cash", allocations[key]["cash"])
        reserve = minus(reserve, allocations[key]["cash"])
        is_busy = bool(quantity) or key in busy
        instances.append(SubAccount(key, cash, times(quantity, price), is_busy, bool(allocations[key]["active"])))
    return Account(row["account"], row["quote_asset"], row["equity"], reserve, row["as_of"], tuple(instances))


async def book_transfers(
    database: Database,
    session: AsyncSession,
    account: Account,
    wanted: Mapping[InstanceKey, Decimal],
    transfers: Sequence[Transfer],
) -> None:
    """Write allocations, sub-accounts and one movement a transfer, in the caller's transaction."""
    as_of = account.as_of or from_milliseconds(0)
    number = await database.count_rows(MovementRow, session)
    deltas = {transfer.key: transfer.delta for transfer in transfers}
    moves = [
        {
            "ext_id": derived_id("transfer", *key, number),
            "account": f"{account.name}/{key}",
            "asset": account.quote_asset,
            "delta": delta,
            "kind": "transfer",
            "as_of": as_of,
        }
        for key, delta in deltas.items()
    ]
    if moves:
        await database.insert_rows(session, MovementRow, moves)
    allocations = [
        row
        | {"cash": plus(row["cash"], deltas.get(_key(row), ZERO)), "share": wanted.get(_key(row), row["share"])}
        | {"as_of": as_of}
        for row in await _rows(session, AllocationRow)
    ]
    await database.upsert_rows(session, AllocationRow, allocations)
    subs = [
        row | {"cash": plus(row["cash"], deltas[_key(row)])}
        for row in await _rows(session, StrategyPositionRow)
        if _key(row) in deltas
    ]
    if subs:
        await database.upsert_rows(session, StrategyPositionRow, subs)


def _parsed(shares: Sequence[str]) -> tuple[Allocation, ...]:
    try:
        return parse_allocation(",".join(shares))
    except ValueError as error:
        raise ConfigError(f"allocate: {error}; {FORM}") from None


async def _rows(session: AsyncSession, row_class: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in (await session.execute(select(row_class.__table__))).mappings()]


def _key(row: Mapping[str, Any]) -> InstanceKey:
    return InstanceKey(row["strategy"], row["symbol"], row["timeframe"])


def _show(account: Account, wanted: Mapping[InstanceKey, Decimal], transfers: Sequence[Transfer]) -> None:
    deltas = {transfer.key: transfer.delta for transfer in transfers}
    for each in account.instances:
        before, delta = plus(each.cash, each.value), deltas.get(each.key, ZERO)
        note = "  (holds or has ordered something: gives nothing)" if each.is_busy and delta <= 0 else ""
        click.echo(
            f"{each.key}: {wanted.get(each.key, ZERO):.2%} of equity, has {short_money(before)}, "
            f"moves {delta:+,.2f}, then {short_money(plus(before, delta))} {account.quote_asset}{note}"
        )
    if not transfers:
        click.echo("nothing to move")

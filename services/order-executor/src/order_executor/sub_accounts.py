"""Who owns which part of the account's cash: allocations, the transfers of a changed list, adopted instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from order_executor.config import ACCOUNT, ExecutorConfig
from order_executor.records import sub_account_row
from shared.clock import derived_id
from shared.db import Database
from shared.domain.allocation import SubAccountCash, Transfer, divide_pool, plan_transfers
from shared.domain.book import Book
from shared.domain.orphans import find_orphans
from shared.domain.rounding import ZERO, minus, plus, times
from shared.errors import ConfigError
from shared.models import InstanceKey, from_milliseconds
from shared.sa_models import AllocationRow, MovementRow, StrategyPositionRow


@dataclass(frozen=True, slots=True)
class SubAccounts:
    """A book's sub-accounts and the transaction that writes them; before the first candle `as_of` is None."""

    database: Database
    session: AsyncSession
    book: Book
    config: ExecutorConfig
    as_of: datetime | None

    @property
    def moment(self) -> datetime:
        """Return the business time of what is written: the beginning of time before the first candle."""
        return self.as_of if self.as_of is not None else from_milliseconds(0)

    def allocated(self) -> dict[InstanceKey, Decimal]:
        """Return every sub-account's cash before any fill, transfers included."""
        return {key: minus(a.cash, a.holding.cash_flow) for key, a in self.book.accounts.items()}

    def reserve(self) -> Decimal:
        """Return the cash that belongs to no sub-account."""
        free = self.book.initial_balance
        for cash in self.allocated().values():
            free = minus(free, cash)
        return free

    async def write_allocations(self) -> None:
        """Write the allocation and the row of every sub-account."""
        cash = self.allocated()
        rows = [
            {
                **key._asdict(),
                "share": self.config.shares.get(key, ZERO),
                "cash": cash[key],
                "as_of": self.moment,
                "active": self.config.adopts or key in self.config.instances,
            }
            for key in sorted(cash)
        ]
        if rows:
            await self.database.upsert_rows(self.session, AllocationRow, rows)
            accounts = [self.book.accounts[key] for key in sorted(cash)]
            subs = [sub_account_row(account, self.moment, self.book.sequence) for account in accounts]
            await self.database.upsert_rows(self.session, StrategyPositionRow, subs)

    async def move(self, transfers: Sequence[Transfer]) -> None:
        """Move cash between sub-accounts and put each transfer on record; unknown instances are opened."""
        number = await self.database.count_rows(MovementRow, self.session)  # a second change at one time is another one
        moves = []
        for transfer in transfers:
            if transfer.key not in self.book.accounts:
                self.book.open_account(transfer.key, self.config.instances[transfer.key], ZERO)
            account = self.book.accounts[transfer.key]
            account.cash = plus(account.cash, transfer.delta)
            moves.append(
                {
                    "ext_id": derived_id("transfer", *transfer.key, number),
                    "account": f"{ACCOUNT}/{transfer.key}",
                    "asset": self.config.quote_asset,
                    "delta": transfer.delta,
                    "kind": "transfer",
                    "as_of": self.moment,
                }
            )
        if moves:
            await self.database.insert_rows(self.session, MovementRow, moves)


async def follow_list(accounts: SubAccounts, active: set[InstanceKey]) -> None:
    """Make the stored sub-accounts those of the configured instances; `active` are the ones of the last start.

    New ones are opened, and free cash moves to where the shares want it; a holding is never touched.
    """
    book, config = accounts.book, accounts.config
    if config.adopts:
        return
    _refuse_unanswered_orphans(book, config)
    if active == set(config.instances):
        return
    transfers = _plan(accounts)
    await accounts.move(transfers)
    for key in sorted(config.instances):
        if key not in book.accounts:
            book.open_account(key, config.instances[key], ZERO)
    await accounts.write_allocations()


async def adopt_instance(accounts: SubAccounts, key: InstanceKey) -> None:
    """Open a sub-account for an instance that nobody configured, with all cash that belongs to no other."""
    config = accounts.config
    rules = config.instances.get(key) or config.default_rules(key)
    if config.stop_loss_pct is not None:
        rules = msgspec.structs.replace(rules, stop_loss_pct=config.stop_loss_pct)
    accounts.book.open_account(key, rules, max(accounts.reserve(), ZERO))
    await accounts.write_allocations()


def _plan(accounts: SubAccounts) -> list[Transfer]:
    book, shares = accounts.book, accounts.config.shares
    equity = book.equity() or book.cash
    known = {
        key: SubAccountCash(account.cash, bool(account.holding.quantity or account.working))
        for key, account in book.accounts.items()
    }
    kept = {key: share for key, share in shares.items() if key in known}
    gives = plan_transfers(equity=equity, reserve=accounts.reserve(), shares=kept, accounts=known)
    pool = accounts.reserve()
    for give in gives:
        pool = minus(pool, give.delta)
    return gives + divide_pool(pool, _lacking(book, shares, equity))


def _lacking(book: Book, shares: Mapping[InstanceKey, Decimal], equity: Decimal) -> dict[InstanceKey, Decimal]:
    lacking = {}
    for key, share in shares.items():
        account = book.accounts.get(key)
        worth = account.equity(book.marks.get(key.symbol)) if account is not None else ZERO
        lacking[key] = minus(times(equity, share), worth)
    return lacking


def _refuse_unanswered_orphans(book: Book, config: ExecutorConfig) -> None:
    if config.orphans != "ask":
        return
    held = {key: account.holding for key, account in book.accounts.items() if account.holding.entries}
    orphans = find_orphans(held, config.instances)
    if orphans:
        names = "; ".join(f"{key} holds {held[key].quantity.normalize():f}" for key in orphans)
        raise ConfigError(
            f"orphans: {names}, but not enabled; start with --orphans keep or --orphans close, or enable them again"
        )

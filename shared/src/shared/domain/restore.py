"""A book rebuilt from what was recorded: after a restart it goes on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal

import msgspec

from shared.domain.account import AccountFigures
from shared.domain.book import Book, BookRules, InstanceRules
from shared.domain.order_lifecycle import WORKING_STATUSES
from shared.domain.positions import FLAT, apply_fill
from shared.domain.risk import ControlState
from shared.domain.rounding import ZERO
from shared.models import Fill, InstanceKey, Order


class InstanceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of one sub-account beside its fills; an orphan needs one too, its stop stays armed.

    `allocation` is its cash before any fill, transfers included; `high_water_price` is read only where a trailing
    stop is set.
    """

    rules: InstanceRules
    allocation: Decimal
    high_water_price: Decimal = ZERO
    cooldown_until: datetime | None = None
    is_orphan: bool = False


class BookRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of one account: everything that a later decision looks at.

    `fills` and `orders` in booking order. `orders` holds the working ones and the increasing ones of the last hour of
    business time, ended or not; others do no harm. `figures` is None for an account that was never marked.
    """

    balance: Decimal
    instances: Mapping[InstanceKey, InstanceRecord]
    fills: Iterable[Fill] = ()
    orders: Iterable[Order] = ()
    marks: Mapping[str, Decimal] = {}
    figures: AccountFigures | None = None
    control: ControlState = ControlState.ACTIVE


def restore_book(rules: BookRules, record: BookRecord) -> Book:
    """Return the book that made what was recorded.

    Parameters
    ----------
    rules : BookRules
        Those in force from now on.
    record : BookRecord
        Read in one transaction, so that all of it is of one business time.

    Returns
    -------
    Book
        Gives the same effects, ids and numbers from here on as the book that was never stopped.

    Raises
    ------
    AssertionError
        If a fill or working order belongs to no instance, or a SELL exceeds what is held.

    Example: allocation 1,000 and a recorded BUY of 2 at 100 -> cash 800, 2 held.
    """
    book = Book(rules, record.balance, record.control)
    for key, instance in record.instances.items():
        account = book.open_account(key, instance.rules, instance.allocation)
        account.cooldown_until, account.is_orphan = instance.cooldown_until, instance.is_orphan
    _fold(book, record.fills)
    for key, instance in record.instances.items():
        account = book.accounts[key]
        if account.holding.entries:
            account.high_water_price = instance.high_water_price or account.holding.avg_entry_price
    orders = list(record.orders)
    for order in orders:
        if order.status in WORKING_STATUSES:
            assert order.instance in book.accounts, (
                f"book: working order {order.id} of {order.instance}, no sub-account"
            )
            book.accounts[order.instance].working.append(order)
    book.restore_rates(orders)
    book.marks.update(record.marks)
    if record.figures is not None:
        book.figures = record.figures
    return book


def _fold(book: Book, fills: Iterable[Fill]) -> None:
    holdings = dict.fromkeys(book.accounts, FLAT)
    for fill in fills:
        assert fill.instance in holdings, f"book: fill {fill.id} of {fill.instance}, no sub-account"
        holdings[fill.instance] = apply_fill(
            holdings[fill.instance], fill, book.accounts[fill.instance].rules.instrument
        )
        book.sequence = max(book.sequence, fill.sequence)
    for key, holding in holdings.items():
        book.restore_holding(key, holding)

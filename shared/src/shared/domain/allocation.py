"""How the account's money is divided among strategy instances, and moved when their list changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_FLOOR, Decimal

import msgspec

from shared.domain.rounding import MONEY_CONTEXT, ONE, ZERO, minus, plus, ratio, times
from shared.models import InstanceKey

ALLOCATION_QUANTUM = Decimal("1e-8")


class Transfer(msgspec.Struct, frozen=True):
    """Cash that goes to (or, negative, comes from) a sub-account."""

    key: InstanceKey
    delta: Decimal


class SubAccountCash(msgspec.Struct, frozen=True):
    """What a sub-account has: its cash, whether anything (held or ordered) still needs it, whether it is wanted."""

    cash: Decimal
    is_busy: bool


def equal_shares(keys: Iterable[InstanceKey]) -> dict[InstanceKey, Decimal]:
    """Return the same share of equity for every instance.

    Parameters
    ----------
    keys : iterable of InstanceKey
        The instances of a run.

    Returns
    -------
    dict of InstanceKey to Decimal
        Fractions whose sum is at most 1. Example: four instances -> 0.25 each.
    """
    listed = list(keys)
    return {key: MONEY_CONTEXT.divide(Decimal(1), Decimal(len(listed))) for key in listed}


def allocated_cash(balance: Decimal, share: Decimal) -> Decimal:
    """Return a share of the balance, floored to 8 decimals so that all shares together never exceed it.

    Parameters
    ----------
    balance : Decimal
        Quote money.
    share : Decimal
        Fraction in [0, 1].

    Returns
    -------
    Decimal
        Quote money. Example: a seventh of 100,000 -> 14285.71428571.
    """
    return MONEY_CONTEXT.multiply(balance, share).quantize(ALLOCATION_QUANTUM, ROUND_FLOOR, context=MONEY_CONTEXT)


def plan_transfers(
    *,
    equity: Decimal,
    reserve: Decimal,
    shares: Mapping[InstanceKey, Decimal],
    accounts: Mapping[InstanceKey, SubAccountCash],
) -> list[Transfer]:
    """Return the transfers of free cash that bring a changed list of instances nearest to its shares.

    Parameters
    ----------
    equity : Decimal
        Of the whole account, quote.
    reserve : Decimal
        Cash that belongs to no instance.
    shares : mapping of InstanceKey to Decimal
        Wanted share of equity of every enabled instance.
    accounts : mapping of InstanceKey to SubAccountCash
        Every sub-account there is, enabled or not.

    Returns
    -------
    list of Transfer
        Idle sub-accounts that are not wanted any more give all their cash, idle ones above their share the surplus;
        new ones receive up to their share while cash lasts. A busy sub-account gives nothing. The sum never exceeds
        the reserve.

    Example: two of 500 each and a third joins -> each gives 166.67, the third receives 333.33.
    """
    gives: list[Transfer] = []
    pool = reserve
    for key in sorted(accounts):
        account = accounts[key]
        target = times(equity, shares.get(key, ZERO))
        surplus = minus(account.cash, target)
        if not account.is_busy and surplus > 0:
            given = (
                surplus.quantize(ALLOCATION_QUANTUM, ROUND_FLOOR, context=MONEY_CONTEXT)
                if key in shares
                else account.cash
            )
            gives.append(Transfer(key, -given))
            pool = plus(pool, given)
    takes: list[Transfer] = []
    for key in sorted(shares):
        if key not in accounts:
            cash = min(allocated_cash(equity, shares[key]), pool)
            takes.append(Transfer(key, cash))
            pool = minus(pool, cash)
    return [transfer for transfer in gives if transfer.delta] + takes


def divide_pool(pool: Decimal, lacking: Mapping[InstanceKey, Decimal]) -> list[Transfer]:
    """Return how free cash goes to those that lack some, in proportion to what each lacks.

    Parameters
    ----------
    pool : Decimal
        Free cash, quote.
    lacking : mapping of InstanceKey to Decimal
        What each instance has less than its share of equity, quote; zero and below lacks nothing.

    Returns
    -------
    list of Transfer
        Sorted by instance, floored to 8 decimals: the sum never exceeds the pool, nobody gets more than it lacks.

    Example: 300 for two that lack 200 and 400 -> 100 and 200.
    """
    lacks = {key: lack for key, lack in sorted(lacking.items()) if lack > 0}
    total = ZERO
    for lack in lacks.values():
        total = plus(total, lack)
    if pool <= 0 or total <= 0:
        return []
    part = min(ratio(pool, total), ONE)
    takes = [
        Transfer(key, times(lack, part).quantize(ALLOCATION_QUANTUM, ROUND_FLOOR, context=MONEY_CONTEXT))
        for key, lack in lacks.items()
    ]
    return [take for take in takes if take.delta > 0]

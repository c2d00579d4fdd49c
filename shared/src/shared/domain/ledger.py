"""Double entry of every fill: what left and what came, by asset."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

import msgspec

from shared.clock import derived_id
from shared.domain.rounding import ZERO, negate, plus, times
from shared.models import Fill, OrderSide, split_symbol


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one asset; `leg` (base, quote, fee) makes it unique within its cause."""

    entry_id: str
    asset: str
    delta: Decimal
    cause_type: str
    cause_id: str
    leg: str
    as_of: datetime


def ledger_entries(fill: Fill) -> tuple[LedgerEntry, ...]:
    """Return the entries of one fill.

    Parameters
    ----------
    fill : Fill
        Quantity and price > 0, fee >= 0. A BNB fee is paid in BNB that cash buys, so its value leaves in quote.

    Returns
    -------
    tuple of LedgerEntry
        Base leg (+ on a BUY), quote leg (- on a BUY), and a fee leg where there is a fee. Ids derive from the fill,
        so booking it twice collides.

    Example: BUY 2 at 100, fee 0.2 USDT -> +2 base, -200 quote, -0.2 fee in quote.
    """
    base_asset, quote_asset = split_symbol(fill.symbol)
    notional, is_buy = times(fill.quantity, fill.price), fill.side is OrderSide.BUY
    legs = [
        ("base", base_asset, fill.quantity if is_buy else negate(fill.quantity)),
        ("quote", quote_asset, negate(notional) if is_buy else notional),
    ]
    if fill.fee > 0 and fill.fee_asset == base_asset:
        legs.append(("fee", base_asset, negate(fill.fee)))
    elif fill.fee_quote > 0:  # even where it is too small to be a quantity of its own asset
        legs.append(("fee", quote_asset, negate(fill.fee_quote)))
    return tuple(
        LedgerEntry(
            entry_id=derived_id(fill.id, leg),
            asset=asset,
            delta=delta,
            cause_type="fill",
            cause_id=fill.id,
            leg=leg,
            as_of=fill.as_of,
        )
        for leg, asset, delta in legs
    )


def balances(entries: Iterable[LedgerEntry]) -> dict[str, Decimal]:
    """Return the sum of the entries by asset, exactly.

    Parameters
    ----------
    entries : iterable of LedgerEntry
        In any order.

    Returns
    -------
    dict of str to Decimal
        Asset -> change since nothing was booked. Example: the BUY above -> base 2, quote -200.2.
    """
    totals: dict[str, Decimal] = {}
    for entry in entries:
        totals[entry.asset] = plus(totals.get(entry.asset, ZERO), entry.delta)
    return totals

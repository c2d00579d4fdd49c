"""Positions as folds over fills: average cost without fees, open entries, realised PnL net of fees."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from shared.domain.rounding import ZERO, Instrument, minus, negate, plus, ratio, times
from shared.models import Fill, OrderSide, split_symbol


class Holding(msgspec.Struct, frozen=True, gc=False):
    """What one owner holds of a symbol.

    `quantity` in base, `avg_entry_price` in quote per base (without fees), `realized_pnl` in quote net of fees valued
    at fill time, `fees` their sum, `entries` the quantities of the open entries, oldest first, `cash_flow` what all
    fills brought to (or took from) cash.
    """

    quantity: Decimal = ZERO
    avg_entry_price: Decimal = ZERO
    realized_pnl: Decimal = ZERO
    fees: Decimal = ZERO
    entries: tuple[Decimal, ...] = ()
    cash_flow: Decimal = ZERO


FLAT = Holding()


def is_dust(quantity: Decimal, price: Decimal, instrument: Instrument) -> bool:
    """Return whether so little is left that no order could sell it.

    Parameters
    ----------
    quantity : Decimal
        Base units, >= 0.
    price : Decimal
        Quote per base.
    instrument : Instrument
        Its step and minimum notional decide.

    Returns
    -------
    bool
        True below one step or below the minimum notional. Example: 0.00001 at 60,000, minimum 5 -> True.
    """
    if quantity < instrument.step_size:
        return True
    return bool(instrument.notional_min) and times(quantity, price) < instrument.notional_min


def fill_effect(fill: Fill, notional: Decimal | None = None) -> tuple[Decimal, Decimal]:
    """Return (change of base, change of cash) of a fill, its fee included.

    Parameters
    ----------
    fill : Fill
        As booked; a fee in base shrinks what a BUY brings, any other fee is paid by cash at its value.
    notional : Decimal, optional
        Its quantity times its price, where that is known already.

    Returns
    -------
    tuple of Decimal
        Signed, base units and quote. Example: SELL 1 at 100, fee 0.1 USDT -> (-1, +99.9).
    """
    if notional is None:
        notional = times(fill.quantity, fill.price)
    base, base_fee, cash_fee = fill.quantity, fill.fee, ZERO
    is_buy = fill.side is OrderSide.BUY
    if not base_fee or fill.fee_asset != split_symbol(fill.symbol)[0]:
        cash_fee = fill.fee_quote
    else:
        base = minus(base, base_fee) if is_buy else plus(base, base_fee)
    return (base, negate(plus(notional, cash_fee))) if is_buy else (negate(base), minus(notional, cash_fee))


def apply_fill(
    holding: Holding, fill: Fill, instrument: Instrument, effect: tuple[Decimal, Decimal] | None = None
) -> Holding:
    """Return the holding after one more fill.

    Parameters
    ----------
    holding : Holding
        Before the fill.
    fill : Fill
        Of the same symbol and owner.
    instrument : Instrument
        Decides when what is left of an entry is dust and the entry has ended.
    effect : tuple of Decimal, optional
        What `fill_effect` gives for the fill, where it is known already.

    Returns
    -------
    Holding
        A BUY opens an entry and moves the average; a SELL realises against the average and closes entries from the
        newest back.

    Raises
    ------
    AssertionError
        If a SELL exceeds what is held: spot positions never go below zero.

    Example: hold 1 at 100, SELL 1 at 110, fee 0.11 -> flat, realised +9.89.
    """
    base_change, cash_change = effect or fill_effect(fill)
    quantity = plus(holding.quantity, base_change)
    if quantity < ZERO:
        raise AssertionError(f"position {fill.instance}: a SELL of {fill.quantity} exceeds the {holding.quantity} held")
    fees = plus(holding.fees, fill.fee_quote)
    cash_flow = plus(holding.cash_flow, cash_change)
    if fill.side is OrderSide.BUY:
        cost = times(base_change, fill.price)
        if holding.quantity:
            cost = plus(cost, times(holding.quantity, holding.avg_entry_price))
        return Holding(
            quantity,
            ratio(cost, quantity) if quantity else ZERO,
            minus(holding.realized_pnl, fill.fee_quote),
            fees,
            (*holding.entries, base_change),
            cash_flow,
        )
    gain = minus(times(minus(fill.price, holding.avg_entry_price), fill.quantity), fill.fee_quote)
    return Holding(
        quantity,
        holding.avg_entry_price if quantity else ZERO,
        plus(holding.realized_pnl, gain),
        fees,
        _close_newest(holding.entries, fill.quantity, fill.price, instrument),
        cash_flow,
    )


def fold_fills(fills: Iterable[Fill], instrument: Instrument, start: Holding = FLAT) -> Holding:
    """Return the holding that a sequence of fills makes.

    Parameters
    ----------
    fills : iterable of Fill
        Of one owner and symbol, in booking order.
    instrument : Instrument
        As in `apply_fill`.
    start : Holding, optional
        What was held before.

    Returns
    -------
    Holding
        Depends on nothing but the arguments: a rebuild is equal to what was built step by step.

    Example: no fills -> flat.
    """
    holding = start
    for fill in fills:
        holding = apply_fill(holding, fill, instrument)
    return holding


def unrealized_pnl(holding: Holding, price: Decimal) -> Decimal:
    """Return what closing at `price` would add before fees, in quote.

    Parameters
    ----------
    holding : Holding
        Any.
    price : Decimal
        Mark, quote per base.

    Returns
    -------
    Decimal
        `(price - average) x quantity`. Example: hold 2 at 100, mark 103 -> 6.
    """
    return times(minus(price, holding.avg_entry_price), holding.quantity)


def _close_newest(
    entries: tuple[Decimal, ...], quantity: Decimal, price: Decimal, instrument: Instrument
) -> tuple[Decimal, ...]:
    left, remaining = quantity, list(entries)
    while remaining and left > ZERO:
        newest = remaining.pop()
        rest = minus(newest, left)
        left = minus(left, newest)
        if rest > ZERO and not is_dust(rest, price, instrument):
            remaining.append(rest)
    return tuple(remaining)

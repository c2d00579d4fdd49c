"""Strategies say when, sizing says how much."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from enum import StrEnum

import msgspec

from shared.domain.fees import FeeAsset, FeeSchedule
from shared.domain.rounding import (
    ONE,
    ZERO,
    Instrument,
    floor_to_step,
    minus,
    plus,
    ratio,
    sellable_quantity,
    times,
)


class SizingRule(StrEnum):
    """How an entry's quantity is found."""

    FIXED = "fixed"
    QUOTE = "quote"
    EQUITY_FRACTION = "equity_fraction"
    RISK = "risk"


class Sizing(msgspec.Struct, frozen=True):
    """A rule and its figure: quote money, a fraction of equity, or a percent of it lost at the stop; none for `fixed`."""

    rule: SizingRule
    amount: Decimal = ZERO

    def __str__(self) -> str:
        """Return the form that `parse_sizing` reads."""
        return self.rule.value if self.rule is SizingRule.FIXED else f"{self.rule.value}:{self.amount.normalize():f}"


def parse_sizing(text: str) -> Sizing:
    """Return the sizing written as `fixed`, `quote:N`, `equity_fraction:F` or `risk:P`.

    Parameters
    ----------
    text : str
        As a person writes it in an option or setting.

    Returns
    -------
    Sizing
        Amounts > 0; a fraction at most 1, a percent below 100.

    Raises
    ------
    ValueError
        Naming what was found and the four forms.

    Example: "equity_fraction:0.12" -> 12 % of the sub-account's equity an entry.
    """
    forms = "write fixed, quote:N, equity_fraction:F (0 < F <= 1) or risk:P (percent, 0 < P < 100)"
    name, _, figure = text.strip().partition(":")
    try:
        rule = SizingRule(name)
    except ValueError:
        raise ValueError(f"sizing {text!r} is unknown; {forms}") from None
    if rule is SizingRule.FIXED:
        if figure:
            raise ValueError(f"sizing {text!r}: fixed takes no figure; {forms}")
        return Sizing(rule)
    try:
        amount = Decimal(figure)
    except InvalidOperation:
        raise ValueError(f"sizing {text!r}: {figure!r} is no number; {forms}") from None
    bounds = {SizingRule.EQUITY_FRACTION: Decimal(1), SizingRule.RISK: Decimal("99.999999")}
    if not amount.is_finite() or amount <= 0 or amount > bounds.get(rule, amount):
        raise ValueError(f"sizing {text!r}: {figure} is out of range; {forms}")
    return Sizing(rule, amount)


def entry_quantity(
    sizing: Sizing,
    *,
    signal_quantity: Decimal,
    price: Decimal,
    equity: Decimal,
    stop_loss_pct: Decimal,
    step_size: Decimal,
) -> Decimal:
    """Return the base quantity of one entry, floored to the step.

    Parameters
    ----------
    sizing : Sizing
        Rule and figure.
    signal_quantity : Decimal
        The strategy's own `quantity`, base units; used by `fixed`.
    price : Decimal
        Decision price, quote per base, > 0.
    equity : Decimal
        The sub-account's equity at the decision, quote.
    stop_loss_pct : Decimal
        Distance of the stop in percent of the entry, > 0 where `risk` is used.
    step_size : Decimal
        Base units.

    Returns
    -------
    Decimal
        Multiple of the step, >= 0; 0 when equity is not positive.

    Raises
    ------
    ValueError
        If `risk` is used without a stop.

    Example: equity 1,000, equity_fraction 0.1, price 50, step 0.01 -> 2.00.
    """
    if sizing.rule is SizingRule.FIXED:
        return floor_to_step(signal_quantity, step_size)
    if sizing.rule is SizingRule.QUOTE:
        return floor_to_step(ratio(sizing.amount, price), step_size)
    if equity <= 0:
        return ZERO
    if sizing.rule is SizingRule.EQUITY_FRACTION:
        return floor_to_step(ratio(times(equity, sizing.amount), price), step_size)
    if stop_loss_pct <= 0:
        raise ValueError("sizing risk: needs a stop; set risk_stop_loss_pct (--stop-loss-pct) above 0")
    loss_per_base = times(price, stop_loss_pct / 100)
    return floor_to_step(ratio(times(equity, sizing.amount / 100), loss_per_base), step_size)


def smallest_passing_quantity(instrument: Instrument, price: Decimal) -> Decimal:
    """Return the least quantity that meets the step and the minimum notional at `price`.

    Parameters
    ----------
    instrument : Instrument
        The venue's rules.
    price : Decimal
        Quote per base, > 0.

    Returns
    -------
    Decimal
        Base units, a multiple of the step.

    Example: minimum notional 5, price 60,000, step 0.00001 -> 0.00009.
    """
    quantity = floor_to_step(ratio(instrument.notional_min, price), instrument.step_size)
    while times(quantity, price) < instrument.notional_min or quantity == 0:
        quantity = plus(quantity, instrument.step_size)
    return quantity


def affordable_quantity(cash: Decimal, *, price: Decimal, fees: FeeSchedule, step_size: Decimal) -> Decimal:
    """Return the most that cash buys at `price`, fee included: what a BUY is cut to where partial cash is allowed.

    Parameters
    ----------
    cash : Decimal
        The sub-account's own, quote; 0 or less buys nothing.
    price : Decimal
        Fill price of the uncut order, quote per base, > 0; a smaller order has no more slippage, so it is covered too.
    fees : FeeSchedule
        The taker's rate, taken from cash unless the fee asset is `received`.
    step_size : Decimal
        Base units.

    Returns
    -------
    Decimal
        The largest multiple q of the step with `q x price + fee <= cash`, each product rounded as it is booked. What
        a unit costs is itself rounded to 18 decimals: at 0.000005 a unit, some 20 million of them may be a few steps of
        1e-8 fewer than the largest, never more.

    Example: cash 100, price 30, fee 0, step 1 -> 3.
    """
    if cash <= 0:
        return ZERO
    rate = ZERO if fees.asset is FeeAsset.RECEIVED else fees.taker
    quantity = sellable_quantity(ratio(cash, times(price, plus(ONE, rate))), step_size)
    while quantity > 0 and plus(times(quantity, price), times(times(quantity, price), rate)) > cash:
        quantity = minus(quantity, step_size)  # once at most: what rounding had forgiven
    return quantity

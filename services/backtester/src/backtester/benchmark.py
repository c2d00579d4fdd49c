"""What doing nothing clever would have brought, at the same costs."""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from backtester.ratios import Marks
from shared.domain.rounding import ONE, ZERO, minus, plus, ratio, times

BPS = Decimal(10_000)


def hold_balance(
    initial_balance: Decimal,
    *,
    first_open: Decimal,
    last_close: Decimal,
    fee: Decimal = ZERO,
    slippage_bps: Decimal = ZERO,
    share: Decimal = ONE,
) -> Decimal:
    """Return the account value at the end of buying at the first open and holding.

    Parameters
    ----------
    initial_balance : Decimal
        Quote, > 0.
    first_open, last_close : Decimal
        Quote per base, > 0: where it is bought, plus slippage, and where it is marked at the end (not sold).
    fee : Decimal
        Fraction of the notional, paid from the same money.
    slippage_bps : Decimal
        Basis points of the price.
    share : Decimal
        0..1, the part of the balance that buys; the strategy's mean exposure makes the fair comparison.

    Returns
    -------
    Decimal
        Cash left plus holding at the last close, in quote.

    Example: 1,000 at 100 with fee 0.001, last close 110 -> 1,098.90...
    """
    spent = times(initial_balance, share)
    unit_cost = times(times(first_open, ONE + slippage_bps / BPS), ONE + fee)
    return plus(minus(initial_balance, spent), times(ratio(spent, unit_cost), last_close))


def mean_exposure(marks: Marks) -> float:
    """Return the mean share of the account that was in positions.

    Parameters
    ----------
    marks : Marks
        With position values.

    Returns
    -------
    float
        0..1 for an account that never borrows; 0 without marks. Marks of a lost account (<= 0) count 0.

    Example: 0 of 100, then 50 of 100 -> 0.25.
    """
    if marks.position_value is None or len(marks.position_value) == 0:
        return 0.0
    alive = marks.curve.value > 0
    shares = np.where(alive, marks.position_value / np.where(alive, marks.curve.value, 1.0), 0.0)
    return float(shares.mean())

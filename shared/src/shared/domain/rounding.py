"""The one bridge between numbers as they come and money as it is kept: 18 decimals, steps and ticks."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, InvalidOperation

import msgspec

MONEY_CONTEXT = Context(prec=80, rounding=ROUND_HALF_EVEN)
MONEY_QUANTUM = Decimal("1e-18")
ZERO = Decimal(0)
ONE = Decimal(1)
STEP_TOLERANCE = Decimal("1e-9")
# bound once: an order takes some forty of these
_multiply, _divide, _quantize = MONEY_CONTEXT.multiply, MONEY_CONTEXT.divide, MONEY_CONTEXT.quantize
plus = MONEY_CONTEXT.add
"""Return the exact sum of two amounts of money (80 digits hold it): 1e30 + 1e-18 keeps both ends."""
minus = MONEY_CONTEXT.subtract
"""Return the exact difference of two amounts of money (80 digits hold it): 1 - 1e-18 -> 0.999999999999999999."""
FREE_STEP = Decimal("1e-8")


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """What a venue demands of an order in one symbol: price tick, quantity step, smallest notional; 0 = none.

    `free` (no tick, step 1e-8, no minimum) is what a symbol without known rules trades under.
    """

    symbol: str
    tick_size: Decimal = ZERO
    step_size: Decimal = FREE_STEP
    notional_min: Decimal = ZERO

    def __post_init__(self) -> None:
        """Refuse rules that no order could meet."""
        if not (self.step_size > 0 and self.tick_size >= 0 and self.notional_min >= 0):
            raise ValueError(f"instrument {self.symbol}: step must be > 0, tick and minimum notional >= 0, was {self}")


def money(value: Decimal) -> Decimal:
    """Return `value` with 18 decimals, half to even.

    Parameters
    ----------
    value : Decimal
        Any finite amount, price or quantity.

    Returns
    -------
    Decimal
        Multiple of 1e-18. Uses nothing of the past; NaN and Infinity raise `decimal.InvalidOperation`.

    Example: 2/3 -> 0.666666666666666667.
    """
    if value.is_nan():
        raise InvalidOperation(f"money: {value} is no amount")
    return _quantize(value, MONEY_QUANTUM)


def times(left: Decimal, right: Decimal) -> Decimal:
    """Return the product as money, rounded once.

    Parameters
    ----------
    left, right : Decimal
        Finite; e.g. base quantity and quote-per-base price give quote.

    Returns
    -------
    Decimal
        `left x right` to 18 decimals, half to even. Example: 0.1 x 3 -> 0.3.
    """
    return _quantize(_multiply(left, right), MONEY_QUANTUM)


def ratio(left: Decimal, right: Decimal) -> Decimal:
    """Return the quotient as money, rounded once.

    Parameters
    ----------
    left, right : Decimal
        Finite, `right` not 0; e.g. quote by quote-per-base gives base.

    Returns
    -------
    Decimal
        `left / right` to 18 decimals, half to even. Example: 1 / 3 -> 0.333333333333333333.

    Raises
    ------
    decimal.DivisionByZero
        If `right` is 0.
    """
    return _quantize(_divide(left, right), MONEY_QUANTUM)


def negate(value: Decimal) -> Decimal:
    """Return `-value` with every digit; the bare minus sign would round to 28 digits.

    Example: 1e12 + 1e-18 -> -1000000000000.000000000000000001.
    """
    return value.copy_negate()


def floor_to_step(quantity: Decimal, step_size: Decimal) -> Decimal:
    """Return the largest multiple of the step that is not above `quantity`, a billionth of a step forgiven.

    Parameters
    ----------
    quantity : Decimal
        Base units, >= 0.
    step_size : Decimal
        Base units, > 0.

    Returns
    -------
    Decimal
        `floor(quantity / step + 1e-9) x step`: the same integer of steps in every engine, float64 ones included.

    Example: 0.0299999999999999 by 0.01 -> 0.03; 0.029 by 0.01 -> 0.02.
    """
    steps = plus(_divide(quantity, step_size), STEP_TOLERANCE)
    return _multiply(steps.to_integral_value(ROUND_FLOOR), step_size)


def sellable_quantity(held: Decimal, step_size: Decimal) -> Decimal:
    """Return the largest multiple of the step that what is held covers.

    Parameters
    ----------
    held : Decimal
        Base units, >= 0.
    step_size : Decimal
        Base units, > 0.

    Returns
    -------
    Decimal
        As `floor_to_step`, but never above `held`: what is not there cannot be sold.

    Example: 0.99999999999 by 1 -> 0 (an entry of that size would be forgiven the rest and be 1).
    """
    quantity = floor_to_step(held, step_size)
    return quantity if quantity <= held else minus(quantity, step_size)


def price_against_taker(price: Decimal, *, tick_size: Decimal, is_buy: bool) -> Decimal:
    """Return `price` on the tick grid, moved against whoever takes it: a buyer pays up, a seller gets less.

    Parameters
    ----------
    price : Decimal
        Quote per base, > 0.
    tick_size : Decimal
        Quote per base; 0 leaves the price alone.
    is_buy : bool
        Side of the taker.

    Returns
    -------
    Decimal
        A multiple of the tick (18 decimals when there is none).

    Example: 100.004 by 0.01 -> 100.01 for a buy, 100.00 for a sell.
    """
    if not tick_size:
        return money(price)
    ticks = MONEY_CONTEXT.divide(price, tick_size)
    whole = ticks.to_integral_value(ROUND_CEILING if is_buy else ROUND_FLOOR)
    return money(MONEY_CONTEXT.multiply(whole, tick_size))

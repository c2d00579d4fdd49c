"""Money in pairs of floats says what Decimal says, unit for unit."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtester.compiled import money
from backtester.compiled.encoding import amount_floats, to_amount, two_floats
from shared.domain import rounding
from shared.step_compiler import load_base

pytestmark = pytest.mark.thorough

AMOUNTS = st.decimals("0", "1000000", places=18, allow_nan=False)
FACTORS = st.decimals("0", "1000", places=18, allow_nan=False)  # products to the last unit up to a million
PRICES = st.one_of(
    st.decimals("0.00000001", "1000000", places=8, allow_nan=False).map(float),
    st.floats(1e-6, 1e7, allow_nan=False),
)
FUNCTIONS = (
    *(money.plus, money.minus, money.times, money.ratio, money.share, money.price_units),
    *(money.steps_of, money.sellable_steps, money.quantity_of),
)


@pytest.fixture(scope="module")
def machine() -> Any:
    """Give the functions as machine code, made before any of them is timed."""
    functions = load_base(FUNCTIONS)
    one = (1.0, 0.0)
    for name in ("plus", "minus", "times", "ratio", "share", "steps_of", "sellable_steps"):
        getattr(functions, name)(one, one)
    functions.quantity_of(1, one)
    functions.price_units(1.0)
    return functions


def exact(pair: tuple[float, float]) -> Decimal:
    return to_amount(np.array(pair))


@given(left=FACTORS, right=FACTORS)
def test_sums_and_products_are_decimal_s(machine: Any, left: Decimal, right: Decimal) -> None:
    pairs = amount_floats(left), amount_floats(right)
    same: tuple[tuple[Callable[..., Any], Callable[[Decimal, Decimal], Decimal]], ...] = (
        (machine.plus, rounding.plus),
        (machine.minus, rounding.minus),
        (machine.times, rounding.times),
    )
    for ours, decimal in same:
        assert exact(ours(*pairs)) == decimal(left, right)


@given(left=AMOUNTS, right=st.decimals("1", "1000000", places=18, allow_nan=False))
def test_quotients_are_decimal_s(machine: Any, left: Decimal, right: Decimal) -> None:
    assert exact(machine.ratio(amount_floats(left), amount_floats(right))) == rounding.ratio(left, right)


@given(amount=AMOUNTS, rate=st.decimals("0", "1", places=5, allow_nan=False))
def test_fees_round_half_to_even_as_decimal_does(machine: Any, amount: Decimal, rate: Decimal) -> None:
    assert exact(machine.share(amount_floats(amount), two_floats(rate))) == rounding.times(amount, rate)


@given(price=PRICES)
def test_a_price_is_the_decimal_that_it_is_written_as(machine: Any, price: float) -> None:
    high, low = machine.price_units(price)
    assert abs(Decimal(high) + Decimal(low) - Decimal(repr(price)) * 10**18) < Decimal("1e-6")


@given(
    quantity=st.decimals("0", "100000", places=18, allow_nan=False),
    step=st.sampled_from([Decimal(text) for text in ("0.00000001", "0.00001", "0.001", "1")]),
)
def test_steps_are_floored_as_decimal_does(machine: Any, quantity: Decimal, step: Decimal) -> None:
    pairs = amount_floats(quantity), amount_floats(step)
    assert machine.steps_of(*pairs) * step == rounding.floor_to_step(quantity, step)
    sellable = machine.sellable_steps(*pairs)
    assert sellable * step == rounding.sellable_quantity(quantity, step)
    assert exact(machine.quantity_of(sellable, pairs[1])) == sellable * step

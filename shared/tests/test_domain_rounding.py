from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.rounding import (
    FREE_STEP,
    MONEY_QUANTUM,
    Instrument,
    floor_to_step,
    minus,
    money,
    negate,
    plus,
    price_against_taker,
    ratio,
    sellable_quantity,
    times,
)
from shared.testing.examples import examples

D = Decimal
AMOUNTS = st.decimals(min_value=D("1e-18"), max_value=D("1e12"), places=18)
STEPS = st.sampled_from([D("1e-8"), D("1e-5"), D("0.001"), D("0.1"), D(1), D(100), D("0.5"), D("3e-6")])
calm = settings(deadline=None, max_examples=examples(150))


def exactly(value: Decimal) -> Fraction:
    return Fraction(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.0000000000000000005", "0"),
        ("0.0000000000000000015", "0.000000000000000002"),
        ("0.0000000000000000025", "0.000000000000000002"),
        ("-0.0000000000000000015", "-0.000000000000000002"),
        ("1e30", "1e30"),
    ],
)
def test_money_is_18_decimals_half_to_even(value: str, expected: str) -> None:
    assert money(D(value)) == D(expected)
    assert money(D(value)).as_tuple().exponent == -18


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_never_becomes_money(value: str) -> None:
    with pytest.raises(InvalidOperation):
        money(D(value))


@calm
@given(AMOUNTS, AMOUNTS)
def test_products_and_quotients_are_rounded_once_to_the_nearest(left: Decimal, right: Decimal) -> None:
    half = Fraction(MONEY_QUANTUM) / 2
    assert abs(exactly(times(left, right)) - exactly(left) * exactly(right)) <= half
    assert abs(exactly(ratio(left, right)) - exactly(left) / exactly(right)) <= half


@calm
@given(AMOUNTS, AMOUNTS)
def test_sums_and_signs_keep_every_digit(left: Decimal, right: Decimal) -> None:
    assert exactly(plus(left, right)) == exactly(left) + exactly(right)
    assert exactly(minus(left, right)) == exactly(left) - exactly(right)
    assert exactly(negate(left)) == -exactly(left)


def test_a_caller_with_a_coarse_decimal_context_changes_nothing() -> None:
    big, small = D("1e12"), D("1e-18")
    with localcontext() as context:
        context.prec = 6
        assert plus(big, small) == D("1000000000000.000000000000000001")
        assert negate(plus(big, small)) == D("-1000000000000.000000000000000001")
        assert times(D("123456789.123456789"), D(2)) == D("246913578.246913578")
        assert floor_to_step(D("123456789.129"), D("0.01")) == D("123456789.12")


@pytest.mark.parametrize(
    ("quantity", "step", "expected"),
    [
        ("0.029", "0.01", "0.02"),
        ("0.0299999999999999", "0.01", "0.03"),  # 2.99999999999999 steps, within a billionth of three
        ("0.02999999998", "0.01", "0.02"),  # 2.999999998 steps, two billionths short
        ("0.02999999999", "0.01", "0.03"),  # exactly a billionth short
        ("0", "0.01", "0"),
        ("1e12", "1e-8", "1e12"),
        ("7", "3", "6"),
    ],
)
def test_quantities_are_floored_to_the_step_a_billionth_of_it_forgiven(quantity: str, step: str, expected: str) -> None:
    assert floor_to_step(D(quantity), D(step)) == D(expected)


@calm
@given(AMOUNTS, STEPS)
def test_the_floor_is_the_formula_in_exact_numbers(quantity: Decimal, step: Decimal) -> None:
    steps = math.floor(exactly(quantity) / exactly(step) + Fraction(1, 10**9))
    assert exactly(floor_to_step(quantity, step)) == steps * exactly(step)


@calm
@given(st.integers(min_value=0, max_value=10**9), STEPS)
def test_whole_steps_stay_themselves_in_decimal_and_in_float(count: int, step: Decimal) -> None:
    quantity = step * count
    assert floor_to_step(quantity, step) == quantity
    if count < 10**6:  # a float64 engine must find the same integer of steps
        assert math.floor(float(quantity) / float(step) + 1e-9) == count


@calm
@given(AMOUNTS, STEPS)
def test_nothing_is_sold_that_is_not_there(held: Decimal, step: Decimal) -> None:
    quantity = sellable_quantity(held, step)
    assert 0 <= quantity <= held
    assert held - quantity < step * D("1.000000001")


def test_a_holding_a_hair_below_a_step_sells_one_step_less() -> None:
    assert floor_to_step(D("0.99999999999"), D(1)) == 1
    assert sellable_quantity(D("0.99999999999"), D(1)) == 0
    assert sellable_quantity(D("2.99999999999"), D(1)) == 2


@pytest.mark.parametrize(
    ("price", "tick", "is_buy", "expected"),
    [
        ("100.004", "0.01", True, "100.01"),
        ("100.004", "0.01", False, "100.00"),
        ("100.01", "0.01", True, "100.01"),
        ("100.01", "0.01", False, "100.01"),
        ("100.1234567890123456789", "0", True, "100.123456789012345679"),
        ("7", "2.5", True, "7.5"),
        ("7", "2.5", False, "5.0"),
    ],
)
def test_prices_land_on_the_tick_against_the_taker(price: str, tick: str, is_buy: bool, expected: str) -> None:
    assert price_against_taker(D(price), tick_size=D(tick), is_buy=is_buy) == D(expected)


@calm
@given(AMOUNTS, st.sampled_from([D("0.01"), D("1e-8"), D("0.5")]))
def test_a_tick_never_rounds_in_our_favour(price: Decimal, tick: Decimal) -> None:
    assert 0 <= price_against_taker(price, tick_size=tick, is_buy=True) - price < tick
    assert 0 <= price - price_against_taker(price, tick_size=tick, is_buy=False) < tick


def test_an_unknown_instrument_is_free() -> None:
    free = Instrument(symbol="NEW/USDT")
    assert (free.tick_size, free.step_size, free.notional_min) == (0, FREE_STEP, 0)
    assert D("1e-8") == FREE_STEP


@pytest.mark.parametrize(
    "wrong", [{"step_size": D(0)}, {"step_size": D(-1)}, {"tick_size": D(-1)}, {"notional_min": D(-1)}]
)
def test_instrument_rules_that_no_order_could_meet_are_refused_by_name(wrong: dict[str, Decimal]) -> None:
    with pytest.raises(ValueError, match="instrument BTC/USDT"):
        Instrument(symbol="BTC/USDT", **wrong)

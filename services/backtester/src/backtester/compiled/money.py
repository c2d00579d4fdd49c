"""Money in machine code: whole numbers of 1e-18, each held by two float64 that add up to it.

Two floats hold every whole number below 2^106, that is every amount below 8e13 to its last of 18 decimals, so what the
event engine works out with Decimal comes out the same here: a balance that covers a purchase to the last unit covers
it in both. Products, quotients and roundings follow `shared.domain.rounding`. Plain Python, taken by the generated
module into its machine code; an amount is a tuple (high, low) with |low| at most half of high's last place.
"""

from __future__ import annotations

import math

import numpy as np

from shared.step_compiler import multiply_add, seldom

UNIT = 1e18
INVERSE_HIGH, INVERSE_LOW = 1e-18, -7.154242405462193e-35  # together 10^-18
EXACT_POWER = 22  # 10^22 is the largest power of ten that is a float
WHOLE_MIN = 2.0**53  # from here on every float is a whole number
HALF_TOLERANCE = 1e-6  # what two floats may be off at a half; no decimal of fewer than 24 places lies nearer to one
STEP_TOLERANCE = 1e-9
SHORT_SCALE = 1e8
SHORT_MAX = 1e15  # below it no two decimals share a float, so the one found is the one that was written
SHORT_TO_UNIT = 1e10
STEPS_MAX = 9.2e18

type Money = tuple[float, float]


def two_sum(left: float, right: float) -> Money:
    """Return the sum and what rounding took from it (Knuth)."""
    total = left + right
    part = total - left
    return total, (left - (total - part)) + (right - part)


def quick_sum(left: float, right: float) -> Money:
    """Return the same for |left| >= |right| (Dekker)."""
    total = left + right
    return total, right - (total - left)


def two_product(left: float, right: float) -> Money:
    """Return the product and what rounding took from it."""
    product = left * right
    return product, multiply_add(left, right, -product)


def plus(left: Money, right: Money) -> Money:
    """Return the sum; exact for whole numbers below 2^105."""
    high, error = two_sum(left[0], right[0])
    low, rest = two_sum(left[1], right[1])
    high, error = quick_sum(high, error + low)
    return quick_sum(high, error + rest)


def minus(left: Money, right: Money) -> Money:
    """Return the difference; exact for whole numbers below 2^105."""
    return plus(left, (-right[0], -right[1]))


def product(left: Money, right: Money) -> Money:
    """Return the product, not rounded to whole units; off by less than 2^-102 of it."""
    high, error = two_product(left[0], right[0])
    return quick_sum(high, error + (left[0] * right[1] + left[1] * right[0]))


def quotient(left: Money, right: Money) -> Money:
    """Return the quotient, not rounded to whole units; off by less than 2^-100 of it."""
    first = left[0] / right[0]
    rest = minus(left, product(right, (first, 0.0)))
    second = rest[0] / right[0]
    rest = minus(rest, product(right, (second, 0.0)))
    high, low = quick_sum(first, second)
    return plus((high, low), (rest[0] / right[0], 0.0))


def is_less(left: Money, right: Money) -> bool:
    """Return whether left < right."""
    return left[0] < right[0] or (left[0] == right[0] and left[1] < right[1])


def floor(value: Money) -> Money:
    """Return the largest whole number that is not above `value`."""
    high = np.floor(value[0])
    if high != value[0]:
        return high, 0.0
    return quick_sum(high, np.floor(value[1]))


def whole(value: Money) -> Money:
    """Return the nearest whole number, half to even."""
    high, low = value
    if seldom(abs(high) < WHOLE_MIN):
        return small_whole(value)
    nearest = np.rint(low)
    if seldom(abs(abs(low - nearest) - 0.5) <= HALF_TOLERANCE):
        nearest = np.floor(low)
        nearest += is_odd(high) != is_odd(nearest)
    return quick_sum(high, nearest)


def small_whole(value: Money) -> Money:
    """Return the same for a number whose first float may have decimals."""
    high = np.floor(value[0])
    low = 0.0
    part = (value[0] - high) + value[1]
    if high == value[0]:
        low = np.floor(value[1])
        part = value[1] - low
    if part > 0.5 + HALF_TOLERANCE or (part >= 0.5 - HALF_TOLERANCE and is_odd(high) != is_odd(low)):
        low += 1.0
    return two_sum(high, low)


def is_odd(value: float) -> bool:
    """Return whether a whole number is odd."""
    half = 0.5 * value
    return bool(half != np.floor(half))


def times(left: Money, right: Money) -> Money:
    """Return the product of two amounts, rounded once: quantity x price."""
    return whole(product(product(left, right), (INVERSE_HIGH, INVERSE_LOW)))


def share(amount: Money, factor: Money) -> Money:
    """Return an amount times a plain number (not one in units), rounded once: fees, slippage, percentages."""
    return whole(product(amount, factor))


def ratio(left: Money, right: Money) -> Money:
    """Return the quotient of two amounts as an amount, rounded once."""
    return whole(product(quotient(left, right), (UNIT, 0.0)))


def square_root(amount: Money) -> Money:
    """Return the root of an amount as an amount, rounded once."""
    if amount[0] <= 0.0:
        return 0.0, 0.0
    scaled = product(amount, (UNIT, 0.0))
    guess = scaled[0] ** 0.5
    rest = minus(scaled, two_product(guess, guess))
    return whole(quick_sum(guess, rest[0] / (2.0 * guess)))


def price_units(price: float) -> Money:
    """Return the decimal number that a float is written as (the shortest that reads back as it), in units."""
    digits = np.floor(price * SHORT_SCALE + 0.5)
    if digits < SHORT_MAX and digits / SHORT_SCALE == price:
        return two_product(digits, SHORT_TO_UNIT)
    return long_price_units(price)


def long_price_units(price: float) -> Money:
    """Return the same for a number of many digits, not always whole units: 15, 16, then 17 digits are tried."""
    if price <= 0.0:
        return 0.0, 0.0
    magnitude = int(np.floor(math.log10(price)))
    found = (price, 0.0)
    for digits in (15, 16, 17):
        places = digits - 1 - magnitude
        scaled = product((price, 0.0), power_of_ten(places))
        number = whole(scaled)
        found = product(number, power_of_ten(18 - places))
        if product(number, power_of_ten(-places))[0] == price:
            break
    return found


def power_of_ten(exponent: int) -> Money:
    """Return 10^exponent by two floats, exactly from 0 to 44."""
    places = abs(exponent)
    first = 1.0
    for _ in range(min(places, EXACT_POWER)):
        first *= 10.0
    second = 1.0
    for _ in range(places - EXACT_POWER):
        second *= 10.0
    power = two_product(first, second)
    if exponent >= 0:
        return power
    return quotient((1.0, 0.0), power)


def steps_of(quantity: Money, step: Money) -> int:
    """Return how many whole steps a quantity is, a billionth of one forgiven; -1 for more than int64 counts."""
    count = floor(plus(quotient(quantity, step), (STEP_TOLERANCE, 0.0)))
    if count[0] >= STEPS_MAX:
        return -1
    return int(count[0]) + int(count[1])


def quantity_of(steps: int, step: Money) -> Money:
    """Return the quantity of so many steps."""
    high = float(steps)
    if -SHORT_MAX < high < SHORT_MAX:
        return whole(product(step, (high, 0.0)))
    low = float(steps - int(high))
    return whole(product(step, two_sum(high, low)))


def sellable_steps(held: Money, step: Money) -> int:
    """Return how many whole steps what is held covers; -1 for more than int64 counts."""
    steps = steps_of(held, step)
    if steps > 0 and is_less(held, quantity_of(steps, step)):
        return steps - 1
    return steps

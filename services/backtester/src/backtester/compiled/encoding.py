"""Writes the options of a run into the record that the loop reads: each amount as the two floats next to it."""

from __future__ import annotations

from datetime import timedelta
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from backtester.compiled.account import ROUNDING
from backtester.compiled.layout import BOOK, EQUITY_FRACTION, FIXED, LEDGER, QUOTE, RISK, RULES
from shared.domain.book import BookRules, InstanceRules
from shared.domain.fees import FeeAsset
from shared.domain.matching import BPS, stop_price
from shared.domain.rounding import MONEY_CONTEXT, ONE, ZERO, floor_to_step
from shared.domain.sizing import SizingRule
from shared.domain.slippage import VOLUME_WINDOW, ImpactModel
from shared.models import TIMEFRAME_SECONDS

ALL_DIGITS = Context(prec=2000, Emax=MAX_EMAX, Emin=MIN_EMIN)  # no float has more than 767
STEPS_MAX = 2**63 - 1
SIZING_NUMBERS = {
    SizingRule.FIXED: FIXED,
    SizingRule.QUOTE: QUOTE,
    SizingRule.EQUITY_FRACTION: EQUITY_FRACTION,
    SizingRule.RISK: RISK,
}
MILLISECOND = timedelta(milliseconds=1)


class StepsOverflowError(ArithmeticError):
    """A quantity is more steps of the instrument than int64 counts; the event engine has no such bound."""


def two_floats(value: Decimal | int) -> tuple[float, float]:
    """Return the float next to `value` and the float next to what is left."""
    exact = Decimal(value)
    high = float(exact)
    return high, float(ALL_DIGITS.subtract(exact, Decimal(high)))


def amount_floats(amount: Decimal) -> tuple[float, float]:
    """Return an amount of money, price or quantity in units of 1e-18."""
    return two_floats(ALL_DIGITS.scaleb(amount, 18))


def to_amount(floats: npt.NDArray[np.float64]) -> Decimal:
    """Return the amount that two floats hold, with 18 decimals."""
    return MONEY_CONTEXT.scaleb(Decimal(int(floats[0]) + int(floats[1])), -18)  # 28 digits do not hold every amount


def to_amounts(floats: npt.NDArray[np.float64]) -> list[Decimal]:
    """Return the amounts that rows of two floats hold, with 18 decimals."""
    highs, lows = floats[:, 0].tolist(), floats[:, 1].tolist()
    return [MONEY_CONTEXT.scaleb(Decimal(int(high) + int(low)), -18) for high, low in zip(highs, lows, strict=True)]


def encode_rules(
    book: BookRules,
    instance: InstanceRules,
    signal_quantity: Decimal,
    timeframe: str,
    *,
    balance: Decimal,
    is_close: bool,
) -> npt.NDArray[np.void]:
    """Return the one-element array of rules for a run.

    Raises
    ------
    StepsOverflowError
        If a fixed quantity is more steps than int64 counts.
    """
    instrument, slippage = instance.instrument, book.slippage_bps / BPS
    impact = book.impact or ImpactModel()
    anchor = stop_price(ONE, instance.stop_loss_pct, instance.stop_anchor_price) if instance.stop_anchor_price else None
    sizing = instance.sizing
    amount = {SizingRule.QUOTE: ALL_DIGITS.scaleb(sizing.amount, 18), SizingRule.RISK: sizing.amount / 100}
    values: dict[str, Any] = {
        "taker": two_floats(book.fees.taker),
        "maker": two_floats(book.fees.maker),
        "unit_cost": two_floats(ONE if book.fees.asset is FeeAsset.RECEIVED else ONE + book.fees.taker),
        "half_spread": amount_floats(impact.half_spread_bps),
        "impact": amount_floats(impact.impact_bps),
        "slip_buy": two_floats(ONE + slippage),
        "slip_sell": two_floats(ONE - slippage),
        "tick": amount_floats(instrument.tick_size),
        "step": amount_floats(instrument.step_size),
        "notional_min": amount_floats(instrument.notional_min),
        "amount": two_floats(amount.get(sizing.rule, sizing.amount)),
        "signal_quantity": amount_floats(signal_quantity),
        "stop_keep": two_floats(ONE - instance.stop_loss_pct / 100),
        "stop_share": two_floats(instance.stop_loss_pct / 100),
        "anchor_stop": amount_floats(anchor or ZERO),
        "target_rise": two_floats(ONE + instance.take_profit_pct / 100),
        "trailing_keep": two_floats(ONE - instance.trailing_pct / 100),
        "balance": float(balance),
        "step_size": float(instrument.step_size),
        "sizing_amount": float(sizing.amount / 100 if sizing.rule is SizingRule.RISK else sizing.amount),
        "signal_steps": _steps_of(signal_quantity, instrument.step_size),
        "sizing": SIZING_NUMBERS[sizing.rule],
        "max_entries": instance.max_entries,
        "timeframe_ms": TIMEFRAME_SECONDS[timeframe] * 1000,
        "age_max_ms": instance.age_max // MILLISECOND,
        "cooldown_ms": instance.stop_cooldown_candles * TIMEFRAME_SECONDS[timeframe] * 1000,
        "has_anchor": anchor is not None,
        "is_close": is_close,
        **_switches(book, instance),
    }
    rules = np.zeros(1, dtype=RULES)
    for name, value in values.items():
        rules[name] = value
    return rules


def _steps_of(quantity: Decimal, step_size: Decimal) -> int:
    steps = int(floor_to_step(quantity, step_size) / step_size)
    if steps > STEPS_MAX:
        raise StepsOverflowError(f"a quantity of {quantity}, more steps of {step_size} than are counted")
    return steps


def _switches(book: BookRules, instance: InstanceRules) -> dict[str, bool]:
    """Return which rules are on."""
    return {
        "has_impact": book.impact is not None,
        "is_partial": book.partial_cash,
        "is_received": book.fees.asset is FeeAsset.RECEIVED,
        "is_gap_refused": book.gap_refuses,
        "has_stop": instance.stop_loss_pct > 0,
        "has_target": instance.take_profit_pct > 0,
        "has_trailing": instance.trailing_pct > 0,
    }


def opening_account(cash: Decimal) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
    """Return the one-element arrays of book and ledger of a sub-account that has only cash."""
    book, ledger = np.zeros(1, dtype=BOOK), np.zeros(1, dtype=LEDGER)
    book["cash"], ledger["cash"] = float(cash), amount_floats(cash)
    book["doubt"] = ROUNDING * float(cash)
    book["cooldown_until"] = np.iinfo(np.int64).min
    return book, ledger


def remember_volumes(book: npt.NDArray[np.void], volumes: npt.NDArray[np.float64]) -> None:
    """Show the account the volumes of history, of which it keeps the last few."""
    last = volumes[-VOLUME_WINDOW:]
    book["recent"][0, : len(last)] = last
    book["recent_seen"] = len(last)

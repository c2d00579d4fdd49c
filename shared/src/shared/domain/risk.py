"""Account limits on orders that increase risk; orders that reduce it are never asked here."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec

from shared.domain.rounding import ONE, ZERO, minus, negate, plus, times


class ControlState(StrEnum):
    """How much the account may do: everything, only reduce, nothing but protective stops, or close everything."""

    ACTIVE = "ACTIVE"
    REDUCE_ONLY = "REDUCE_ONLY"
    HALT = "HALT"
    FLATTEN = "FLATTEN"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Account limits; fractions of equity, percents where the name says so. Off: 1 for the size, 0 for the others."""

    position_size_max: Decimal = Decimal("0.1")
    gross_exposure_max: Decimal = ONE
    daily_loss_pct_max: Decimal = Decimal(10)
    drawdown_pct_max: Decimal = Decimal(20)
    order_rate_max: int = 30
    notional_per_hour_max: Decimal = ZERO


class Refusal(msgspec.Struct, frozen=True):
    """Our own no: a short reason for counting, a sentence with the numbers for a person."""

    reason: str
    detail: str


class IncreaseFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the limits look at before an increasing order; quote money unless said. None = unknown, which refuses.

    `symbol_quantity` is what all strategies hold plus their working buys (base), `gross_exposure` the same over all
    symbols at their marks, both without this order. `day_flows` is what came from outside since `day_base`.
    """

    symbol: str
    price: Decimal
    quantity: Decimal
    equity: Decimal | None
    symbol_quantity: Decimal
    gross_exposure: Decimal | None
    day_base: Decimal
    equity_peak: Decimal
    orders_last_minute: int
    notional_last_hour: Decimal
    day_flows: Decimal = ZERO


def is_daily_loss_breached(limits: Limits, *, equity: Decimal, day_base: Decimal) -> bool:
    """Return whether the day's loss has reached its limit.

    Parameters
    ----------
    limits : Limits
        `daily_loss_pct_max` in percent, 0 = off.
    equity : Decimal
        Now, less the day's external flows.
    day_base : Decimal
        Equity at 00:00 UTC of business time (the first day: the opening balance).

    Returns
    -------
    bool
        True at or below `-limit % of day_base`. Example: base 1,000, equity 900, 10 % -> True.
    """
    if limits.daily_loss_pct_max <= 0:
        return False
    return minus(equity, day_base) <= negate(times(day_base, limits.daily_loss_pct_max / 100))


def is_drawdown_breached(limits: Limits, *, equity: Decimal, equity_peak: Decimal) -> bool:
    """Return whether equity has fallen from its peak by the limit.

    Parameters
    ----------
    limits : Limits
        `drawdown_pct_max` in percent, 0 = off.
    equity, equity_peak : Decimal
        Now, and the highest so far.

    Returns
    -------
    bool
        True at or below the limit. Example: peak 1,000, equity 800, 20 % -> True.
    """
    if limits.drawdown_pct_max <= 0:
        return False
    return minus(equity, equity_peak) <= negate(times(equity_peak, limits.drawdown_pct_max / 100))


def check_increase(limits: Limits, figures: IncreaseFigures) -> Refusal | None:
    """Return why an increasing order is refused, or None when every limit allows it.

    Parameters
    ----------
    limits : Limits
        Those in force.
    figures : IncreaseFigures
        The account as it would be asked to grow.

    Returns
    -------
    Refusal or None
        The first that binds of: unknown_figure, daily_loss, drawdown, position_size, gross_exposure, order_rate,
        notional_rate.

    Example: equity 1,000, size 0.1, BUY worth 150 -> position_size.
    """
    equity, gross = figures.equity, figures.gross_exposure
    if equity is None or gross is None:
        return Refusal(
            "unknown_figure", f"{figures.symbol}: equity is unknown (a held symbol has no mark); no new risk"
        )
    if is_daily_loss_breached(limits, equity=minus(equity, figures.day_flows), day_base=figures.day_base):
        return Refusal(
            "daily_loss",
            f"equity {equity:f} is {limits.daily_loss_pct_max} % or more below the day's {figures.day_base:f}",
        )
    if is_drawdown_breached(limits, equity=equity, equity_peak=figures.equity_peak):
        return Refusal(
            "drawdown",
            f"equity {equity:f} is {limits.drawdown_pct_max} % or more below its peak {figures.equity_peak:f}",
        )
    return _check_exposure(limits, figures, equity, gross) or _check_rates(limits, figures)


def _check_exposure(limits: Limits, figures: IncreaseFigures, equity: Decimal, gross: Decimal) -> Refusal | None:
    notional = times(figures.quantity, figures.price)
    exposure = times(plus(figures.symbol_quantity, figures.quantity), figures.price)
    if limits.position_size_max < ONE and exposure > times(limits.position_size_max, equity):
        return Refusal(
            "position_size",
            f"{figures.symbol} would be {exposure:.2f} of {equity:.2f} equity, at most {limits.position_size_max} of it allowed",
        )
    if limits.gross_exposure_max > 0 and plus(gross, notional) > times(limits.gross_exposure_max, equity):
        return Refusal(
            "gross_exposure",
            f"all positions would be {plus(gross, notional):.2f} of {equity:.2f} equity, at most {limits.gross_exposure_max} of it allowed",
        )
    return None


def _check_rates(limits: Limits, figures: IncreaseFigures) -> Refusal | None:
    if limits.order_rate_max > 0 and figures.orders_last_minute >= limits.order_rate_max:
        return Refusal(
            "order_rate",
            f"{figures.orders_last_minute} increasing orders in the last minute, at most {limits.order_rate_max}",
        )
    notional = plus(figures.notional_last_hour, times(figures.quantity, figures.price))
    if limits.notional_per_hour_max > 0 and notional > limits.notional_per_hour_max:
        return Refusal(
            "notional_rate",
            f"{notional:.2f} bought in the last hour with this order, at most {limits.notional_per_hour_max}",
        )
    return None

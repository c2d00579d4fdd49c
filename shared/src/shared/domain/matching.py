"""Where a simulated order meets a candle: next open, close, stops, targets, slippage and the gap rule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from shared.domain.rounding import ONE, ZERO, Instrument, price_against_taker, times
from shared.models import TIMEFRAME_DELTA, Candle, OrderSide

BPS = Decimal(10_000)
SIGNAL_AGE_FLOOR = timedelta(minutes=5)


TAKE_PROFIT = "take_profit"


class ExitHit(msgspec.Struct, frozen=True):
    """A protective order that a candle triggered: the price before slippage and why.

    `is_contested`: the candle reached a stop and the target. `is_resolved`: finer candles said which came first.
    """

    price: Decimal
    purpose: str
    at_open: bool
    is_contested: bool = False
    is_resolved: bool = False


def fill_price(price: Decimal, *, side: OrderSide, slippage_bps: Decimal, instrument: Instrument) -> Decimal:
    """Return what a market order pays or gets at a market price.

    Parameters
    ----------
    price : Decimal
        Market price, quote per base, > 0.
    side : OrderSide
        BUY pays `price x (1 + slippage)`, SELL gets `price x (1 - slippage)`.
    slippage_bps : Decimal
        Basis points of the price, >= 0.
    instrument : Instrument
        Its tick rounds the price against us.

    Returns
    -------
    Decimal
        Quote per base, 18 decimals.

    Example: BUY at 100 with 2 bps -> 100.02.
    """
    is_buy = side is OrderSide.BUY
    slipped = times(price, ONE + slippage_bps / BPS if is_buy else ONE - slippage_bps / BPS) if slippage_bps else price
    return price_against_taker(slipped, tick_size=instrument.tick_size, is_buy=is_buy)


def signal_age_max(timeframe: str, setting: timedelta | None = None) -> timedelta:
    """Return how long after its candle's close a signal may still open a position.

    Parameters
    ----------
    timeframe : str
        Of the signal's candle.
    setting : timedelta, optional
        What a person set; wins.

    Returns
    -------
    timedelta
        max(2 timeframes, 5 minutes) without a setting. Example: 1m -> 5 min, 1h -> 2 h.
    """
    if setting is not None:
        return setting
    return max(2 * TIMEFRAME_DELTA[timeframe], SIGNAL_AGE_FLOOR)


def is_late(signal_time: datetime, open_time: datetime, age_max: timedelta) -> bool:
    """Return whether the next open came too late after the signal's close (the gap rule).

    Parameters
    ----------
    signal_time : datetime
        Close of the candle that caused the order.
    open_time : datetime
        Open of the next candle that exists.
    age_max : timedelta
        As `signal_age_max` gives it.

    Returns
    -------
    bool
        True means: an increasing order is refused `gap`, a reducing one fills and is marked late.

    Example: closes 00:01, next open 00:07, 5 min -> True.
    """
    return open_time - signal_time > age_max


def stop_price(avg_entry_price: Decimal, stop_loss_pct: Decimal, anchor_price: Decimal | None = None) -> Decimal | None:
    """Return the protective stop of a position, or None without one.

    Parameters
    ----------
    avg_entry_price : Decimal
        Average entry of the strategy's position, quote per base, > 0.
    stop_loss_pct : Decimal
        Percent below; 0 = no stop.
    anchor_price : Decimal, optional
        What the percentage is taken from instead (a grid's lower price).

    Returns
    -------
    Decimal or None
        Quote per base, below the base price.

    Example: 100 and 5 % -> 95.
    """
    if stop_loss_pct <= 0:
        return None
    return times(avg_entry_price if anchor_price is None else anchor_price, ONE - stop_loss_pct / 100)


def match_exits(
    candle: Candle,
    *,
    stop: Decimal | None,
    trailing_stop: Decimal | None,
    target: Decimal | None,
    detail: Sequence[Candle] = (),
) -> ExitHit | None:
    """Return the protective order that this candle triggers, the worst for us when several would.

    Parameters
    ----------
    candle : Candle
        The entry candle counts too.
    stop, trailing_stop, target : Decimal or None
        Prices, quote per base; None = not armed.
    detail : sequence of Candle
        The finer candles that this one is made of, oldest first; looked at only when a stop and the target are both
        reached. They decide which one it was, never the price.

    Returns
    -------
    ExitHit or None
        A stop (the higher of the two) is hit when `low <= stop` and sells at min(stop, open); a target when
        `high >= target` and sells at max(target, open); both in one candle: the stop, unless `detail` shows the
        target reached in an earlier finer candle than the stop.

    Example: open 100, low 94, stop 95 -> 95; open 93 -> 93.
    """
    level, purpose = stop, "stop_loss"
    if trailing_stop is not None and (level is None or trailing_stop > level):
        level, purpose = trailing_stop, "trailing_stop"
    is_stopped = level is not None and candle.low <= level
    is_reached = target is not None and candle.high >= target
    if not is_reached:
        return _stop_hit(candle, level, purpose) if level is not None and is_stopped else None
    assert target is not None
    taken = ExitHit(max(target, candle.open), TAKE_PROFIT, candle.open >= target)
    if level is None or not is_stopped:
        return taken
    first = first_reached(detail, level=level, target=target)
    hit = taken if first == TAKE_PROFIT else _stop_hit(candle, level, purpose)
    return msgspec.structs.replace(hit, is_contested=True, is_resolved=first is not None)


def _stop_hit(candle: Candle, level: Decimal, purpose: str) -> ExitHit:
    return ExitHit(min(level, candle.open), purpose, candle.open <= level)


def first_reached(detail: Sequence[Candle], *, level: Decimal, target: Decimal) -> str | None:
    """Return which of two prices finer candles show to have been reached first.

    Parameters
    ----------
    detail : sequence of Candle
        Oldest first.
    level, target : Decimal
        A stop below and a take-profit above, quote per base.

    Returns
    -------
    str or None
        "stop_loss" or "take_profit" of the first candle that reaches exactly one of them; None when that candle
        reaches both, or none does.

    Example: lows 99, 94 and highs 111, 100 with 95 and 110 -> take_profit.
    """
    for candle in detail:
        is_stopped, is_reached = candle.low <= level, candle.high >= target
        if is_stopped or is_reached:
            return None if is_stopped and is_reached else "stop_loss" if is_stopped else TAKE_PROFIT
    return None


def trailing_price(high_water_price: Decimal, trailing_pct: Decimal) -> Decimal | None:
    """Return the trailing stop below the highest price seen in earlier candles since the entry.

    Parameters
    ----------
    high_water_price : Decimal
        Highest of the entry price and the highs of the candles before this one; 0 when flat.
    trailing_pct : Decimal
        Percent below; 0 = none.

    Returns
    -------
    Decimal or None
        Quote per base. Example: 110 and 10 % -> 99.
    """
    if trailing_pct <= 0 or high_water_price <= ZERO:
        return None
    return times(high_water_price, ONE - trailing_pct / 100)

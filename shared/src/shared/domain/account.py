"""The account's own figures over business time: day base, equity peak, automatic REDUCE_ONLY, order rates."""

from __future__ import annotations

from collections import deque
from datetime import date, datetime, time, timedelta
from decimal import Decimal

import msgspec

from shared.domain.risk import ControlState, Limits, Refusal, is_daily_loss_breached, is_drawdown_breached
from shared.domain.rounding import ZERO, minus, plus

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
_MIDNIGHT = time(0)


class AccountFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What must survive a restart beside positions: marked equity, the day's base, the peak, the automatic state."""

    equity: Decimal
    equity_peak: Decimal
    day: date | None = None
    day_base: Decimal = ZERO
    day_flows: Decimal = ZERO
    state: ControlState = ControlState.ACTIVE
    state_reason: str = ""

    @property
    def day_pnl(self) -> Decimal:
        """Return equity now less equity at the day's start less external flows."""
        return minus(minus(self.equity, self.day_base), self.day_flows)


def opening_figures(balance: Decimal) -> AccountFigures:
    """Return the figures of an account that has only its opening balance.

    Parameters
    ----------
    balance : Decimal
        Quote money, >= 0.

    Returns
    -------
    AccountFigures
        Base, peak and equity are the balance. Example: 10,000 -> day PnL 0.
    """
    return AccountFigures(equity=balance, equity_peak=balance, day_base=balance)


def mark_account(figures: AccountFigures, as_of: datetime, equity: Decimal, limits: Limits | None) -> AccountFigures:
    """Return the figures after every position was marked at `as_of`.

    Parameters
    ----------
    figures : AccountFigures
        Before.
    as_of : datetime
        Business time; 00:00 UTC starts the new day with the equity marked at it, a later first mark with the equity
        carried from before.
    equity : Decimal
        Cash and positions at their marks, quote.
    limits : Limits or None
        None: no account limit is in force.

    Returns
    -------
    AccountFigures
        A daily loss lets only reducing orders pass until the next day, a drawdown until a person resumes.

    Example: base 1,000, equity 890, limit 10 % -> REDUCE_ONLY daily_loss.
    """
    day, base, flows = figures.day, figures.day_base, figures.day_flows
    state, reason = figures.state, figures.state_reason
    today = as_of.date()
    if day is None or today > day:  # a late candle of yesterday does not bring yesterday back
        if day is not None:
            base = equity if as_of.timetz().replace(tzinfo=None) == _MIDNIGHT else figures.equity
            flows = ZERO
        day = today
        if reason == "daily_loss":
            state, reason = ControlState.ACTIVE, ""
    peak = max(figures.equity_peak, equity)
    if limits is not None and reason != "drawdown":
        if is_drawdown_breached(limits, equity=equity, equity_peak=peak):
            state, reason = ControlState.REDUCE_ONLY, "drawdown"
        elif not reason and is_daily_loss_breached(limits, equity=minus(equity, flows), day_base=base):
            state, reason = ControlState.REDUCE_ONLY, "daily_loss"
    return AccountFigures(
        equity=equity, equity_peak=peak, day=day, day_base=base, day_flows=flows, state=state, state_reason=reason
    )


def check_state(control: ControlState, figures: AccountFigures) -> Refusal | None:
    """Return why no new risk is taken at all, or None.

    Parameters
    ----------
    control : ControlState
        What a person (or lost truth) ordered.
    figures : AccountFigures
        Its automatic state.

    Returns
    -------
    Refusal or None
        halted, reduce_only, daily_loss or drawdown. Example: HALT -> halted.
    """
    if control is ControlState.HALT:
        return Refusal("halted", "the kill switch is at HALT; a person must resume")
    if control is not ControlState.ACTIVE:
        return Refusal("reduce_only", f"the kill switch is at {control}; only reducing orders pass")
    if figures.state is not ControlState.ACTIVE:
        return Refusal(figures.state_reason, f"REDUCE_ONLY after {figures.state_reason}; day PnL {figures.day_pnl:.2f}")
    return None


class OrderRates:
    """Increasing orders of the last minute and hour of business time; bounded by what an hour holds."""

    def __init__(self) -> None:
        self._orders: deque[tuple[datetime, Decimal]] = deque()
        self._notional = ZERO

    def record(self, as_of: datetime, notional: Decimal) -> None:
        """Count one increasing order and forget those older than an hour."""
        self._orders.append((as_of, notional))
        self._notional = plus(self._notional, notional)
        self._forget_before(as_of - HOUR)

    def last_minute(self, as_of: datetime) -> int:
        """Return the number of orders in (as_of - 1 minute, as_of]."""
        count = 0
        for moment, _ in reversed(self._orders):
            if moment <= as_of - MINUTE:
                break
            count += 1
        return count

    def last_hour_notional(self, as_of: datetime) -> Decimal:
        """Return the notional of orders in (as_of - 1 hour, as_of]; older ones are forgotten."""
        self._forget_before(as_of - HOUR)
        return self._notional

    def _forget_before(self, moment: datetime) -> None:
        while self._orders and self._orders[0][0] <= moment:
            self._notional = minus(self._notional, self._orders.popleft()[1])

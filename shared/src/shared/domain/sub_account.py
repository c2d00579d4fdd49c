"""One instance's own account: its rules, its cash, its holding, its working orders and protective prices."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from shared.domain.fees import FeeSchedule
from shared.domain.matching import stop_price, trailing_price
from shared.domain.positions import FLAT, Holding
from shared.domain.risk import Limits
from shared.domain.rounding import ONE, ZERO, Instrument, minus, plus, ratio, times
from shared.domain.sizing import Sizing, SizingRule
from shared.domain.slippage import ImpactModel
from shared.models import InstanceKey, Order, OrderSide


class InstanceRules(msgspec.Struct, frozen=True, kw_only=True):
    """How one strategy instance trades; percents are of the average entry, 0 = off. `max_entries` 0 = unlimited."""

    instrument: Instrument
    age_max: timedelta
    sizing: Sizing = Sizing(SizingRule.FIXED)
    max_entries: int = 1
    stop_loss_pct: Decimal = ZERO
    stop_anchor_price: Decimal | None = None
    take_profit_pct: Decimal = ZERO
    trailing_pct: Decimal = ZERO
    stop_cooldown_candles: int = 1

    @property
    def has_exits(self) -> bool:
        """Return whether any protective order is ever armed."""
        return self.stop_loss_pct > ZERO or self.take_profit_pct > ZERO or self.trailing_pct > ZERO

    def stop_distance_pct(self, price: Decimal) -> Decimal:
        """Return how far below `price` an entry's stop would be, in percent of it; 0 without a stop."""
        stop = stop_price(price, self.stop_loss_pct, self.stop_anchor_price)
        if stop is None or self.stop_anchor_price is None:
            return self.stop_loss_pct
        return ratio(times(minus(price, stop), Decimal(100)), price)


class BookRules(msgspec.Struct, frozen=True, kw_only=True):
    """Costs and limits that hold for the whole account.

    `impact`, where it is given, stands in the place of `slippage_bps`. `partial_cash` cuts a BUY that its own cash
    does not cover to what it covers, where it would be rejected.
    """

    fees: FeeSchedule = FeeSchedule()
    slippage_bps: Decimal = Decimal(2)
    impact: ImpactModel | None = None
    partial_cash: bool = False
    gap_refuses: bool = True
    limits: Limits | None = None
    venue: str = "paper"


class SubAccount:
    """One instance's own cash, holding and working orders."""

    __slots__ = ("cash", "cooldown_until", "high_water_price", "holding", "is_orphan", "key", "rules", "working")

    def __init__(self, key: InstanceKey, rules: InstanceRules, cash: Decimal) -> None:
        self.key = key
        self.rules = rules
        self.cash = cash
        self.holding: Holding = FLAT
        self.working: list[Order] = []
        self.high_water_price = ZERO
        self.cooldown_until: datetime | None = None
        self.is_orphan = False

    def equity(self, mark: Decimal | None) -> Decimal:
        """Return cash and holding at `mark`; a holding without a mark counts at its cost."""
        if self.holding.quantity == 0:
            return self.cash
        return plus(self.cash, times(self.holding.quantity, self.holding.avg_entry_price if mark is None else mark))

    def working_quantity(self, side: OrderSide) -> Decimal:
        """Return the unfilled quantity of the working orders of one side."""
        total = ZERO
        for order in self.working:
            if order.side is side:
                total = plus(total, minus(order.quantity, order.filled_quantity))
        return total

    @property
    def stop_price(self) -> Decimal | None:
        """Return the stop-loss now armed."""
        if self.holding.quantity == 0:
            return None
        return stop_price(self.holding.avg_entry_price, self.rules.stop_loss_pct, self.rules.stop_anchor_price)

    @property
    def trailing_stop(self) -> Decimal | None:
        """Return the trailing stop now armed."""
        return trailing_price(self.high_water_price, self.rules.trailing_pct) if self.holding.quantity else None

    @property
    def target_price(self) -> Decimal | None:
        """Return the take-profit price now armed."""
        if self.rules.take_profit_pct <= 0 or self.holding.quantity == 0:
            return None
        return times(self.holding.avg_entry_price, ONE + self.rules.take_profit_pct / 100)

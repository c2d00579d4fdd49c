"""The account's limits as one question to ask of a signal: may it become an order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from shared.domain.risk import IncreaseFigures, Limits, check_increase
from shared.domain.rounding import ZERO, minus, plus, times
from shared.errors import ConfigError
from shared.models import OrderSide, Position, Signal, to_decimal

Figure = Decimal | float | str | None


class RiskDecision(msgspec.Struct, frozen=True):
    """Allowed, or refused for a reason; `detail` has the numbers."""

    allowed: bool
    reason: str = ""
    detail: str = ""


class RiskManager:
    """Limits on increasing orders; a reducing order always passes. Pass 1, 0, 0 to switch the three off."""

    def __init__(
        self,
        max_position_size: Decimal | float | str = Decimal("0.1"),
        stop_loss_pct: Decimal | float | str = Decimal(5),
        daily_loss_limit_pct: Decimal | float | str = Decimal(10),
        *,
        limits: Limits | None = None,
    ) -> None:
        size, stop, loss = to_decimal(max_position_size), to_decimal(stop_loss_pct), to_decimal(daily_loss_limit_pct)
        for name, value, top in (
            ("max_position_size", size, 1),
            ("stop_loss_pct", stop, 100),
            ("daily_loss_limit_pct", loss, 100),
        ):
            if not (value.is_finite() and 0 <= value <= top):
                raise ConfigError(f"{name}: must be between 0 and {top}, was {value}")
        base = limits or Limits()
        self.stop_loss_pct = stop
        self.limits = msgspec.structs.replace(base, position_size_max=size, daily_loss_pct_max=loss)

    def check(
        self,
        signal: Signal,
        balance: Figure,
        positions: Mapping[str, Position] | Iterable[Position] = (),
        daily_pnl: Figure = ZERO,
        *,
        quantity: Decimal | None = None,
        equity_peak: Decimal | None = None,
    ) -> RiskDecision:
        """Return whether `signal` may become an order, given free cash, positions at their marks and the day's PnL.

        Order rates and the kill switch belong to the account's book, which asks them itself.
        """
        if signal.side is OrderSide.SELL:
            return RiskDecision(True)
        held = list(positions.values() if isinstance(positions, Mapping) else positions)
        unknown = _unknown_figure(signal, balance, held, daily_pnl)
        if unknown:
            return RiskDecision(False, "unknown_figure", unknown)
        assert balance is not None, "risk: an unknown balance refuses above"
        assert daily_pnl is not None, "risk: an unknown day refuses above"
        exposure = ZERO
        for position in held:
            exposure = plus(exposure, position.market_value)
        equity = plus(to_decimal(balance), exposure)
        if equity <= 0:
            return RiskDecision(False, "unknown_figure", f"equity is {equity}; nothing can be bought with it")
        refusal = check_increase(
            self.limits,
            IncreaseFigures(
                symbol=signal.symbol,
                price=signal.price,
                quantity=signal.quantity if quantity is None else quantity,
                equity=equity,
                symbol_quantity=sum((p.quantity for p in held if p.symbol == signal.symbol), ZERO),
                gross_exposure=exposure,
                day_base=minus(equity, to_decimal(daily_pnl)),
                equity_peak=equity if equity_peak is None else equity_peak,
                orders_last_minute=0,
                notional_last_hour=ZERO,
            ),
        )
        return RiskDecision(True) if refusal is None else RiskDecision(False, refusal.reason, refusal.detail)

    def stop_price(self, entry_price: Decimal) -> Decimal | None:
        """Return the stop below `entry_price`, None when stops are off."""
        if self.stop_loss_pct <= 0:
            return None
        return times(entry_price, (100 - self.stop_loss_pct) / 100)


def _unknown_figure(signal: Signal, balance: Figure, held: Iterable[Position], daily_pnl: Figure) -> str:
    """Return which figure is no number, empty when all are known."""
    if not (signal.price.is_finite() and signal.price > 0):
        return f"the signal's price is {signal.price}"
    for name, value in (("balance", balance), ("day's PnL", daily_pnl)):
        if value is None or not to_decimal(value).is_finite():
            return f"the {name} is {value}"
    for position in held:
        if not (position.quantity.is_finite() and position.current_price.is_finite()):
            return f"{position.symbol}: quantity {position.quantity} at {position.current_price}"
    return ""

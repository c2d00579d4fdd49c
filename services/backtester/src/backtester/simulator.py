"""The simplest venue there is: every signal fills at once, at its own price, without costs."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from shared.domain.rounding import ZERO, minus, money, plus, times
from shared.errors import ConfigError
from shared.models import OrderSide, Signal, to_decimal


class SimulatedTrade(msgspec.Struct, frozen=True):
    """A fill of the simulator; `balance_after` is the cash then, in quote."""

    symbol: str
    side: OrderSide
    price: Decimal
    quantity: Decimal
    balance_after: Decimal
    timestamp: datetime


class Holdings(dict[str, Decimal]):
    """Base quantities by symbol; a symbol that is not held counts 0."""

    def __missing__(self, symbol: str) -> Decimal:
        """Return 0 without storing it."""
        return ZERO


class OrderSimulator:
    """Fills signals at their own price from a cash balance; never goes short, never borrows."""

    def __init__(self, initial_balance: Decimal | int | float | str) -> None:
        balance = to_decimal(initial_balance)
        if not (balance.is_finite() and balance >= 0):
            raise ConfigError(f"initial balance: must be >= 0, was {balance}; give the money the run starts with")
        self.balance = money(balance)
        self.positions = Holdings()
        self.trades: list[SimulatedTrade] = []

    def execute(self, signal: Signal, timestamp: datetime | None = None) -> bool:
        """Fill the signal and return True, or refuse it: a BUY above the balance, a SELL with nothing held."""
        price, quantity = signal.price, signal.quantity
        if not (price.is_finite() and quantity.is_finite() and price > 0 and quantity > 0):
            return False
        held = self.positions[signal.symbol]
        if signal.side == OrderSide.BUY:
            cost = times(price, quantity)
            if cost > self.balance:
                return False
            self.balance = minus(self.balance, cost)
            self.positions[signal.symbol] = plus(held, quantity)
        else:
            quantity = min(quantity, held)
            if quantity <= 0:
                return False
            self.balance = plus(self.balance, times(price, quantity))
            if quantity == held:
                del self.positions[signal.symbol]
            else:
                self.positions[signal.symbol] = minus(held, quantity)
        self.trades.append(
            SimulatedTrade(signal.symbol, signal.side, price, quantity, self.balance, timestamp or signal.created_at)
        )
        return True

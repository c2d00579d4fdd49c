"""The portfolio as a fold of its own over fills and marks, independent of the executor's book."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from shared.domain.positions import FLAT, Holding, apply_fill, unrealized_pnl
from shared.domain.rounding import ZERO, Instrument, minus, plus, ratio, times
from shared.models import Fill, InstanceKey, Order, OrderStatus, Position, split_symbol

ORDERS_MAX = 100_000


class PortfolioTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot holds, in quote."""

    total_value: Decimal
    realized_pnl: Decimal
    unrealized_pnl: Decimal
    cash: Decimal


class _Settled(NamedTuple):
    """What no mark can change: cash, gains taken, and the holdings that still have a price to wait for."""

    of: tuple[Decimal, Decimal]
    totals: PortfolioTotals
    open: list[tuple[str, Holding]]


class PortfolioTracker:
    """Average cost, realised PnL net of fees, unrealised at the marks; per instance, per symbol and in total.

    Only filled quantity counts. An order may be applied as often as its status changes: what it filled before is
    not counted again.
    """

    def __init__(self, initial_balance: Decimal | float | str = ZERO) -> None:
        self.initial_balance = Decimal(str(initial_balance))
        self.flows = ZERO
        self.last_sequence = 0
        self._holdings: dict[InstanceKey, Holding] = {}
        self._marks: dict[str, tuple[Decimal, datetime | None]] = {}
        self._counted: dict[str, tuple[Decimal, Decimal]] = {}
        self._settled: _Settled | None = None

    def apply_order(self, order: Order, fee: Decimal = ZERO) -> Position:
        """Take in what an order has filled since it was last applied; return its symbol's position."""
        quantity, notional = self._counted.get(order.id, (ZERO, ZERO))
        filled = _filled_quantity(order)
        total = times(filled, order.avg_fill_price if order.avg_fill_price is not None else order.price)
        new_quantity, new_notional = minus(filled, quantity), minus(total, notional)
        if new_quantity > 0:
            moment = order.filled_at or order.created_at
            self.apply_fill(
                Fill(
                    id=f"{order.id}/{filled:f}",
                    order_id=order.id,
                    symbol=order.symbol,
                    side=order.side,
                    price=ratio(new_notional, new_quantity),
                    quantity=new_quantity,
                    fee=fee,
                    fee_asset=split_symbol(order.symbol)[1],
                    fee_quote=fee,
                    traded_at=moment,
                    as_of=moment,
                    strategy=order.strategy,
                    timeframe=order.timeframe,
                )
            )
            self._counted[order.id] = (filled, total)
            if len(self._counted) > ORDERS_MAX:
                del self._counted[next(iter(self._counted))]
        return self.position(order.symbol)

    def apply_fill(self, fill: Fill) -> None:
        """Take in one execution; a sequence that was taken in before is left out."""
        if fill.sequence and fill.sequence <= self.last_sequence:
            return
        holding = self._holdings.get(fill.instance, FLAT)
        self._holdings[fill.instance] = apply_fill(holding, fill, Instrument(symbol=fill.symbol))
        self._settled = None
        if fill.symbol not in self._marks:
            self._marks[fill.symbol] = (fill.price, None)
        self.last_sequence = max(self.last_sequence, fill.sequence)

    def mark(self, symbol: str, price: Decimal, at: datetime | None = None) -> None:
        """Value a symbol at `price` from now on; a mark older than the one there is changes nothing."""
        known = self._marks.get(symbol)
        if at is None or known is None or known[1] is None or at >= known[1]:
            self._marks[symbol] = (price, at)

    def position(self, symbol: str) -> Position:
        """Return what all strategies together hold of a symbol."""
        quantity, cost = ZERO, ZERO
        for key, holding in self._holdings.items():
            if key.symbol == symbol:
                quantity = plus(quantity, holding.quantity)
                cost = plus(cost, times(holding.quantity, holding.avg_entry_price))
        price, at = self._marks.get(symbol, (ZERO, None))
        average = ratio(cost, quantity) if quantity else ZERO
        return Position(symbol=symbol, quantity=quantity, avg_entry_price=average, current_price=price, updated_at=at)

    @property
    def positions(self) -> list[Position]:
        """Return the open positions, sorted by symbol."""
        symbols = sorted({key.symbol for key, holding in self._holdings.items() if holding.quantity})
        return [self.position(symbol) for symbol in symbols]

    @property
    def holdings(self) -> dict[InstanceKey, Holding]:
        """Return what each strategy instance holds and has earned."""
        return dict(self._holdings)

    def totals(self) -> PortfolioTotals:
        """Return the portfolio's value now."""
        settled = self._settled
        if settled is None or settled.of != (self.initial_balance, self.flows):
            settled = self._settled = self._settle()
        if not settled.open:
            return settled.totals
        cash, unrealized, value = settled.totals.cash, ZERO, ZERO
        for symbol, holding in settled.open:
            price = self._marks[symbol][0]
            unrealized = plus(unrealized, unrealized_pnl(holding, price))
            value = plus(value, times(holding.quantity, price))
        return PortfolioTotals(
            total_value=plus(cash, value),
            realized_pnl=settled.totals.realized_pnl,
            unrealized_pnl=unrealized,
            cash=cash,
        )

    def _settle(self) -> _Settled:
        cash, realized = plus(self.initial_balance, self.flows), ZERO
        for holding in self._holdings.values():
            cash = plus(cash, holding.cash_flow)
            realized = plus(realized, holding.realized_pnl)
        totals = PortfolioTotals(total_value=plus(cash, ZERO), realized_pnl=realized, unrealized_pnl=ZERO, cash=cash)
        held = [(key.symbol, holding) for key, holding in self._holdings.items() if holding.quantity]
        return _Settled((self.initial_balance, self.flows), totals, held)

    @property
    def total_value(self) -> Decimal:
        """Return cash and positions at their marks."""
        return self.totals().total_value


def _filled_quantity(order: Order) -> Decimal:
    """Return what an order has filled; one that is FILLED and says no number has filled wholly."""
    if order.status is OrderStatus.FILLED and order.filled_quantity == 0:
        return order.quantity
    return order.filled_quantity

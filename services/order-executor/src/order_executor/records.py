"""Effects of the book as rows: pure, so that what is stored can be read off what was decided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared import db_orders
from shared.clock import derived_id
from shared.domain.book import Book, SubAccount
from shared.domain.effects import Closed, Declined, Effect, Filled, Placed
from shared.domain.ledger import ledger_entries
from shared.domain.rounding import ZERO, money, plus, ratio, times
from shared.events import ORDER_STREAM, OrderEvent, correlation_of
from shared.models import Fill, Order, Signal

Row = dict[str, Any]


@dataclass(slots=True)
class Records:
    """Everything one transaction writes because of effects."""

    orders: dict[str, Row] = field(default_factory=dict)
    trades: list[Row] = field(default_factory=list)
    ledger: list[Row] = field(default_factory=list)
    decisions: list[Row] = field(default_factory=list)
    outbox: list[Row] = field(default_factory=list)


def to_records(effects: Iterable[Effect], account: str) -> Records:
    """Return the rows of `effects`; of an order only its last state, of its events each."""
    records = Records()
    for effect in effects:
        if isinstance(effect, Declined):
            records.decisions.append(
                decision_row(effect.signal, effect.outcome, effect.reason, effect.detail, effect.as_of)
            )
        elif isinstance(effect, Placed | Filled | Closed):
            order = effect.order
            created_at = records.orders[order.id]["as_of"] if order.id in records.orders else order.created_at
            records.orders[order.id] = order_row(order, created_at, account)
            records.outbox.append(_order_event_row(effect))
            if isinstance(effect, Placed) and effect.signal is not None:
                records.decisions.append(decision_row(effect.signal, "ordered", "", "", order.created_at, order.id))
            if isinstance(effect, Filled):
                records.trades.append(trade_row(effect.fill))
                records.ledger.extend(_ledger_rows(effect.fill, account))
    return records


def order_row(order: Order, as_of: datetime, account: str) -> Row:
    """Return an order as its table has it, with its account."""
    return {**db_orders.order_row(order, as_of), "account": account}


def trade_row(fill: Fill) -> Row:
    """Return a fill as the table `trades` has it."""
    return {**{name: getattr(fill, name) for name in fill.__struct_fields__}, "side": fill.side.value}


def decision_row(
    signal: Signal, outcome: str, reason: str, detail: str, as_of: datetime, order_id: str | None = None
) -> Row:
    """Return what became of a signal."""
    return {
        "signal_id": signal.id,
        "outcome": outcome,
        "reason": reason,
        "detail": detail,
        "order_id": order_id,
        "as_of": as_of,
    }


def sub_account_row(account: SubAccount, as_of: datetime, sequence: int) -> Row:
    """Return one sub-account as the table `strategy_positions` has it."""
    holding = account.holding
    stop = account.stop_price
    return {
        **account.key._asdict(),
        "quantity": holding.quantity,
        "avg_entry_price": holding.avg_entry_price,
        "realized_pnl": holding.realized_pnl,
        "fees": holding.fees,
        "entries_open": len(holding.entries),
        "cash": account.cash,
        "stop_price": None if stop is None else money(stop),
        "cooldown_until": account.cooldown_until,
        "high_water_price": account.high_water_price,
        "updated_at": as_of,
        "last_sequence": sequence,
    }


def position_rows(book: Book, as_of: datetime) -> list[Row]:
    """Return the account's positions: per symbol the sum of the sub-accounts, at its mark."""
    totals: dict[str, tuple[Any, Any]] = {}
    for account in book.accounts.values():
        quantity, cost = totals.get(account.key.symbol, (ZERO, ZERO))
        held = account.holding
        totals[account.key.symbol] = (
            plus(quantity, held.quantity),
            plus(cost, times(held.quantity, held.avg_entry_price)),
        )
    return [
        {
            "symbol": symbol,
            "quantity": quantity,
            "avg_entry_price": ratio(cost, quantity) if quantity else ZERO,
            "current_price": book.marks.get(symbol, ZERO),
            "updated_at": as_of,
        }
        for symbol, (quantity, cost) in sorted(totals.items())
        if symbol in book.marks or quantity
    ]


def account_row(book: Book, *, account: str, mode: str, quote_asset: str, as_of: datetime | None) -> Row:
    """Return the account's own row."""
    figures = book.figures
    return {
        "account": account,
        "mode": mode,
        "quote_asset": quote_asset,
        "initial_balance": book.initial_balance,
        "cash": book.cash,
        "equity": figures.equity,
        "day": figures.day.isoformat() if figures.day else "",
        "day_equity": figures.day_base,
        "day_flows": figures.day_flows,
        "equity_peak": figures.equity_peak,
        "state": figures.state.value,
        "state_reason": figures.state_reason,
        "as_of": as_of,
        "sequence": book.sequence,
    }


def order_event(order: Order) -> OrderEvent:
    """Return an order's envelope; its correlation id is the candle at whose close it was made."""
    event_id = derived_id(order.id, order.status.value, order.filled_quantity)
    return OrderEvent(
        data=order, as_of=order.filled_at or order.created_at, id=event_id, correlation_id=correlation_of(order)
    )


def _order_event_row(effect: Placed | Filled | Closed) -> Row:
    event = order_event(effect.order)
    return {"topic": ORDER_STREAM, "key": event.id, "payload": event.encode().decode(), "as_of": event.as_of}


def _ledger_rows(fill: Fill, account: str) -> Sequence[Row]:
    return [
        {**{name: getattr(entry, name) for name in entry.__struct_fields__}, "account": account}
        for entry in ledger_entries(fill)
    ]

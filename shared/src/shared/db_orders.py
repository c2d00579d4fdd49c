"""Signals and orders one at a time; an order's status moves forward only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.db_rows import insert_rows
from shared.domain.order_lifecycle import is_legal_move
from shared.errors import UnknownOrder
from shared.models import Fill, Order, OrderSide, OrderStatus, OrderType, Signal
from shared.sa_models import OrderRow, SignalRow


def signal_row(signal: Signal) -> dict[str, Any]:
    """Return a signal as the columns of its table."""
    return {**msgspec.structs.asdict(signal), "side": str(signal.side)}


def order_row(order: Order, as_of: datetime | None = None) -> dict[str, Any]:
    """Return an order as the columns of its table; `as_of` is its creation unless said."""
    words = {"side": str(order.side), "type": str(order.type), "status": str(order.status)}
    return {**msgspec.structs.asdict(order), **words, "as_of": as_of or order.created_at}


def order_of(row: Mapping[str, Any]) -> Order:
    """Return the order that a row of its table holds."""
    words = {"side": OrderSide(row["side"]), "type": OrderType(row["type"]), "status": OrderStatus(row["status"])}
    return Order(**{**{name: row[name] for name in Order.__struct_fields__}, **words})


def fill_of(row: Mapping[str, Any]) -> Fill:
    """Return the fill that a row of the table `trades` holds."""
    return Fill(**{**row, "side": OrderSide(row["side"])})


async def store_signal(session: AsyncSession, signal: Signal) -> bool:
    """Store a signal; a known id changes nothing and returns False."""
    return await insert_rows(session, SignalRow, [signal_row(signal)], ignore_conflicts=True) == 1


async def store_order(session: AsyncSession, order: Order) -> bool:
    """Store an order; a known id changes nothing and returns False."""
    return await insert_rows(session, OrderRow, [order_row(order)], ignore_conflicts=True) == 1


async def move_order(
    session: AsyncSession, order_id: str, status: OrderStatus, filled_at: datetime | None = None
) -> bool:
    """Set an order's status, or return False and change nothing where that would be a step backwards."""
    columns = select(OrderRow.status, OrderRow.filled_quantity)
    row = (await session.execute(columns.where(OrderRow.id == order_id).with_for_update())).one_or_none()
    if row is None:
        raise UnknownOrder(f"orders: no order has the id {order_id!r}")
    before = OrderStatus(row.status)
    unfilled_again = status == OrderStatus.PENDING and row.filled_quantity > 0  # PARTIAL -> UNKNOWN -> PENDING
    if status != before and (unfilled_again or not is_legal_move(before, status)):
        return False
    changed: dict[str, Any] = {"status": str(status)}
    if filled_at is not None:
        changed["filled_at"] = filled_at
    await session.execute(update(OrderRow).where(OrderRow.id == order_id).values(changed))
    return True

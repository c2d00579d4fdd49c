"""Signals and orders one at a time; an order's status moves forward only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.db_rows import insert_rows
from shared.errors import UnknownOrder
from shared.models import Order, OrderStatus, Signal
from shared.sa_models import OrderRow, SignalRow

# An open order may turn out unknown and an unknown one open again; a part filled is never unfilled, an end is an end.
_FORWARD: dict[OrderStatus, frozenset[OrderStatus]] = {
    OrderStatus.PENDING: frozenset(OrderStatus),
    OrderStatus.UNKNOWN: frozenset(OrderStatus),
    OrderStatus.PARTIAL: frozenset(OrderStatus) - {OrderStatus.PENDING},
}


def signal_row(signal: Signal) -> dict[str, Any]:
    """Return a signal as the columns of its table."""
    return {**msgspec.structs.asdict(signal), "side": str(signal.side)}


def order_row(order: Order, as_of: datetime | None = None) -> dict[str, Any]:
    """Return an order as the columns of its table; `as_of` is its creation unless said."""
    words = {"side": str(order.side), "type": str(order.type), "status": str(order.status)}
    return {**msgspec.structs.asdict(order), **words, "as_of": as_of or order.created_at}


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
    found = await session.execute(select(OrderRow.status).where(OrderRow.id == order_id).with_for_update())
    before = found.scalar_one_or_none()
    if before is None:
        raise UnknownOrder(f"orders: no order has the id {order_id!r}")
    if status != before and status not in _FORWARD.get(OrderStatus(before), frozenset()):
        return False
    changed: dict[str, Any] = {"status": str(status)}
    if filled_at is not None:
        changed["filled_at"] = filled_at
    await session.execute(update(OrderRow).where(OrderRow.id == order_id).values(changed))
    return True

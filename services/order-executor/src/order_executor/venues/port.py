"""What a network venue must offer so that an order is sent at most once per attempt and its fate is always found.

The paper venue is not behind this port: it lives in the database's own transaction (`shared.domain.paper`), where
nothing can be lost between deciding and executing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Protocol

import msgspec

from shared.models import Fill, OrderSide, OrderStatus, OrderType


class OrderAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One sending of an intent, recorded and committed before a byte leaves; its id is never used again."""

    client_order_id: str
    order_id: str
    attempt: int
    epoch: int
    signed_at: datetime
    recv_window_ms: int
    symbol: str
    side: OrderSide
    type: OrderType
    quantity: Decimal
    limit_price: Decimal | None = None


class Accepted(msgspec.Struct, frozen=True):
    """The venue answered with its own order id and ours."""

    venue_order_id: str
    status: OrderStatus
    fills: tuple[Fill, ...]
    raw: str


class DefinitelyRejected(msgspec.Struct, frozen=True):
    """The venue's code proves that no order exists."""

    code: int
    text: str


class NotSent(msgspec.Struct, frozen=True):
    """Not one byte of the request left this machine."""

    text: str


class Unknown(msgspec.Struct, frozen=True):
    """Everything else: the order may live. It is resolved by asking, never by sending again."""

    text: str


SubmitOutcome = Accepted | DefinitelyRejected | NotSent | Unknown


class VenueOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the venue knows it."""

    client_order_id: str
    venue_order_id: str
    status: OrderStatus
    executed_quantity: Decimal
    updated_at: datetime


class Venue(Protocol):
    """A venue behind a network. `submit` and `cancel` never raise for what the network did: the outcome is a value."""

    @property
    def name(self) -> str:
        """Return the venue's word in tables."""

    async def server_time(self) -> datetime:
        """Return the venue's clock."""

    async def submit(self, attempt: OrderAttempt) -> SubmitOutcome:
        """Send an attempt once."""

    async def cancel(self, symbol: str, client_order_id: str) -> SubmitOutcome:
        """Ask for an order's end; only a query or event says that it ended."""

    async def query(self, symbol: str, client_order_id: str) -> VenueOrder | None:
        """Return the order, or None when the venue says that it knows none (which is no proof yet)."""

    async def open_orders(self, symbol: str) -> Sequence[VenueOrder]:
        """Return all working orders of a symbol."""

    async def fills(self, symbol: str, from_trade_id: str | None) -> Sequence[Fill]:
        """Return executions from a trade id on, foreign ones included."""

    async def balances(self) -> Mapping[str, Decimal]:
        """Return what the account has of every asset."""

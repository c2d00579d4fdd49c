"""What the book decided, as values for a shell to record; nothing here has happened outside the book yet."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from shared.models import Fill, Order, Signal


class Placed(msgspec.Struct, frozen=True, gc=False):
    """A new order waits for the market."""

    order: Order
    signal: Signal | None


class Declined(msgspec.Struct, frozen=True, gc=False):
    """A signal that made no order: `refused` by a rule, or `ignored` because there was nothing to do."""

    signal: Signal
    outcome: str
    reason: str
    detail: str
    as_of: datetime


class Filled(msgspec.Struct, frozen=True, gc=False):
    """An execution, the order as it is after it, and its sub-account's cash then and what it brought in base."""

    order: Order
    fill: Fill
    cash: Decimal
    base_change: Decimal


class Closed(msgspec.Struct, frozen=True, gc=False):
    """An order that ended without a (further) fill; its reason says why."""

    order: Order


class StateChanged(msgspec.Struct, frozen=True, gc=False):
    """The account's automatic state moved."""

    state: str
    reason: str
    detail: str
    as_of: datetime


Effect = Placed | Declined | Filled | Closed | StateChanged

REFUSED = "refused"
IGNORED = "ignored"

"""The records that trade statistics are made from and made of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from shared.domain.rounding import ZERO, plus
from shared.models import OrderSide, to_decimal


class TradeRecord(msgspec.Struct, frozen=True, gc=False):
    """One fill as statistics see it.

    `price` in quote per base, `quantity` in base (of a BUY whose fee is taken in base: what arrived), `fee` valued in
    quote. A time without zone is read as UTC. `signal_time`, `balance_after` and `reason` are carried, not used.
    """

    time: datetime
    symbol: str
    side: str
    price: Decimal
    quantity: Decimal
    fee: Decimal = ZERO
    strategy: str = ""
    signal_time: datetime | None = None
    balance_after: Decimal | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        """Turn numbers into Decimal and times into UTC; refuse what cannot have been a fill."""
        if (
            type(self.price) is type(self.quantity) is type(self.fee) is Decimal
            and (self.balance_after is None or type(self.balance_after) is Decimal)
            and self.time.tzinfo is UTC
            and (self.signal_time is None or self.signal_time.tzinfo is UTC)
            and type(self.side) is OrderSide
        ):
            self._check_numbers()
            return
        for name in ("price", "quantity", "fee", "balance_after"):
            value: Any = getattr(self, name)
            if value is not None and type(value) is not Decimal:
                force_setattr(self, name, to_decimal(value))
        for name in ("time", "signal_time"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is not UTC:
                force_setattr(
                    self, name, moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
                )
        if type(self.side) is not OrderSide:
            try:
                force_setattr(self, "side", OrderSide(str(self.side).upper()))
            except ValueError:
                raise ValueError(f"trade at {self.time}: side must be BUY or SELL, was {self.side!r}") from None
        self._check_numbers()

    def _check_numbers(self) -> None:
        if self.price.is_finite() and self.price > ZERO and self.quantity.is_finite() and self.quantity > ZERO:
            if not self.fee.is_finite():
                raise ValueError(f"trade at {self.time}: fee must be a number, was {self.fee}")
            return
        for name, value in (("price", self.price), ("quantity", self.quantity)):
            if not (value.is_finite() and value > 0):
                raise ValueError(f"trade at {self.time}: {name} must be > 0, was {value}")


class TradePair(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A quantity bought and sold again; the fields are the CSV's columns, in its order.

    `pnl` in quote, net of both legs' fees; `pnl_pct` percent of what the entry cost before fees.
    """

    entry_time: datetime
    exit_time: datetime
    entry_price: Decimal
    exit_price: Decimal
    quantity: Decimal
    pnl: Decimal
    pnl_pct: float
    holding_period: timedelta
    symbol: str
    strategy: str
    fees: Decimal

    @property
    def gross_pnl(self) -> Decimal:
        """Return the gain before fees."""
        return plus(self.pnl, self.fees)

    def __getitem__(self, column: str) -> Any:
        """Return the value of a column, so that a pair also reads like a row."""
        if column not in self.__struct_fields__:
            raise KeyError(column)
        return getattr(self, column)


class RoundTrip(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One strategy's way in one symbol from flat to flat; `exit_time` is None while it is still in."""

    symbol: str
    strategy: str
    entry_time: datetime
    exit_time: datetime | None
    pnl: Decimal
    entries_max: int


class OpenPosition(msgspec.Struct, frozen=True, kw_only=True):
    """What is still held at the end: average cost without fees; price and gain None when no mark was given."""

    symbol: str
    strategy: str
    quantity: Decimal
    avg_entry_price: Decimal
    entry_time: datetime
    price: Decimal | None = None
    unrealized_pnl: Decimal | None = None


class OpenLot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A bought quantity, or what is left of it, that no SELL has closed; `fee` is its share of the entry fee."""

    symbol: str
    strategy: str
    time: datetime
    price: Decimal
    quantity: Decimal
    fee: Decimal


class Pairing(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `pair_trades` found; `unmatched` are the parts of SELLs that nothing bought covers."""

    pairs: tuple[TradePair, ...]
    round_trips: tuple[RoundTrip, ...]
    lots: tuple[OpenLot, ...]
    average_costs: dict[tuple[str, str], Decimal]
    unmatched: tuple[TradeRecord, ...]

    @property
    def entries_max(self) -> int:
        """Return the most entries one strategy had open in one symbol at a time."""
        return max((trip.entries_max for trip in self.round_trips), default=0)

"""The domain's nouns: frozen msgspec Structs, the same in memory, on the wire and (by column) in SQL."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import force_setattr

from shared.clock import random_id, system_now

TIMEFRAME_SECONDS: dict[str, int] = {
    "1m": 60,
    "3m": 180,
    "5m": 300,
    "15m": 900,
    "30m": 1800,
    "1h": 3600,
    "2h": 7200,
    "4h": 14400,
    "6h": 21600,
    "8h": 28800,
    "12h": 43200,
    "1d": 86400,
}
TIMEFRAME_DELTA: dict[str, timedelta] = {name: timedelta(seconds=n) for name, n in TIMEFRAME_SECONDS.items()}
SYMBOLS_KEPT_MAX = 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OrderSide(StrEnum):
    """What an order does with the base currency."""

    BUY = "BUY"
    SELL = "SELL"


class OrderType(StrEnum):
    """How an order meets the market."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"
    STOP_LOSS = "STOP_LOSS"
    STOP_LOSS_LIMIT = "STOP_LOSS_LIMIT"
    TAKE_PROFIT = "TAKE_PROFIT"
    TAKE_PROFIT_LIMIT = "TAKE_PROFIT_LIMIT"
    LIMIT_MAKER = "LIMIT_MAKER"


class OrderStatus(StrEnum):
    """Where an order is in its life; `shared.domain.order_lifecycle` knows the legal moves."""

    PENDING = "PENDING"
    PARTIAL = "PARTIAL"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


class InstanceKey(NamedTuple):
    """One running strategy: the owner of a sub-account. Ordered by symbol, timeframe, strategy when sorted by `business_order`."""

    strategy: str
    symbol: str
    timeframe: str

    @property
    def business_order(self) -> tuple[str, str, str]:
        """Return the sort key of the order of business: symbol, timeframe, strategy."""
        return (self.symbol, self.timeframe, self.strategy)

    def __str__(self) -> str:
        """Return `strategy symbol timeframe`, as tables and logs print it."""
        return f"{self.strategy} {self.symbol} {self.timeframe}"


_key = tuple.__new__  # a third of the time of a named tuple's own constructor: orders ask for their key again and again


def to_milliseconds(moment: datetime) -> int:
    """Return the whole milliseconds from 1970-01-01 UTC to an aware `moment`."""
    since = moment - _EPOCH  # its parts, as dividing a timedelta takes three times as long
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def from_milliseconds(milliseconds: int) -> datetime:
    """Return the aware UTC datetime of whole milliseconds since 1970."""
    return _EPOCH + timedelta(0, milliseconds // 1000, milliseconds % 1000 * 1000)


def to_decimal(value: Decimal | int | float | str) -> Decimal:
    """Return `value` as a Decimal; a float by its repr, so 0.1 stays 0.1."""
    if type(value) is Decimal:
        return value
    if isinstance(value, float):
        return Decimal(repr(float(value)))
    return Decimal(value)


def to_utc(moment: datetime, field: str) -> datetime:
    """Return `moment` in UTC; a naive one is refused by the field's name."""
    if moment.tzinfo is None:
        raise ValueError(f"{field}: a time without zone, was {moment!r}; pass an aware datetime (UTC)")
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def _normalise(struct: Any, decimals: tuple[str, ...], moments: tuple[str, ...]) -> None:
    for name in decimals:
        value = getattr(struct, name)
        if value is not None and type(value) is not Decimal:
            force_setattr(struct, name, to_decimal(value))
    for name in moments:
        moment = getattr(struct, name)
        if moment is not None and moment.tzinfo is not UTC:
            force_setattr(struct, name, to_utc(moment, name))


class Candle(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One closed candle, named by its `open_time`; volume in base units."""

    symbol: str
    timeframe: str
    open_time: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal

    def __post_init__(self) -> None:
        """Turn numbers into Decimal and the time into UTC."""
        if type(self.open) is not Decimal or type(self.high) is not Decimal or type(self.low) is not Decimal:
            _normalise(self, ("open", "high", "low"), ())
        if type(self.close) is not Decimal or type(self.volume) is not Decimal:
            _normalise(self, ("close", "volume"), ())
        if self.open_time.tzinfo is not UTC:
            force_setattr(self, "open_time", to_utc(self.open_time, "open_time"))

    @property
    def close_time(self) -> datetime:
        """Return the instant at which the candle closed: the `as_of` of all it causes."""
        return self.open_time + TIMEFRAME_DELTA[self.timeframe]


class Signal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A strategy's wish at a candle's close; `price` is that close, `quantity` its fixed size in base units."""

    strategy: str
    symbol: str
    side: OrderSide
    price: Decimal
    quantity: Decimal
    reason: str = ""
    id: str = msgspec.field(default_factory=random_id)
    created_at: datetime = msgspec.field(default_factory=system_now)
    timeframe: str = "1m"
    candle_open_time: datetime | None = None
    expires_at: datetime | None = None
    mode: str = "paper"
    config_hash: str = ""
    code_hash: str = ""

    def __post_init__(self) -> None:
        """Turn numbers into Decimal and times into UTC."""
        if type(self.price) is not Decimal or type(self.quantity) is not Decimal:
            _normalise(self, ("price", "quantity"), ())
        opened, expires = self.candle_open_time, self.expires_at
        if not (
            self.created_at.tzinfo is UTC
            and (opened is None or opened.tzinfo is UTC)
            and (expires is None or expires.tzinfo is UTC)
        ):
            _normalise(self, (), ("created_at", "candle_open_time", "expires_at"))

    @property
    def instance(self) -> InstanceKey:
        """Return the strategy instance that spoke."""
        return _key(InstanceKey, (self.strategy, self.symbol, self.timeframe))


class Order(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An intent of ours and what became of it, prices in quote per base.

    `price` is the decision price (the signal's close), `arrival_price` the market's when the order met it, where that
    is known, `avg_fill_price` what was paid or got: the difference of the last two is slippage.
    """

    symbol: str
    side: OrderSide
    type: OrderType = OrderType.MARKET
    price: Decimal
    quantity: Decimal
    status: OrderStatus = OrderStatus.PENDING
    signal_id: str | None = None
    id: str = msgspec.field(default_factory=random_id)
    created_at: datetime = msgspec.field(default_factory=system_now)
    filled_at: datetime | None = None
    strategy: str = ""
    timeframe: str = "1m"
    filled_quantity: Decimal = Decimal(0)
    avg_fill_price: Decimal | None = None
    arrival_price: Decimal | None = None
    purpose: str = "signal"
    reason: str = ""
    late: bool = False

    def __post_init__(self) -> None:
        """Turn numbers into Decimal and times into UTC."""
        if not (
            type(self.price) is type(self.quantity) is type(self.filled_quantity) is Decimal
            and (self.avg_fill_price is None or type(self.avg_fill_price) is Decimal)
            and (self.arrival_price is None or type(self.arrival_price) is Decimal)
        ):
            _normalise(self, ("price", "quantity", "filled_quantity", "avg_fill_price", "arrival_price"), ())
        if not (self.created_at.tzinfo is UTC and (self.filled_at is None or self.filled_at.tzinfo is UTC)):
            _normalise(self, (), ("created_at", "filled_at"))

    @property
    def instance(self) -> InstanceKey:
        """Return the strategy instance whose sub-account pays."""
        return _key(InstanceKey, (self.strategy, self.symbol, self.timeframe))


class Fill(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One execution (table `trades`): the only thing that moves a position.

    `fee` is in `fee_asset` (an asset name such as "USDT"), `fee_quote` its value in quote at fill time; `as_of`
    is the business time at which it was booked, `sequence` its place in the account's book.
    """

    id: str
    order_id: str
    symbol: str
    side: OrderSide
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_asset: str
    fee_quote: Decimal
    traded_at: datetime
    as_of: datetime
    sequence: int = 0
    strategy: str = ""
    timeframe: str = "1m"
    reason: str = ""
    venue: str = "paper"
    venue_trade_id: str = ""

    def __post_init__(self) -> None:
        """Turn numbers into Decimal and times into UTC."""
        if not (type(self.price) is type(self.quantity) is type(self.fee) is type(self.fee_quote) is Decimal):
            _normalise(self, ("price", "quantity", "fee", "fee_quote"), ())
        if not (self.traded_at.tzinfo is UTC is self.as_of.tzinfo):
            _normalise(self, (), ("traded_at", "as_of"))

    @property
    def instance(self) -> InstanceKey:
        """Return the strategy instance that owns the fill."""
        return _key(InstanceKey, (self.strategy, self.symbol, self.timeframe))


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """What the account holds of a symbol; average cost without fees, quote per base."""

    symbol: str
    quantity: Decimal
    avg_entry_price: Decimal
    current_price: Decimal
    updated_at: datetime | None = None

    def __post_init__(self) -> None:
        """Turn numbers into Decimal and times into UTC."""
        _normalise(self, ("quantity", "avg_entry_price", "current_price"), ("updated_at",))

    @property
    def unrealized_pnl(self) -> Decimal:
        """Return what closing at `current_price` would add, in quote, before fees."""
        return (self.current_price - self.avg_entry_price) * self.quantity

    @property
    def market_value(self) -> Decimal:
        """Return the holding's worth in quote."""
        return self.quantity * self.current_price


@functools.lru_cache(maxsize=SYMBOLS_KEPT_MAX)
def split_symbol(symbol: str) -> tuple[str, str]:
    """Return (base, quote) of `BASE/QUOTE`."""
    base, slash, quote = symbol.partition("/")
    if not (base and slash and quote) or "/" in quote:
        raise ValueError(f"symbol {symbol!r} is not of the form BASE/QUOTE")
    return base, quote

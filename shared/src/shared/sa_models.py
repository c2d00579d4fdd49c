"""Every table of the system of record, one class a table; `shared.db` reads and writes them.

Money is exact (`Money`) and times are UTC (`UtcDateTime`) on both databases. Defaults live in the
database, so that rows written without the ORM get them too. CHECK constraints name the allowed words.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.sa_types import Money, UtcDateTime

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

Key = Annotated[str, mapped_column(primary_key=True)]
KeyTime = Annotated[datetime, mapped_column(primary_key=True)]
BigInt = Annotated[int, mapped_column(BigInteger)]
Counter = Annotated[int, mapped_column(BigInteger, server_default="0")]
Zero = Annotated[Decimal, mapped_column(server_default="0")]
Blank = Annotated[str, mapped_column(server_default="")]


def one_of(column: str, *words: str) -> CheckConstraint:
    """Return a constraint that allows only `words` in `column`."""
    return CheckConstraint(f"{column} IN ({', '.join(repr(word) for word in words)})", name=column)


class Base(DeclarativeBase):
    """The root of all rows."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(),
        Decimal: Money(),
        datetime: UtcDateTime(),
        bytes: LargeBinary(),
    }


class CandleRow(Base):
    """The latest revision of a closed candle."""

    __tablename__ = "candles"
    __table_args__ = ({"sqlite_with_rowid": False},)

    symbol: Mapped[Key]
    timeframe: Mapped[Key]
    open_time: Mapped[KeyTime]
    open: Mapped[Decimal]
    high: Mapped[Decimal]
    low: Mapped[Decimal]
    close: Mapped[Decimal]
    volume: Mapped[Decimal]


class CandleRevisionRow(Base):
    """The values of a candle that a later revision replaced; revision 1 was the first."""

    __tablename__ = "candle_revisions"

    symbol: Mapped[Key]
    timeframe: Mapped[Key]
    open_time: Mapped[KeyTime]
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    open: Mapped[Decimal]
    high: Mapped[Decimal]
    low: Mapped[Decimal]
    close: Mapped[Decimal]
    volume: Mapped[Decimal]
    recorded_at: Mapped[datetime]


class CandleGapRow(Base):
    """A hole in a stream; `confirmed` once the venue has nothing there either."""

    __tablename__ = "candle_gaps"

    symbol: Mapped[Key]
    timeframe: Mapped[Key]
    start_time: Mapped[KeyTime]
    end_time: Mapped[datetime]
    candles_missing: Mapped[int]
    confirmed: Mapped[bool] = mapped_column(server_default=false())
    recorded_at: Mapped[datetime]


class QuarantineRow(Base):
    """A candle that cannot be true, kept with the reason."""

    __tablename__ = "quarantine"

    id: Mapped[Key]
    stream: Mapped[str]
    payload: Mapped[str]
    reason: Mapped[str]
    recorded_at: Mapped[datetime]


class SignalRow(Base):
    """A strategy's wish, stored before anyone hears of it."""

    __tablename__ = "signals"
    __table_args__ = (one_of("side", "BUY", "SELL"), Index(None, "created_at", "id"))

    id: Mapped[Key]
    strategy: Mapped[str]
    symbol: Mapped[str]
    timeframe: Mapped[str]
    side: Mapped[str]
    price: Mapped[Decimal]
    quantity: Mapped[Decimal]
    reason: Mapped[Blank]
    created_at: Mapped[datetime]
    candle_open_time: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    mode: Mapped[str]
    config_hash: Mapped[Blank]
    code_hash: Mapped[Blank]


class DecisionRow(Base):
    """What became of a signal: exactly one row for each one handled."""

    __tablename__ = "decisions"
    __table_args__ = (one_of("outcome", "ordered", "refused", "ignored"), Index(None, "as_of"))

    signal_id: Mapped[Key]
    outcome: Mapped[str]
    reason: Mapped[Blank]
    detail: Mapped[Blank]
    order_id: Mapped[str | None]
    as_of: Mapped[datetime]


class OrderRow(Base):
    """An intent of ours; `price` is the decision price."""

    __tablename__ = "orders"
    __table_args__ = (
        one_of("side", "BUY", "SELL"),
        one_of("status", "PENDING", "PARTIAL", "FILLED", "CANCELED", "EXPIRED", "REJECTED", "FAILED", "UNKNOWN"),
        one_of("purpose", "signal", "stop_loss", "take_profit", "trailing_stop", "orphan", "flatten"),
        Index(None, "strategy", "symbol", "timeframe"),
        Index(None, "created_at", "id"),
    )

    id: Mapped[Key]
    signal_id: Mapped[str | None] = mapped_column(ForeignKey("signals.id"), index=True)
    symbol: Mapped[str]
    side: Mapped[str]
    type: Mapped[str]
    price: Mapped[Decimal]
    quantity: Mapped[Decimal]
    status: Mapped[str] = mapped_column(index=True)
    created_at: Mapped[datetime]
    filled_at: Mapped[datetime | None]
    strategy: Mapped[Blank]
    timeframe: Mapped[Blank]
    filled_quantity: Mapped[Zero]
    avg_fill_price: Mapped[Decimal | None]
    arrival_price: Mapped[Decimal | None]
    purpose: Mapped[str] = mapped_column(server_default="signal")
    reason: Mapped[Blank]
    late: Mapped[bool] = mapped_column(server_default=false())
    as_of: Mapped[datetime]
    account: Mapped[str] = mapped_column(server_default="paper")


class OrderAttemptRow(Base):
    """One try to send an order to a venue, under a client order id of its own."""

    __tablename__ = "order_attempts"
    __table_args__ = (UniqueConstraint("order_id", "attempt"),)

    client_order_id: Mapped[Key]
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"))
    attempt: Mapped[int]
    epoch: Mapped[BigInt]
    signed_at: Mapped[datetime | None]
    recv_window_ms: Mapped[int]
    state: Mapped[str]
    absent_count: Mapped[int] = mapped_column(server_default="0")
    venue_order_id: Mapped[str | None]
    raw_result: Mapped[str | None]


class TradeRow(Base):
    """One fill: the only thing that moves a position."""

    __tablename__ = "trades"
    __table_args__ = (
        one_of("side", "BUY", "SELL"),
        UniqueConstraint("venue", "symbol", "venue_trade_id", "order_id"),
    )

    id: Mapped[Key]
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"), index=True)
    symbol: Mapped[str]
    side: Mapped[str]
    price: Mapped[Decimal]
    quantity: Mapped[Decimal]
    fee: Mapped[Decimal]
    fee_asset: Mapped[str]
    fee_quote: Mapped[Zero]
    traded_at: Mapped[datetime]
    as_of: Mapped[datetime] = mapped_column(index=True)
    sequence: Mapped[BigInt] = mapped_column(index=True)
    strategy: Mapped[Blank]
    timeframe: Mapped[Blank]
    reason: Mapped[Blank]
    venue: Mapped[str] = mapped_column(server_default="paper")
    venue_trade_id: Mapped[Blank]


class LedgerRow(Base):
    """One movement of one asset and its cause; the sum of all is what the account holds."""

    __tablename__ = "ledger"
    __table_args__ = (UniqueConstraint("cause_type", "cause_id", "leg"), one_of("leg", "base", "quote", "fee"))

    entry_id: Mapped[Key]
    account: Mapped[str]
    asset: Mapped[str]
    delta: Mapped[Decimal]
    cause_type: Mapped[str]
    cause_id: Mapped[str]
    leg: Mapped[str]
    as_of: Mapped[datetime]


class MovementRow(Base):
    """A flow from outside: deposit, withdrawal, manual trade."""

    __tablename__ = "movements"

    ext_id: Mapped[Key]
    account: Mapped[str]
    asset: Mapped[str]
    delta: Mapped[Decimal]
    kind: Mapped[str]
    as_of: Mapped[datetime]


class PositionRow(Base):
    """What the account holds of a symbol, the sum over all strategies."""

    __tablename__ = "positions"

    symbol: Mapped[Key]
    quantity: Mapped[Decimal]
    avg_entry_price: Mapped[Decimal]
    current_price: Mapped[Decimal]
    updated_at: Mapped[datetime]


class StrategyPositionRow(Base):
    """The sub-account of one strategy instance."""

    __tablename__ = "strategy_positions"

    strategy: Mapped[Key]
    symbol: Mapped[Key]
    timeframe: Mapped[Key]
    quantity: Mapped[Zero]
    avg_entry_price: Mapped[Zero]
    realized_pnl: Mapped[Zero]
    fees: Mapped[Zero]
    entries_open: Mapped[int] = mapped_column(server_default="0")
    cash: Mapped[Zero]
    stop_price: Mapped[Decimal | None]
    cooldown_until: Mapped[datetime | None]
    high_water_price: Mapped[Zero]
    updated_at: Mapped[datetime]
    last_sequence: Mapped[Counter]


class AllocationRow(Base):
    """The share of equity a strategy instance was given."""

    __tablename__ = "allocations"

    strategy: Mapped[Key]
    symbol: Mapped[Key]
    timeframe: Mapped[Key]
    share: Mapped[Decimal]
    cash: Mapped[Decimal]
    as_of: Mapped[datetime]
    active: Mapped[bool]


class AccountRow(Base):
    """The account as the limits see it; one row."""

    __tablename__ = "accounts"
    __table_args__ = (one_of("state", "ACTIVE", "REDUCE_ONLY", "HALT", "FLATTEN"),)

    account: Mapped[Key]
    mode: Mapped[str]
    quote_asset: Mapped[str]
    initial_balance: Mapped[Decimal]
    cash: Mapped[Decimal]
    equity: Mapped[Decimal]
    day: Mapped[Blank]
    day_equity: Mapped[Zero]
    day_flows: Mapped[Zero]
    equity_peak: Mapped[Zero]
    state: Mapped[str] = mapped_column(server_default="ACTIVE")
    state_reason: Mapped[Blank]
    as_of: Mapped[datetime | None]
    sequence: Mapped[Counter]


class ControlRow(Base):
    """The kill switch as a person or a limit set it."""

    __tablename__ = "control"
    __table_args__ = (one_of("state", "ACTIVE", "REDUCE_ONLY", "HALT", "FLATTEN"),)

    account: Mapped[Key]
    state: Mapped[str]
    reason: Mapped[Blank]
    set_by: Mapped[Blank]
    seq: Mapped[Counter]
    set_at: Mapped[datetime]


class PortfolioSnapshotRow(Base):
    """What the portfolio was worth at an instant of business time."""

    __tablename__ = "portfolio_snapshots"

    id: Mapped[Key]
    total_value: Mapped[Decimal]
    realized_pnl: Mapped[Decimal]
    unrealized_pnl: Mapped[Decimal]
    snapshot_at: Mapped[datetime] = mapped_column(index=True)
    cash: Mapped[Zero]


class StrategyStateRow(Base):
    """A strategy instance's state at a candle: where it goes on after a restart."""

    __tablename__ = "strategy_states"

    strategy: Mapped[Key]
    symbol: Mapped[Key]
    timeframe: Mapped[Key]
    state: Mapped[bytes]
    candle_open_time: Mapped[datetime]
    candles_seen: Mapped[BigInt]
    config_hash: Mapped[Blank]
    code_hash: Mapped[Blank]


class OutboxRow(Base):
    """A message that was committed with its cause and is sent until it is acknowledged."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index(None, "topic", "acked_at", "id"),
        Index(None, "topic", "key"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    topic: Mapped[str]
    key: Mapped[str]
    payload: Mapped[str]
    as_of: Mapped[datetime | None]
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    acked_at: Mapped[datetime | None]


class InboxRow(Base):
    """A message that a consumer has handled for good without a cursor to say so: a second delivery does nothing."""

    __tablename__ = "inbox"

    consumer: Mapped[Key]
    msg_id: Mapped[Key]
    received_at: Mapped[datetime]


class CursorRow(Base):
    """How far a reader has come; written in the transaction of its effects."""

    __tablename__ = "cursors"

    name: Mapped[Key]
    value: Mapped[str]


class LeaseRow(Base):
    """Who may send now; the epoch grows with every owner."""

    __tablename__ = "lease"

    name: Mapped[Key]
    epoch: Mapped[BigInt]
    holder: Mapped[str]
    build_id: Mapped[Blank]
    expires_at: Mapped[datetime]


class DeadLetterRow(Base):
    """A message nobody could read or handle."""

    __tablename__ = "dead_letters"

    id: Mapped[Key]
    stream: Mapped[str]
    message_id: Mapped[str]
    consumer: Mapped[str]
    payload: Mapped[str]
    reason: Mapped[str]
    recorded_at: Mapped[datetime]


class StampRow(Base):
    """What this database is: its mode, its quote asset, when and by which build it was made."""

    __tablename__ = "stamp"

    key: Mapped[Key]
    value: Mapped[str]

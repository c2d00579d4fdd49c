"""What a person is shown of a state: values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from shared.domain.rounding import minus
from shared.models import InstanceKey


@dataclass(frozen=True, slots=True)
class AccountOverview:
    """The account at its last mark; money in quote, percents 0..100."""

    mode: str
    quote_asset: str
    initial_balance: Decimal
    cash: Decimal
    equity: Decimal
    exposure: Decimal
    day: str
    day_base: Decimal
    day_pnl: Decimal
    equity_peak: Decimal
    drawdown_pct: float
    state: str
    state_reason: str
    as_of: datetime | None

    @property
    def change(self) -> Decimal:
        """Return equity less the opening balance."""
        return minus(self.equity, self.initial_balance)


@dataclass(frozen=True, slots=True)
class LastSignal:
    """The newest signal of an instance and what became of it; `outcome` is "" until it is decided."""

    side: str
    reason: str
    created_at: datetime
    outcome: str = ""
    outcome_reason: str = ""

    def __str__(self) -> str:
        """Return one line: the side, the refusal if there was one, the strategy's words."""
        refusal = f" {self.outcome} {self.outcome_reason}:" if self.outcome in ("refused", "ignored") else ""
        return f"{self.side}{refusal} {self.reason}".strip()


@dataclass(frozen=True, slots=True)
class InstanceOverview:
    """One strategy on one symbol; money in quote. `pnl` is realised net of fees plus unrealised at the last close."""

    key: InstanceKey
    active: bool
    share: Decimal
    signals: int
    fills: int
    quantity: Decimal
    avg_entry_price: Decimal
    current_price: Decimal
    realized_pnl: Decimal
    unrealized_pnl: Decimal
    pnl: Decimal
    fees: Decimal
    cash: Decimal
    equity: Decimal
    entries_open: int
    stop_price: Decimal | None
    turnover: Decimal
    breakeven_bps: float | None
    last_signal: LastSignal | None

    @property
    def is_orphan(self) -> bool:
        """Return whether it holds more than dust but is not enabled."""
        return not self.active and self.entries_open > 0


@dataclass(frozen=True, slots=True)
class PositionOverview:
    """What the account holds of one symbol."""

    symbol: str
    quantity: Decimal
    avg_entry_price: Decimal
    current_price: Decimal
    unrealized_pnl: Decimal


@dataclass(frozen=True, slots=True)
class GapOverview:
    """A hole in a stream."""

    symbol: str
    timeframe: str
    start: datetime
    end: datetime
    candles_missing: int
    confirmed: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything a person is shown of a state; `account` is None before the first start is complete.

    `refused` and `ignored` count by reason, `orders` by status; `gaps` are the newest, `gap_count` all;
    `watermarks` are how far each service has come, `lags` how many seconds of market it is behind the collector.
    """

    account: AccountOverview | None
    control_state: str
    control_reason: str
    instances: tuple[InstanceOverview, ...]
    positions: tuple[PositionOverview, ...]
    signals: int
    fills: int
    orders: Mapping[str, int]
    refused: Mapping[str, int]
    ignored: Mapping[str, int]
    undecided: int
    gaps: tuple[GapOverview, ...]
    gap_count: int
    quarantined: int
    dead_letters: int
    watermarks: Mapping[str, datetime]
    lags: Mapping[str, float]
    cursors: Mapping[str, str]

    @property
    def orphans(self) -> tuple[InstanceOverview, ...]:
        """Return the positions whose strategy is not enabled."""
        return tuple(instance for instance in self.instances if instance.is_orphan)

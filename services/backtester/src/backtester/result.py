"""What a run hands back: the trades, the figures, and everything needed to run it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from backtester.data import CandleData, DataFacts
from backtester.metrics import DetailedMetrics, OpenPosition
from backtester.ratios import EquityMarks
from backtester.simulator import SimulatedTrade
from shared.domain.pairing import pair_trades
from shared.domain.performance import EquityCurve
from shared.domain.rounding import ZERO
from shared.domain.trade_records import TradeRecord
from shared.models import to_decimal


class RunSeconds(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time went."""

    load: float = 0.0
    compile: float = 0.0
    run: float = 0.0


class CostRung(msgspec.Struct, frozen=True, kw_only=True):
    """The run at `factor` times its costs.

    `is_exact` tells a run of its own from the same trades at other costs; `equity` are its marks, where they are known.
    """

    factor: int
    paid: Decimal
    final_balance: Decimal
    is_exact: bool
    equity: EquityCurve | None = None


class BacktestResult(msgspec.Struct, frozen=True):
    """The outcome of one run; money in quote, `profit_pct` 0..100, `total_trades` counts legs.

    `fees_paid` and `slippage_paid` are what the fills cost against their market price; `refused` and `ignored`
    count signals by reason; `benchmarks` are the final balances of doing something simpler, by name. `faults` are
    what a strategy raised; `trial` says how often this data has been looked at (0: not counted).
    `options` are all options of the run by name, `code_hash` is of the strategy's source, `ladder` the run at other
    costs, `live_limits` what the account limits of `up` would have refused, by reason (None: not asked),
    `participation_max` the largest share of a candle's usual volume that one fill took (None: not known), and
    `candles` what it ran on, for charts. `exits_contested` counts candles that reached a stop and the target,
    `exits_resolved` those of them that finer candles decided; `entries_cut` BUYs that cash covered in part.
    """

    strategy_name: str
    symbol: str
    total_trades: int
    initial_balance: Decimal
    final_balance: Decimal
    profit: Decimal
    profit_pct: float
    trades: list[TradeRecord | SimulatedTrade] = []
    detailed: DetailedMetrics | None = None
    engine: str = "event"
    timeframe: str = ""
    params: Mapping[str, Any] = {}
    command: str = ""
    config_hash: str = ""
    fill: str = "next-open"
    fee: Decimal = ZERO
    fee_asset: str = "quote"
    slippage_bps: Decimal = ZERO
    sizing: str = "fixed"
    max_entries: int = 1
    risk: str = "off"
    data: DataFacts | None = None
    fees_paid: Decimal = ZERO
    slippage_paid: Decimal = ZERO
    signals: int = 0
    refused: dict[str, int] = {}
    ignored: dict[str, int] = {}
    equity: EquityMarks | None = None
    open_positions: tuple[OpenPosition, ...] = ()
    benchmarks: dict[str, Decimal] = {}
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    trial: int = 0
    seconds: RunSeconds = RunSeconds()
    options: Mapping[str, Any] = {}
    code_hash: str = ""
    probabilistic_sharpe: float | None = None
    ladder: tuple[CostRung, ...] = ()
    live_limits: dict[str, int] | None = None
    participation_max: float | None = None
    exits_contested: int = 0
    exits_resolved: int = 0
    entries_cut: int = 0
    candles: CandleData | None = None

    def __post_init__(self) -> None:
        """Turn money into Decimal."""
        for name in ("initial_balance", "final_balance", "profit", "fee", "slippage_bps", "fees_paid", "slippage_paid"):
            force_setattr(self, name, to_decimal(getattr(self, name)))
        force_setattr(self, "profit_pct", float(self.profit_pct))

    @property
    def win_rate(self) -> float:
        """Return the percentage of closed pairs that won, 0..100; 0 without pairs."""
        if self.detailed is not None:
            return self.detailed.win_rate
        pairs = pair_trades([to_record(trade) for trade in self.trades]).pairs
        return 100 * sum(pair.pnl > 0 for pair in pairs) / len(pairs) if pairs else 0.0


def to_record(trade: TradeRecord | SimulatedTrade) -> TradeRecord:
    """Return any engine's trade as statistics take it."""
    if isinstance(trade, TradeRecord):
        return trade
    return TradeRecord(
        trade.timestamp,
        trade.symbol,
        trade.side,
        trade.price,
        trade.quantity,
        balance_after=trade.balance_after,
    )


def option_values(options: object) -> dict[str, Any]:
    """Return the options of a run by name, whatever they are made of, as values that can be written down."""
    assert is_dataclass(options), "run options are a dataclass"
    return {field.name: _option_value(getattr(options, field.name)) for field in fields(options)}


def _option_value(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if is_dataclass(value) and type(value).__str__ is object.__str__:
        return option_values(value)
    return value if isinstance(value, str | int | float | Decimal | None) else str(value)

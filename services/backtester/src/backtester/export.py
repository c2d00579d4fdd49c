"""A result as CSV and as strict JSON.

In JSON money is written as numbers with all their digits (a reader may parse them as decimals), durations as seconds,
times as ISO 8601 UTC, what is undefined as null.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from backtester.ladder import rungs
from backtester.metrics import DetailedMetrics
from backtester.ratios import EquityMarks, sorted_marks
from backtester.result import BacktestResult, CostRung, to_record
from backtester.simulator import SimulatedTrade
from shared.domain.performance import daily_equity
from shared.domain.rounding import MONEY_CONTEXT
from shared.domain.trade_records import TradePair, TradeRecord

SCHEMA = "backtest/1"
PAIR_COLUMNS = TradePair.__struct_fields__
_DAY_MS = 86_400_000


def export_csv(result: BacktestResult) -> str:
    """Return the closed pairs as CSV with a header line; "" without any."""
    if result.detailed is None or not result.detailed.trade_pairs:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(PAIR_COLUMNS)
    for pair in result.detailed.trade_pairs:
        writer.writerow([_cell(pair[column]) for column in PAIR_COLUMNS])
    return text.getvalue()


def export_json(result: BacktestResult) -> str:
    """Return the whole result as strict JSON of the schema `backtest/1`; "{}" without metrics."""
    if result.detailed is None:
        return "{}"
    document = _how_it_was_run(result) | _what_came_of_it(result, result.detailed)
    encoder = msgspec.json.Encoder(decimal_format="number")
    return msgspec.json.format(encoder.encode(to_plain(document)), indent=2).decode()


def _how_it_was_run(result: BacktestResult) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "version": version("trading-backtester"),
        "engine": result.engine,
        "strategy": result.strategy_name,
        "symbol": result.symbol,
        "timeframe": result.timeframe,
        "params": result.params,
        "command": result.command,
        "config_hash": result.config_hash,
        "code_hash": result.code_hash,
        "fill": result.fill,
        "fee": result.fee,
        "fee_asset": result.fee_asset,
        "slippage_bps": result.slippage_bps,
        "sizing": result.sizing,
        "max_entries": result.max_entries,
        "risk": result.risk,
        "options": result.options,
        "data": result.data,
    }


def _what_came_of_it(result: BacktestResult, metrics: DetailedMetrics) -> dict[str, Any]:
    return {
        "initial_balance": result.initial_balance,
        "final_balance": result.final_balance,
        "profit": result.profit,
        "profit_pct": result.profit_pct,
        "fees_paid": result.fees_paid,
        "slippage_paid": result.slippage_paid,
        "signals": result.signals,
        "refused": result.refused,
        "ignored": result.ignored,
        "live_limits": result.live_limits,
        "participation_max": result.participation_max,
        "exits_contested": result.exits_contested,
        "exits_resolved": result.exits_resolved,
        "entries_cut": result.entries_cut,
        "benchmarks": result.benchmarks,
        "ladder": [_rung(rung) for rung in rungs(result)],
        "notes": result.notes,
        "trial": result.trial,
        "probabilistic_sharpe": result.probabilistic_sharpe,
        "metrics": metrics,
        "open_positions": result.open_positions or metrics.open_positions,
        "equity_daily": _equity_daily(result.equity, float(result.initial_balance)),
        "trades": [_trade(trade) for trade in result.trades],
        "seconds": result.seconds,
    }


def to_plain(value: Any) -> Any:
    """Return `value` as what JSON knows; not finite numbers become null, anything unknown its text."""
    write = _SCALARS.get(type(value))
    if write is not None:
        return write(value)
    if isinstance(value, msgspec.Struct):
        return {name: to_plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item) for item in value]
    if isinstance(value, Enum):
        return to_plain(value.value)
    return to_plain(value.item()) if isinstance(value, np.generic) else str(value)


def _trade(trade: TradeRecord | SimulatedTrade) -> dict[str, Any]:
    record = to_record(trade)
    row = {
        "time": record.time,
        "signal_time": record.signal_time,
        "symbol": record.symbol,
        "strategy": record.strategy,
        "side": record.side,
        "price": record.price,
        "quantity": record.quantity,
        "fee": record.fee,
        "balance_after": record.balance_after,
    }
    return row | ({"reason": record.reason} if record.reason else {})


def _rung(rung: CostRung) -> dict[str, Any]:
    return {name: getattr(rung, name) for name in ("factor", "paid", "final_balance", "is_exact")}


def _equity_daily(equity: EquityMarks | None, initial_balance: float) -> dict[str, float]:
    """Return the last mark of each UTC day, by date."""
    if equity is None or len(sorted_marks(equity, None).curve.value) == 0:
        return {}
    curve = sorted_marks(equity, None).curve
    values = daily_equity(curve, initial_balance)[1:]
    first_day = int((curve.time_ms[0] - 1) // _DAY_MS)
    days = np.datetime_as_string(np.arange(first_day, first_day + len(values)).astype("datetime64[D]")).tolist()
    return dict(zip(days, values.tolist(), strict=True))


def _trimmed(value: Decimal) -> Decimal:
    """Return the same number without the zeros that 18 kept decimals leave at its end, never in powers of ten."""
    short = value.normalize(MONEY_CONTEXT)
    return Decimal(format(short, "f")) if "E" in str(short) else short


def _iso(moment: datetime | date) -> str:
    if isinstance(moment, datetime):
        utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
        return utc.isoformat().replace("+00:00", "Z")
    return moment.isoformat()


def _cell(value: Any) -> str:
    match value:
        case Decimal():
            return format(_trimmed(value), "f")
        case timedelta():
            return format(_trimmed(Decimal(str(value.total_seconds()))), "f")
        case datetime():
            return _iso(value)
        case _:
            return _safe_text(str(value))


def _safe_text(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: one that begins like one gets an apostrophe."""
    return f"'{text}" if text[:1] in ("=", "@", "\t", "\r") else text


def _decimal_number(value: Decimal) -> Decimal | None:
    return _trimmed(value) if value.is_finite() else None


def _float_number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _as_is(value: Any) -> Any:
    return value


_SCALARS: Mapping[type, Callable[[Any], Any]] = MappingProxyType(
    {
        Decimal: _decimal_number,
        float: _float_number,
        int: _as_is,
        str: _as_is,
        bool: _as_is,
        type(None): _as_is,
        datetime: _iso,
        date: _iso,
        timedelta: timedelta.total_seconds,
    }
)

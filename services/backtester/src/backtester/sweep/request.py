"""What a person asks a sweep for, and what of it decides its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from backtester.data import CandleData
from backtester.options import BacktestOptions
from backtester.result import option_values
from backtester.sweep.grid import Axes
from shared.instruments import FREE
from shared.plugins import StrategyPlugin


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """What a person asks for; `params` hold for every set, `null` is the number of shuffled markets beside the data."""

    strategy: str
    data: str
    symbol: str
    timeframe: str
    grid: Axes
    out: Path
    params: Mapping[str, Any] = field(default_factory=dict)
    initial_balance: Decimal = Decimal(10_000)
    options: BacktestOptions = field(default_factory=BacktestOptions)
    instrument: str = FREE
    start: datetime | None = None
    end: datetime | None = None
    null: int = 9
    seed: int = 1
    threads: int = 1
    resume: bool = False
    strategies_dir: Path | None = None
    database_url: str | None = None
    trials: Path | None = None
    command: str = ""


def request_identity(request: SweepRequest, plugin: StrategyPlugin, data: CandleData) -> dict[str, Any]:
    """Return what makes a sweep another one: everything that decides a figure of it."""
    return {
        **{name: _plain(value) for name, value in option_values(request.options).items()},
        "sizing": str(request.options.sizing),
        "strategy": plugin.name,
        "code_hash": plugin.code_hash,
        "symbol": request.symbol,
        "timeframe": request.timeframe,
        "data_sha256": data.sha256,
        "first": str(data.first),
        "last": str(data.last),
        "candles": data.rows,
        "params": dict(request.params),
        "grid": {name: list(values) for name, values in request.grid.items()},
        "initial_balance": str(request.initial_balance),
        "instrument": request.instrument,
        "null": request.null,
        "seed": request.seed,
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | str | None) else str(value)

"""Candles without a file: the simulated market, so many days of it, the same for everybody who names its seed."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from shared.candle_columns import CandleColumns
from shared.candle_files import CandleFile, check_stream
from shared.errors import ConfigError
from shared.models import to_milliseconds
from shared.synthetic_market import DAY_MS, SyntheticMarket, combine_minutes

SIMULATED_SOURCE = "simulated:"
DAYS_MAX = 3_660
SEED_MAX = 2**63 - 1
SEED_USUAL = 1
START = datetime(2025, 1, 1, tzinfo=UTC)  # where the simulated feed begins too: the same seed is the same market


def simulated_candles(source: str, symbol: str, timeframe: str) -> CandleFile:
    """Return the candles that `simulated:DAYS` or `simulated:DAYS:SEED` names; a ConfigError says what is wrong."""
    check_stream(symbol, timeframe)
    days, seed = _days_and_seed(source)
    market, first_day = SyntheticMarket(symbol, seed), to_milliseconds(START) // DAY_MS
    parts = [combine_minutes(market.minutes(first_day + day), timeframe) for day in range(days)]
    columns = CandleColumns(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    digest = hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()
    return CandleFile(path=Path(source), symbol=symbol, timeframe=timeframe, sha256=digest, **columns._asdict())


def _days_and_seed(source: str) -> tuple[int, int]:
    days, _, seed = source.removeprefix(SIMULATED_SOURCE).partition(":")
    numbers = [int(text) if text.isascii() and text.isdigit() else -1 for text in (days, seed or str(SEED_USUAL))]
    if not (1 <= numbers[0] <= DAYS_MAX and 0 <= numbers[1] <= SEED_MAX):
        raise ConfigError(
            f"data: {source!r} names no simulated market; write {SIMULATED_SOURCE}DAYS or {SIMULATED_SOURCE}DAYS:SEED "
            f"with 1 to {DAYS_MAX} days, for example {SIMULATED_SOURCE}365"
        )
    return numbers[0], numbers[1]

"""The market on which tools are compared: one fixed random walk of one-minute candles, as plain arrays.

Needs numpy alone, since programs in the environments of other tools read it too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

CANDLES_A_YEAR = 525_600
START = np.datetime64("2024-01-01T00:00:00", "ms")
MINUTE_MS = 60_000
COLUMNS = ("open", "high", "low", "close", "volume")


def peer_market(rows: int = CANDLES_A_YEAR) -> dict[str, Any]:
    """Return `open_time` (int64 milliseconds since 1970) and the five float64 columns of `rows` candles.

    Four normal steps of 0.04 % a candle around 50,000, generator seed 42; the last step is the close, the next
    candle opens there; prices have two decimals, volumes are log-normal.
    """
    random = np.random.default_rng(42)
    steps = random.normal(0, 0.0004, (rows, 4))
    points = np.exp(np.cumsum(steps).reshape(rows, 4) + np.log(50_000.0))
    volume = random.lognormal(1, 1, rows).round(4) + 0.0001
    before = np.concatenate([[50_000.0], points[:-1, 3]])
    opening, close = before.round(2), points[:, 3].round(2)
    high = np.maximum(np.maximum(points.max(axis=1), before).round(2), np.maximum(opening, close))
    low = np.minimum(np.minimum(points.min(axis=1), before).round(2), np.minimum(opening, close))
    open_time = START.astype(np.int64) + np.arange(rows, dtype=np.int64) * MINUTE_MS
    return {"open_time": open_time, "open": opening, "high": high, "low": low, "close": close, "volume": volume}


def write_parquet(market: dict[str, Any], path: Path) -> Path:
    """Write the market as the platform reads it, and return `path`."""
    import polars as pl  # not in the environments of other tools

    frame = pl.DataFrame(market).with_columns(
        pl.col("open_time").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC").alias("open_time")
    )
    frame.write_parquet(path)
    return path

"""Candles to measure with: recorded ones where they are at hand, else a seeded random walk; the figure says which."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

CHECKOUT = Path(__file__).resolve().parents[1]
RECORDED = "data/candles/binance-BTCUSDT-1m-2024crash.parquet"
START = np.datetime64("2024-01-01T00:00:00", "ms")


@dataclass(frozen=True, slots=True)
class Market:
    """A candle file and what it holds."""

    path: Path
    name: str
    rows: int


def one_minute_market(folder: Path, rows: int) -> Market:
    """Write `rows` one-minute candles of BTC/USDT to `folder`."""
    recorded = Path(os.environ.get("TRADING_REFERENCE", CHECKOUT.parent / "shared")) / RECORDED
    if recorded.exists():
        frame = pl.read_parquet(recorded).head(rows)
        name = "recorded BTC/USDT 1m from 2024-07-26"
    else:
        frame = random_walk(rows)
        name = "random walk, seed 42 (no recorded candles at hand)"
    path = folder / "market.parquet"
    frame.write_parquet(path)
    return Market(path, name, frame.height)


def random_walk(rows: int) -> pl.DataFrame:
    """Return a geometric random walk with four points a candle, around 50,000."""
    random = np.random.default_rng(42)
    points = 50_000 * np.exp(np.cumsum(random.normal(0, 0.0004, rows * 4))).reshape(rows, 4)
    close = points[:, 3].round(2)
    opening = np.concatenate([[50_000.0], close[:-1]])
    high = np.maximum(points.max(axis=1).round(2), np.maximum(opening, close))
    low = np.minimum(points.min(axis=1).round(2), np.minimum(opening, close))
    volume = random.lognormal(1, 1, rows).round(4) + 0.0001
    times = START + np.arange(rows) * np.timedelta64(60_000, "ms")
    columns = {"open": opening, "high": high, "low": low, "close": close, "volume": volume}
    return pl.DataFrame({"open_time": times, **columns}).with_columns(pl.col("open_time").dt.replace_time_zone("UTC"))

"""The market of the crash tests: a fall and part of the way back, without a hole, counted candle by candle.

It is recorded where recorded data is at hand, else made up in the same form: the proof needs no file of anybody's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import exp, sin
from pathlib import Path
from typing import Final, NamedTuple

from shared.clock import seeded_random
from shared.models import to_milliseconds
from shared.testing.platform_runs import PlatformRun
from shared.testing.reference import find_reference

SOURCE: Final = "data/candles/binance-BTCUSDT-1m-2024crash.parquet"
FIRST: Final = datetime(2024, 8, 4, tzinfo=UTC)
SEED: Final = 20240804
LEVELS: Final = ((0, 60_700.0), (900, 58_000.0), (1_560, 49_600.0), (2_000, 54_500.0), (4_000, 56_000.0))  # by minute
DROP, DROP_FIRST, DROP_EVERY, DROP_MINUTES = 0.06, 330, 430, 12
GRID: Final = (
    '{"grid": {"lower_price": 49000, "upper_price": 61000, "grid_count": 12}}'  # its own range is above the crash
)


class CrashMarket(NamedTuple):
    """A file of one-minute candles of BTC/USDT."""

    path: Path
    candles: int

    @property
    def data(self) -> str:
        """Return the file as the setting `data` names it."""
        return f"BTC/USDT:1m={self.path}"

    def close_ms(self, candle: int) -> int:
        """Return the close time of candle number `candle`, counted from 1."""
        return to_milliseconds(FIRST) + candle * 60_000


def write_crash_market(folder: Path, candles: int) -> CrashMarket:
    """Write the first `candles` minutes from 2024-08-04, recorded or made up."""
    import polars

    path, recorded = folder / "candles.parquet", find_reference(SOURCE)
    frame = polars.DataFrame(made_up_crash(candles)) if recorded is None else polars.read_parquet(recorded)
    rows = frame.filter(polars.col("open_time") >= FIRST).head(candles)
    assert rows.height == candles
    assert rows["open_time"].diff().drop_nulls().n_unique() == 1, "the slice has a hole: candles cannot be counted"
    rows.write_parquet(path)
    return CrashMarket(path, candles)


def made_up_crash(candles: int) -> list[dict[str, object]]:
    """Return minutes from `FIRST` on: a day of falling by a fifth, two of coming half the way back, then up and down.

    Now and then a minute falls through the stops and what follows climbs back.
    """
    chance, rows = seeded_random(SEED), []
    strayed, price = 0.0, LEVELS[0][1]
    for minute in range(candles):
        strayed += -strayed / 180 + chance.gauss(0, 0.0008)
        since_drop = (minute - DROP_FIRST) % DROP_EVERY if minute >= DROP_FIRST else DROP_MINUTES
        drop = DROP * max(0.0, 1 - since_drop / DROP_MINUTES)
        opened, price = price, round(_level(minute) * (1 - drop) * exp(strayed), 2)
        reach = [abs(chance.gauss(0, 0.0004)) for _ in range(2)]
        rows.append(
            {
                "open_time": FIRST + timedelta(minutes=minute),
                "open": opened,
                "high": round(max(opened, price) * (1 + reach[0]), 2),
                "low": round(min(opened, price) * (1 - reach[1]), 2),
                "close": price,
                "volume": round(40 * exp(chance.gauss(0, 0.7)), 5),
            }
        )
    return rows


def _level(minute: int) -> float:
    """Return the price that the market strays around."""
    *_, (last, level) = LEVELS
    if minute >= last:
        return level * (1 + 0.04 * sin((minute - last) / 500))
    (start, low), (end, high) = next(pair for pair in pairwise(LEVELS) if minute < pair[1][0])
    return low + (high - low) * (minute - start) / (end - start)


class Undisturbed(NamedTuple):
    """A run in one process that nobody disturbed: what it was run on, how, and the file that holds its end."""

    market: CrashMarket
    options: tuple[str, ...]
    database: Path

    @property
    def candles(self) -> int:
        """Return how many candles it handled."""
        return self.market.candles


def run_undisturbed(folder: Path, candles: int) -> Undisturbed:
    """Replay the first `candles` minutes with every strategy that ships, to the end."""
    market = write_crash_market(folder, candles)
    options = ("--feed", "replay", "--data", market.data, "--speed", "max", "--balance", "100000")
    run = PlatformRun(folder / "state", (*options, "--strategy-params", GRID))
    ended = run.finish()
    assert ended.code == 0, ended.output
    return Undisturbed(market, tuple(run.options), run.database)

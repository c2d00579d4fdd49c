"""The recorded market of the crash tests: a fall and part of the way back, without a hole, counted candle by candle."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from shared.models import to_milliseconds
from shared.testing.platform_runs import PlatformRun
from shared.testing.reference import reference_path

SOURCE: Final = "data/candles/binance-BTCUSDT-1m-2024crash.parquet"
FIRST: Final = datetime(2024, 8, 4, tzinfo=UTC)
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
    """Write the first `candles` minutes from 2024-08-04; skips the test where recorded data is absent."""
    import polars

    path = folder / "candles.parquet"
    frame = polars.read_parquet(reference_path(SOURCE))
    rows = frame.filter(polars.col("open_time") >= FIRST).head(candles)
    assert rows.height == candles
    assert rows["open_time"].diff().drop_nulls().n_unique() == 1, "the slice has a hole: candles cannot be counted"
    rows.write_parquet(path)
    return CrashMarket(path, candles)


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

"""Small recordings and running exchanges for tests of this service and of its clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from paper_exchange.market.sources import file_recording
from paper_exchange.server import ExchangeOptions, PaperExchange
from shared.candle_files import CandleFile
from shared.clock import Clock, SystemClock
from shared.models import to_milliseconds
from shared.synthetic_market import DAY_MS, SyntheticMarket, combine_minutes

FIRST_DAY_MS = to_milliseconds(datetime(2024, 3, 4, tzinfo=UTC))


def simulated_file(
    symbol: str = "BTC/USDT", timeframe: str = "1m", *, rows: int = 60, without: Collection[int] = (), seed: int = 5
) -> CandleFile:
    """Return the first `rows` candles of a simulated day as a file would hold them, but those numbered in `without`."""
    minutes = combine_minutes(SyntheticMarket(symbol, seed).minutes(FIRST_DAY_MS // DAY_MS), timeframe)
    kept = [row for row in range(rows) if row not in without]
    return CandleFile(
        path=Path(f"{symbol.replace('/', '')}-{timeframe}.parquet"),
        symbol=symbol,
        timeframe=timeframe,
        sha256="",
        open_time_ms=minutes.open_time_ms[kept],
        open=minutes.open[kept],
        high=minutes.high[kept],
        low=minutes.low[kept],
        close=minutes.close[kept],
        volume=minutes.volume[kept],
    )


@asynccontextmanager
async def exchange_of(
    *files: CandleFile,
    options: ExchangeOptions | None = None,
    history_candles: int | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[PaperExchange]:
    """Run an exchange of candle files, by default one of simulated minutes, for the length of a block."""
    recording = file_recording(files or (simulated_file(),), history_candles)
    exchange = PaperExchange(recording, options or ExchangeOptions(), clock or SystemClock())
    async with exchange.running():
        yield exchange

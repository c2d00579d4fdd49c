"""A market made of a seed: believable prices for ever, no network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from data_collector.feeds.market import DAY_MS, SyntheticMarket, aggregate_minutes
from data_collector.feeds.port import FeedBatch, ResumePoint, StreamKey
from data_collector.feeds.timeline import BATCH_CANDLES_MAX, MergedWindow, Pace, StreamColumns, paced_batches
from shared.clock import Clock
from shared.errors import ConfigError
from shared.models import TIMEFRAME_SECONDS, Candle, to_milliseconds

SIMULATION_START = datetime(2025, 1, 1, tzinfo=UTC)  # where the paced run begins; history lies before it
HISTORY_CANDLES = 500
HISTORY_ROWS_MAX = 1000
_MINUTES_A_DAY = 1440


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a simulated run is made of; the same values give the same candles, bit for bit."""

    streams: tuple[StreamKey, ...]
    seed: int = 1
    speed: float | None = 1.0
    history_candles: int = HISTORY_CANDLES
    batch_candles_max: int = BATCH_CANDLES_MAX
    start: datetime = field(default=SIMULATION_START)


class SimulatedFeed:
    """Serves every stream from a market that is a pure function of (seed, symbol, minute).

    The first run sends `history_candles` of each stream at once, then goes on at `speed`; a later run goes on
    after the stored watermark. Longer timeframes are made of the minutes. A missing minute is missing for good.
    """

    name = "simulated"
    deterministic = True

    def __init__(self, simulation: Simulation, clock: Clock) -> None:
        if not simulation.streams:
            raise ConfigError("symbols: the simulated feed needs at least one symbol and timeframe")
        self._simulation = simulation
        self._clock = clock
        self._start_ms = to_milliseconds(simulation.start)
        if self._start_ms % DAY_MS:
            raise ConfigError(f"simulation: the start must be a midnight UTC, was {simulation.start.isoformat()}")
        symbols = sorted({stream.symbol for stream in simulation.streams})
        self._markets = {symbol: SyntheticMarket(symbol, simulation.seed) for symbol in symbols}
        self._first_open_ms = {
            stream: self._start_ms - simulation.history_candles * TIMEFRAME_SECONDS[stream.timeframe] * 1000
            for stream in simulation.streams
        }

    @property
    def identity(self) -> str:
        """Return what must not change between two runs on one state."""
        return f"simulated seed={self._simulation.seed}"

    def streams(self) -> Sequence[StreamKey]:
        """Return every stream served, sorted."""
        return sorted(self._first_open_ms)

    async def history(self, symbol: str, timeframe: str, since: datetime, until: datetime) -> Sequence[Candle]:
        """Return the market's candles with since <= open_time < until, the first `HISTORY_ROWS_MAX` of them."""
        stream = StreamKey(symbol, timeframe)
        since_ms = max(to_milliseconds(since), self._first_open_ms[stream])
        until_ms = min(to_milliseconds(until), since_ms + 2 * HISTORY_ROWS_MAX * TIMEFRAME_SECONDS[timeframe] * 1000)
        days = range(since_ms // DAY_MS, -(-until_ms // DAY_MS))
        parts = [self._aggregate(stream, day).opening_within(since_ms, until_ms) for day in days]
        candles: list[Candle] = []
        for part in parts:
            window = MergedWindow([part])
            candles.extend(window.candles(0, len(window)))
        return candles[:HISTORY_ROWS_MAX]

    def batches(self, resume: ResumePoint) -> AsyncIterator[FeedBatch]:
        """Return the batches that close after `resume.watermark`; the iterator never ends."""
        after_ms = min(self._first_open_ms.values()) if resume.watermark_ms is None else resume.watermark_ms
        pace = Pace(self._clock, self._simulation.speed, anchor_ms=max(after_ms, self._start_ms))
        return paced_batches(self._windows(after_ms), pace, self._simulation.batch_candles_max)

    async def close(self) -> None:
        """Hold nothing open."""

    def _windows(self, after_ms: int) -> Iterator[MergedWindow]:
        day = after_ms // DAY_MS
        while True:
            end_ms = (day + 1) * DAY_MS
            parts = []
            for stream, first_open_ms in self._first_open_ms.items():
                if first_open_ms < end_ms:
                    part = self._aggregate(stream, day).closing_within(after_ms, end_ms)
                    parts.append(part.opening_within(first_open_ms, end_ms))
            yield MergedWindow(parts)
            day += 1

    def _aggregate(self, stream: StreamKey, day: int) -> StreamColumns:
        return aggregate_minutes(self._markets[stream.symbol].minutes(day), stream.timeframe)

"""Between a socket's callback and the database: a bounded queue that never waits."""

from __future__ import annotations

import asyncio
from collections import deque
from decimal import Decimal

from data_collector.feeds.port import FeedBatch, MalformedCandle, StreamKey
from shared.clock import Clock
from shared.events import CandleOpened
from shared.models import Candle, from_milliseconds

INTAKE_CANDLES_MAX = 10_000
MALFORMED_MAX = 1_000


class LiveIntake:
    """Takes what a socket brings without ever waiting, and gives it out in batches.

    Full, it drops the newest candle and says so: the next batch is marked `reconnected`, so every stream is
    back-filled from the venue's history and nothing is lost.
    """

    def __init__(self, clock: Clock, *, candles_max: int = INTAKE_CANDLES_MAX) -> None:
        self._clock = clock
        self.candles_max = candles_max
        self._candles: deque[tuple[float, Candle]] = deque()
        self._opened: dict[tuple[str, str], CandleOpened] = {}
        self._malformed: deque[MalformedCandle] = deque(maxlen=MALFORMED_MAX)
        self._reconnected = False
        self._finished = False
        self._bell = asyncio.Event()
        self.dropped_total = 0

    @property
    def depth(self) -> int:
        """Return how many candles wait."""
        return len(self._candles)

    @property
    def oldest_wait_seconds(self) -> float:
        """Return how long the oldest candle has waited; 0 when none does."""
        return self._clock.monotonic() - self._candles[0][0] if self._candles else 0.0

    def offer(self, candle: Candle) -> bool:
        """Queue a closed candle; False when the queue is full and the candle is left to the back-fill."""
        if len(self._candles) >= self.candles_max:
            self.dropped_total += 1
            self._reconnected = True
            return False
        self._candles.append((self._clock.monotonic(), candle))
        self._bell.set()
        return True

    def offer_opened(self, opened: CandleOpened) -> None:
        """Note the first frame of a new candle; only the newest of a stream is kept."""
        self._opened[opened.symbol, opened.timeframe] = opened
        self._bell.set()

    def offer_open(self, stream: StreamKey, open_ms: int, price: Decimal) -> None:
        """Note that a candle has opened at a price; one that is no price says nothing."""
        if price.is_finite() and price > 0:
            opened = from_milliseconds(open_ms)
            self.offer_opened(CandleOpened(**stream._asdict(), open_time=opened, open=format(price, "f")))

    def offer_malformed(self, malformed: MalformedCandle) -> None:
        """Note a message nobody can read; the oldest are dropped above a thousand."""
        self._malformed.append(malformed)
        self._bell.set()

    def note_reconnect(self) -> None:
        """Ask for a back-fill of every stream with the next batch."""
        self._reconnected = True
        self._bell.set()

    def finish(self) -> None:
        """Say that nothing more will come; what waits is still given out."""
        self._finished = True
        self._bell.set()

    async def take(self, candles_max: int) -> FeedBatch | None:
        """Wait for something and return it, at most `candles_max` candles; None after `finish`."""
        while not (self._candles or self._opened or self._malformed or self._reconnected):
            if self._finished:
                return None
            self._bell.clear()
            await self._bell.wait()
        candles = [self._candles.popleft()[1] for _ in range(min(candles_max, len(self._candles)))]
        batch = FeedBatch(
            candles=tuple(sorted(candles, key=lambda each: (each.close_time, each.symbol, each.timeframe))),
            opened=tuple(self._opened.values()),
            malformed=tuple(self._malformed),
            reconnected=self._reconnected,
        )
        self._opened.clear()
        self._malformed.clear()
        self._reconnected = False
        return batch

"""Back-pressure: how far a deterministic feed may run ahead of whoever reads its candles."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select

from data_collector.feeds.port import StreamKey
from shared.broker import Broker
from shared.clock import Clock
from shared.db import Database
from shared.errors import BrokerError
from shared.events import WATERMARK_STREAM
from shared.models import TIMEFRAME_DELTA, Candle
from shared.sa_models import CandleRow

POLL_SECONDS = 0.05
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Batch:
    """Candles stored together, the last of which closes at `until`; of what an earlier run stored only the count."""

    until: datetime
    count: int
    candles: Sequence[Candle] = ()

    def take(self, moment: datetime) -> int:
        """Leave out what has closed by `moment`, and return how many those are."""
        if not self.candles or self.candles[0].close_time > moment:
            return 0
        self.candles = [candle for candle in self.candles if candle.close_time > moment]
        taken, self.count = self.count - len(self.candles), len(self.candles)
        return taken


class FeedAhead:
    """Counts the stored candles that the slowest consumer has not handled, by the consumers' cursors.

    A consumer `engine` is as far as the cursor `engine/watermark` says (milliseconds of a close time); one that
    never wrote it has handled nothing. Without consumers there is always room.
    """

    def __init__(
        self, database: Database, broker: Broker, clock: Clock, *, consumers: Sequence[str], candles_max: int
    ) -> None:
        self._database = database
        self._broker = broker
        self._clock = clock
        self._cursors = tuple(f"{name}/watermark" for name in consumers)
        self._candles_max = candles_max
        self._stored: deque[_Batch] = deque()  # oldest first
        self._slowest = _BEGINNING
        self._last_bell = "$"
        self.candles = 0

    async def load(self, streams: Sequence[StreamKey], watermark: datetime | None) -> None:
        """Count what an earlier run stored and the slowest consumer has not handled."""
        self._stored.clear()
        self.candles = 0
        if not self._cursors or watermark is None:
            return
        await self._look()
        async with self._database.read() as session:
            for stream in streams:
                statement = (
                    select(func.count())
                    .select_from(CandleRow)
                    .where(
                        CandleRow.symbol == stream.symbol,
                        CandleRow.timeframe == stream.timeframe,
                        CandleRow.open_time > self._slowest - TIMEFRAME_DELTA[stream.timeframe],
                    )
                )
                self.candles += (await session.execute(statement)).scalar_one()
        self._stored.append(_Batch(watermark, self.candles))

    def record(self, candles: Sequence[Candle]) -> None:
        """Note stored candles, in the order of their close times."""
        if not self._cursors or not candles:
            return
        self.candles += len(candles)
        self._stored.append(_Batch(candles[-1].close_time, len(candles), candles))

    async def wait_for_room(self, candles: int, stop: asyncio.Event) -> bool:
        """Wait until `candles` more are allowed; False when `stop` came first.

        A batch larger than the bound goes out once everything before it is handled.
        """
        while not stop.is_set():
            if not self._cursors or self.candles == 0 or self.candles + candles <= self._candles_max:
                return True
            if not await self._look():
                await self._wait_for_bell()
        return False

    async def _look(self) -> bool:
        """Read the cursors; return whether the slowest consumer moved."""
        async with self._database.read() as session:
            found = [await self._database.read_moment(name, session) for name in self._cursors]
        slowest = min(moment or _BEGINNING for moment in found)
        moved = slowest > self._slowest
        self._slowest = slowest
        while self._stored and self._stored[0].until <= slowest:
            self.candles -= self._stored.popleft().count
        if self._stored:
            self.candles -= self._stored[0].take(slowest)
        return moved

    async def _wait_for_bell(self) -> None:
        """Wait for any service's watermark, at most a moment: the bus may be silent, the cursors are the truth."""
        try:
            messages = await self._broker.read(
                WATERMARK_STREAM, self._last_bell, count=1000, block_ms=round(POLL_SECONDS * 1000)
            )
        except BrokerError:
            await self._clock.sleep(POLL_SECONDS)
            return
        if messages:
            self._last_bell = messages[-1].id

"""A live feed played from a script: what a venue's socket and its REST history would do, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from data_collector.feeds.port import FeedBatch, ResumePoint, StreamKey
from shared.errors import VenueUnavailable
from shared.models import Candle

SCRIPT_START = datetime(2024, 1, 1, tzinfo=UTC)


def build_candle(number: int, symbol: str = "BTC/USDT", **changes: object) -> Candle:
    """Return minute `number` of a day, prices rising by 1 from 100; `changes` replace fields."""
    price = Decimal(100 + number)
    fields: dict[str, object] = {
        "symbol": symbol,
        "timeframe": "1m",
        "open_time": SCRIPT_START + timedelta(minutes=number),
        "open": price,
        "high": price + 2,
        "low": price - 2,
        "close": price + 1,
        "volume": Decimal(3),
    }
    return Candle(**{**fields, **changes})  # type: ignore[arg-type]


class ScriptedFeed:
    """Sends the batches of a script and answers `history` from what the venue holds.

    `history_failures` is how many history calls fail before one succeeds.
    """

    name = "scripted"
    deterministic = False
    identity = "scripted"
    clock_offset = timedelta(0)

    def __init__(
        self,
        script: Iterable[FeedBatch],
        venue: Iterable[Candle] = (),
        *,
        streams: Sequence[StreamKey] = (StreamKey("BTC/USDT", "1m"),),
        page_rows_max: int = 1000,
        history_failures: int = 0,
    ) -> None:
        self._script = list(script)
        self._venue = sorted(venue, key=lambda candle: candle.open_time)
        self._streams = sorted(streams)
        self._page_rows_max = page_rows_max
        self._failures_left = history_failures
        self.asked: list[tuple[StreamKey, datetime, datetime]] = []

    def streams(self) -> Sequence[StreamKey]:
        """Return every stream served, sorted."""
        return self._streams

    def publish(self, *candles: Candle) -> None:
        """Let the venue's history show more candles from now on."""
        self._venue = sorted([*self._venue, *candles], key=lambda candle: candle.open_time)

    async def history(self, symbol: str, timeframe: str, since: datetime, until: datetime) -> Sequence[Candle]:
        """Return what the venue holds of a stream with since <= open_time < until, one page of it."""
        self.asked.append((StreamKey(symbol, timeframe), since, until))
        if self._failures_left:
            self._failures_left -= 1
            raise VenueUnavailable("scripted", "no answer")
        rows = [
            each
            for each in self._venue
            if (each.symbol, each.timeframe) == (symbol, timeframe) and since <= each.open_time < until
        ]
        return rows[: self._page_rows_max]

    async def newest(self, symbol: str, timeframe: str) -> datetime | None:
        """Return the open time of the newest candle that the venue holds of a stream."""
        times = [each.open_time for each in self._venue if (each.symbol, each.timeframe) == (symbol, timeframe)]
        return max(times, default=None)

    async def batches(self, resume: ResumePoint) -> AsyncIterator[FeedBatch]:  # noqa: ARG002 - a socket cannot resume
        """Yield the script."""
        for batch in self._script:
            await asyncio.sleep(0)  # a socket's reader lets others run
            yield batch

    def troubles(self) -> Sequence[str]:
        """Return nothing: a script is never away."""
        return []

    async def close(self) -> None:
        """Hold nothing open."""

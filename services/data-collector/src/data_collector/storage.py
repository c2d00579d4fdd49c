"""Candles into the database and, after the commit, onto the bus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from data_collector.feeds.port import CandleGap, MalformedCandle
from data_collector.validation import PAYLOAD_CHARACTERS_MAX, CandleValidator, ValidationRules
from shared.broker_port import Broker, Publishable
from shared.clock import Clock, SystemClock, derived_id
from shared.db import CandleWrite, Database
from shared.events import (
    WATERMARK_STREAM,
    CandleOpened,
    Event,
    Watermark,
    candle_stream,
    encoded_candle,
    opened_stream,
)
from shared.models import Candle
from shared.sa_models import CandleGapRow, QuarantineRow

SERVICE = "data-collector"
QUARANTINE_ROWS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class StoreBatch:
    """What goes into one transaction."""

    candles: Sequence[Candle] = ()
    malformed: Sequence[MalformedCandle] = ()
    gaps: Sequence[CandleGap] = ()
    cursors: Mapping[str, str | int] = field(default_factory=dict)


class CandleStorage:
    """Stores validated candles with all that belongs to them, and announces the new ones."""

    def __init__(
        self,
        db: Database,
        broker: Broker,
        *,
        clock: Clock | None = None,
        rules: ValidationRules | None = None,
        quarantine_rows_max: int = QUARANTINE_ROWS_MAX,
    ) -> None:
        self._database = db
        self._broker = broker
        self._clock = clock or SystemClock()
        self._validator = CandleValidator(rules or ValidationRules())
        self._quarantine_rows_max = quarantine_rows_max

    async def store(self, candle: Candle) -> bool:
        """Check, store and announce one candle; False for a known, a revised or a malformed one."""
        return bool((await self.store_many([candle])).new)

    async def store_many(self, candles: Sequence[Candle]) -> CandleWrite:
        """Check, store in one transaction and announce candles; malformed ones go to the quarantine."""
        good, malformed = self._validator.split(candles)
        write = await self.write(StoreBatch(candles=good, malformed=malformed))
        await self.announce(write.new)
        return write

    async def write(self, batch: StoreBatch) -> CandleWrite:
        """Store a batch of checked candles, its quarantine, gaps and cursors in one transaction; announce nothing.

        Safe to run again: every row has a natural key.
        """
        async with self._database.batch() as session:
            written = await self._database.upsert_candles(batch.candles, session) if batch.candles else None
            if batch.gaps:
                await self._write_gaps(session, batch.gaps)
            if batch.malformed:
                await self._write_quarantine(session, batch.malformed)
            if batch.cursors:
                await self._database.write_cursors(session, batch.cursors)
        return written or CandleWrite(0, 0, 0)

    async def announce(
        self, candles: Iterable[Candle], watermark: datetime | None = None, opened: Iterable[CandleOpened] = ()
    ) -> None:
        """Ring the bell for stored candles, then for the watermark, in one round trip."""
        items: list[tuple[str, Publishable]] = [
            (opened_stream(each.symbol, each.timeframe), Event(data=each, as_of=each.open_time)) for each in opened
        ]
        names: dict[tuple[str, str], str] = {}
        for candle in candles:
            key = (candle.symbol, candle.timeframe)
            stream = names.get(key)
            if stream is None:
                stream = names[key] = candle_stream(*key)
            items.append((stream, encoded_candle(candle, stream)))
        if watermark is not None:
            said = Watermark(service=SERVICE, announced_at=self._clock.now())
            items.append((WATERMARK_STREAM, Event(data=said, as_of=watermark)))
        if items:
            await self._broker.publish_many(items)

    async def newest(self, streams: Iterable[tuple[str, str]]) -> list[Candle]:
        """Return the newest stored candle of each stream that has one."""
        async with self._database.read() as session:
            return [candle for stream in streams for candle in await self._database.last_candles(*stream, 1, session)]

    async def _write_gaps(self, session: AsyncSession, gaps: Sequence[CandleGap]) -> None:
        now = self._clock.now()
        rows = [
            {
                "symbol": gap.stream.symbol,
                "timeframe": gap.stream.timeframe,
                "start_time": gap.start_time,
                "end_time": gap.end_time,
                "candles_missing": gap.candles_missing,
                "confirmed": gap.confirmed,
                "recorded_at": now,
            }
            for gap in gaps
        ]
        await self._database.insert_rows(session, CandleGapRow, rows, ignore_conflicts=True)

    async def _write_quarantine(self, session: AsyncSession, malformed: Sequence[MalformedCandle]) -> None:
        now = self._clock.now()
        rows = [
            {
                "id": derived_id("quarantine", each.stream, each.payload, each.reason),
                "stream": each.stream,
                "payload": each.payload[:PAYLOAD_CHARACTERS_MAX],
                "reason": each.reason,
                "recorded_at": now,
            }
            for each in malformed
        ]
        await self._database.insert_rows(session, QuarantineRow, rows, ignore_conflicts=True)
        count = (await session.execute(select(func.count()).select_from(QuarantineRow))).scalar_one()
        if count > self._quarantine_rows_max:
            oldest = (
                select(QuarantineRow.id)
                .order_by(QuarantineRow.recorded_at, QuarantineRow.id)
                .limit(count - self._quarantine_rows_max)
            )
            await session.execute(delete(QuarantineRow).where(QuarantineRow.id.in_(oldest)))

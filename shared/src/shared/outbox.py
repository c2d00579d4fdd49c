"""The outbox relay: what a transaction promised to say is said once, and again until its reader has acknowledged it.

A row is written in the transaction of its cause and acknowledged in the transaction of its effect. Between the two the
bus may lose it, repeat it or be away: the relay sends every row once, also one whose consumer was faster and read the
table, as others may listen; and a row that nobody acknowledged again when `resend_after_seconds` have passed. A bus
that was wiped fills itself again from here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import func, select

from shared.broker_port import Broker
from shared.clock import Clock, SystemClock, seeded_random
from shared.db import Database
from shared.db_rows import dialect_of, driver_values
from shared.db_session import fetch, numbered
from shared.errors import BrokerError, DatabaseUnavailable
from shared.resilience import Backoff
from shared.sa_models import OutboxRow

_FAR = timedelta(days=365)
# Two questions that an index answers each; joined by OR they would read the whole table at every commit.
_DUE = """
SELECT id, payload FROM (
    SELECT * FROM (
        SELECT id, payload FROM outbox WHERE topic = ? AND id > ? AND sent_at IS NULL ORDER BY id LIMIT ?) AS fresh
    UNION ALL
    SELECT * FROM (
        SELECT id, payload FROM outbox WHERE topic = ? AND acked_at IS NULL AND id > ?
        AND (sent_at < ? OR (sent_at IS NULL AND id <= ?)) ORDER BY id LIMIT ?) AS unheard
) AS due ORDER BY id LIMIT ?
"""


@dataclass(frozen=True, kw_only=True)
class OutboxLimits:
    """How the relay paces itself; machine time."""

    resend_after_seconds: float = 8.0
    poll_seconds: float = 1.0
    batch_max: int = 500
    outbox_rows_max: int = 50_000
    retention_seconds: float = 60.0
    prune_every_seconds: float = 2.0
    backoff_seconds_base: float = 0.1
    backoff_seconds_max: float = 5.0
    alarm_every_seconds: float = 60.0


class OutboxRelay:
    """Sends the outbox rows of some topics to the streams of the same names."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        *,
        topics: Sequence[str],
        limits: OutboxLimits | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,  # noqa: TID251 - only its type
    ) -> None:
        self.limits = limits or OutboxLimits()
        self.is_connected = True
        self.is_over_max = False
        self._database = database
        self._broker = broker
        self._topics = tuple(topics)
        self._clock = clock or SystemClock()
        self._backoff = Backoff(
            self.limits.backoff_seconds_base, self.limits.backoff_seconds_max, rng=rng or seeded_random()
        )
        self._kick = asyncio.Event()
        self._resend_before: datetime | None = self._clock.now() + _FAR  # a first pass: who knows what the bus has
        self._failures = 0
        self._sent_until: dict[str, int] = {}
        self._pruned_at = self._clock.monotonic()
        self._sent_since_prune = 0
        self._alarmed_at: float | None = None
        self._log = structlog.get_logger("shared.outbox")

    def kick(self) -> None:
        """Wake the relay: rows were committed."""
        self._kick.set()

    def resend_all(self) -> None:
        """Send every row that nobody acknowledged again, now: the bus has begun anew."""
        self._resend_before = self._clock.now() + _FAR
        self.kick()

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop` is set; a bus or database that is away is tried again with back-off, for ever."""
        while not stop.is_set():
            self._kick.clear()
            try:
                sent = await self.send_due()
                await self._prune_when_due()
            except (BrokerError, DatabaseUnavailable) as error:
                await self._back_off(error, stop)
                continue
            if self._failures:
                self._log.info("outbox.connected_again", failures=self._failures)
                self._backoff.reset()
            self._failures, self.is_connected = 0, True
            if sent == 0:
                await self._wait(self.limits.poll_seconds, stop, self._kick)

    async def send_due(self) -> int:
        """Send one batch of each topic and return how many rows went."""
        now = self._clock.now()
        started_again = self._resend_before
        before = started_again or now - timedelta(seconds=self.limits.resend_after_seconds)
        total = 0
        for topic in self._topics:
            after_id = 0
            while rows := await self._due(topic, before, after_id):
                await self._broker.publish_many([(topic, payload.encode()) for _, payload in rows])
                async with self._database.batch() as session:
                    await self._database.write_sent(session, [row_id for row_id, _ in rows])
                self._sent_until[topic] = max(self._sent_until.get(topic, 0), rows[-1][0])
                total += len(rows)
                self._sent_since_prune += len(rows)
                after_id = rows[-1][0]
                if len(rows) < self.limits.batch_max:
                    break
        if self._resend_before is started_again:
            self._resend_before = None
        return total

    async def prune(self) -> int:
        """Delete acknowledged rows past their retention, all of them when the outbox is half full; return how many."""
        now = self._clock.now()
        removed = await self._prune_before(now - timedelta(seconds=self.limits.retention_seconds))
        rows = await self._count()
        if rows > self.limits.outbox_rows_max // 2:
            removed += await self._prune_before(now + _FAR)
            rows = await self._count()
        self.is_over_max = rows > self.limits.outbox_rows_max
        if self.is_over_max:
            self._alarm(rows)
        return removed

    async def _due(self, topic: str, before: datetime, after_id: int) -> list[tuple[int, str]]:
        """Return rows that never went out, also those whose consumer read the table first, and unacked old ones.

        Rows up to `_sent_until` are known to have gone out once; one among them that did not is caught while unacked.
        """
        sent_until, rows_max = self._sent_until.get(topic, 0), self.limits.batch_max
        values = (topic, max(after_id, sent_until), rows_max, topic, after_id, before, sent_until, rows_max, rows_max)
        async with self._database.look() as session:
            rows = await fetch(session, numbered(dialect_of(session), _DUE), driver_values(session, values))
            return [(row_id, payload) for row_id, payload in rows]

    async def _count(self) -> int:
        statement = select(func.count()).select_from(OutboxRow).where(OutboxRow.topic.in_(self._topics))
        async with self._database.read() as session:
            return int((await session.execute(statement)).scalar_one())

    async def _prune_before(self, moment: datetime) -> int:
        removed, part_max = 0, 10_000
        for topic in self._topics:
            while part := await self._database.prune_outbox(topic, moment, part_max):
                removed += part
                if part < part_max:
                    break
        return removed

    async def _prune_when_due(self) -> None:
        now = self._clock.monotonic()
        # By rows too: a replay at full speed fills the outbox between two looks at the clock.
        is_burst = self._sent_since_prune >= self.limits.outbox_rows_max // 8
        if is_burst or now - self._pruned_at >= self.limits.prune_every_seconds:
            self._pruned_at, self._sent_since_prune = now, 0
            await self.prune()

    def _alarm(self, rows: int) -> None:
        now = self._clock.monotonic()
        if self._alarmed_at is None or now - self._alarmed_at >= self.limits.alarm_every_seconds:
            self._alarmed_at = now
            maximum = self.limits.outbox_rows_max
            self._log.error("outbox.over_max", rows=rows, outbox_rows_max=maximum, topics=list(self._topics))

    async def _back_off(self, error: Exception, stop: asyncio.Event) -> None:
        if self._failures == 0:
            self._log.warning("outbox.waiting", reason=str(error))
        self.is_connected = False
        self._failures += 1
        await self._wait(self._backoff.next_seconds(error), stop)

    async def _wait(self, seconds: float, *events: asyncio.Event) -> None:
        """Return when an event is set or `seconds` of the clock have passed."""
        tasks = [asyncio.ensure_future(event.wait()) for event in events]
        tasks.append(asyncio.ensure_future(self._clock.sleep(seconds)))  # type: ignore[arg-type]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

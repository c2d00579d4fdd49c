"""How a service waits: the bus wakes it, the database tells it what to do, and rubbish on the bus is put on record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.stdlib import BoundLogger

from shared.broker_port import REASON_LENGTH_MAX, Broker, Message
from shared.clock import Clock, derived_id
from shared.db import Database
from shared.errors import BrokerError, DatabaseError
from shared.events import WATERMARK_STREAM, Event, Watermark
from shared.metrics import ServiceMetrics
from shared.resilience import Backoff
from shared.sa_models import DeadLetterRow, InboxRow

WAIT_MS_MAX = 500
MESSAGES_MAX = 1_000
RETRY_SECONDS_BASE = 0.25
RETRY_SECONDS_MAX = 2.0
DEAD_LETTERS_MAX = 10_000
PAYLOAD_CHARACTERS_MAX = 4_000
TURN_SECONDS_MAX = 60.0
STUCK_SECONDS_MAX = 300.0  # every call to the outside gives up long before


class DoorBell:
    """One consumer group's ear on the bus; what it hears wakes the service and decides nothing by itself."""

    def __init__(
        self,
        broker: Broker,
        database: Database,
        group: str,
        streams: Sequence[str],
        *,
        clock: Clock,
        log: BoundLogger,
        metrics: ServiceMetrics,
        dead_letters_max: int = DEAD_LETTERS_MAX,
    ) -> None:
        self.group = group
        self._heeded = ""
        self._listeners: list[Callable[[Event], None]] = []
        self._broker = broker
        self._database = database
        self._streams = list(streams)
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._dead_letters_max = dead_letters_max
        self._heard: list[Message] = []
        for stream in self._streams:
            metrics.dead_letter(stream, 0)
        self._turned_at: float | None = None
        self._trouble = ""

    def listen(self, hear: Callable[[Event], None]) -> None:
        """Let `hear` have every message that can be read; it may not wait."""
        self._listeners.append(hear)

    def heed(self, service: str) -> None:
        """Let of all watermarks only those of `service` wake this one; whatever else is said does."""
        self._heeded = service

    async def follow(self, step: Callable[[], Awaitable[bool]], stop: asyncio.Event) -> None:
        """Call `step` while it finds something to do, and wait for the bell when it does not, until `stop`.

        A database or bus that is away is waited for; any other fault ends the service.
        """
        try:
            await self._follow(step, stop)
        finally:
            self._turned_at = None  # a term without the lease: nothing should turn

    async def _follow(self, step: Callable[[], Awaitable[bool]], stop: asyncio.Event) -> None:
        backoff = Backoff(RETRY_SECONDS_BASE, RETRY_SECONDS_MAX)
        while not stop.is_set():
            self._turned_at = self._clock.monotonic()
            try:
                handled = await step()
                self._trouble = ""
                await self.ack()
                if not handled:
                    await self.wait()
                backoff.reset()
            except (DatabaseError, BrokerError) as error:
                if not error.retryable:
                    raise
                wait, self._trouble = backoff.next_seconds(error), str(error)
                self._metrics.error(error)
                self._metrics.retry("database" if isinstance(error, DatabaseError) else "bus")
                self._log.warning("service.waits", error=self._trouble, retry_seconds=round(wait, 3))
                await self._clock.sleep(wait)

    def check(self, watermark: datetime | None) -> tuple[bool, str]:
        """Return whether the service's loop turns, and how far it has come or what holds it up."""
        still = self._still_seconds()
        if self._trouble:
            return False, self._trouble
        if still > TURN_SECONDS_MAX:
            return False, f"one step has been under way for {still:.0f} s, at most {TURN_SECONDS_MAX:.0f} s are usual"
        return True, f"handled up to {watermark}" if watermark else "waiting for candles"

    def check_turning(self) -> tuple[bool, str]:
        """Return False only where no waiting helps: one step has not come back for longer than anything may take."""
        still = self._still_seconds()
        return still <= STUCK_SECONDS_MAX, f"last turn {still:.1f} s ago, at most {STUCK_SECONDS_MAX:.0f} s allowed"

    def _still_seconds(self) -> float:
        return 0.0 if self._turned_at is None else self._clock.monotonic() - self._turned_at

    async def wait(self) -> None:
        """Return when something was said that matters here, or after half a second.

        What cannot be read becomes a dead letter; of watermarks those of the service that is heeded matter.
        """
        until = self._clock.monotonic() + WAIT_MS_MAX / 1000
        left_ms = WAIT_MS_MAX
        while left_ms > 0:
            heard = await self._broker.read_group(
                self.group, self.group, self._streams, count=MESSAGES_MAX, block_ms=left_ms
            )
            self._heard += heard
            for message in heard:
                if message.event is not None:
                    for hear in self._listeners:
                        hear(message.event)
            unreadable = [message for message in heard if message.error is not None]
            if unreadable:
                await self._put_aside(unreadable)
            if not heard or any(self._wakes(message.event) for message in heard):
                return
            left_ms = int((until - self._clock.monotonic()) * 1000)

    def _wakes(self, event: Event | None) -> bool:
        said = event.data if event is not None else None
        return not (self._heeded and isinstance(said, Watermark) and said.service != self._heeded)

    async def ack(self) -> None:
        """Say that everything heard is handled: called after the commit."""
        if self._heard:
            await self._broker.ack(self.group, self._heard)
            self._heard = []

    async def announce(self, as_of: datetime) -> None:
        """Ring for those who wait for this service; without a bus they look into the database by themselves."""
        try:
            await self._broker.publish(WATERMARK_STREAM, Event(data=Watermark(service=self.group), as_of=as_of))
        except BrokerError as error:
            self._metrics.error(error)

    async def _put_aside(self, heard: Sequence[Message]) -> None:
        """Put messages on record as dead letters, once: what was killed before it acknowledged hears them again."""
        now = self._clock.now()
        async with self._database.get_session() as session:
            messages = await self._first_heard(session, heard, now)
            if messages:
                await self._record(session, messages, now)
        for message in messages:
            self._metrics.dead_letter(message.stream)
            await self._broker.dead_letter(message, self.group, message.error or "")
        if messages:
            self._log.warning("bus.unreadable", messages=len(messages), first=messages[0].error)

    async def _first_heard(self, session: AsyncSession, messages: Sequence[Message], now: datetime) -> list[Message]:
        """Return those that this consumer has not handled before, and note them in its inbox."""
        names = {f"{message.stream}/{message.id}": message for message in messages}
        row = InboxRow
        known = select(row.msg_id).where(row.consumer == self.group, row.msg_id.in_(list(names)))
        for name in await session.scalars(known):
            names.pop(name)
        rows = [{"consumer": self.group, "msg_id": name, "received_at": now} for name in names]
        await self._database.insert_rows(session, InboxRow, rows, ignore_conflicts=True)
        return list(names.values())

    async def _record(self, session: AsyncSession, messages: Sequence[Message], now: datetime) -> None:
        rows = [
            {
                "id": derived_id("dead_letter", self.group, message.stream, message.id),
                "stream": message.stream,
                "message_id": message.id,
                "consumer": self.group,
                "payload": _storable(message.raw.decode("utf-8", "replace"), PAYLOAD_CHARACTERS_MAX),
                "reason": _storable(message.error or "", REASON_LENGTH_MAX),
                "recorded_at": now,
            }
            for message in messages
        ]
        await self._database.insert_rows(session, DeadLetterRow, rows, ignore_conflicts=True)
        row = DeadLetterRow
        count = (await session.execute(select(func.count()).select_from(row))).scalar_one()
        if count > self._dead_letters_max:
            oldest = select(row.id).order_by(row.recorded_at, row.id).limit(count - self._dead_letters_max)
            await session.execute(delete(row).where(row.id.in_(oldest)))


def _storable(text: str, characters_max: int) -> str:
    """Return text that both databases take: no NUL, no lone surrogate, bounded."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()[:characters_max]

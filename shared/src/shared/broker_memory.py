"""The message bus in memory: the same contract as the real one, for unit tests and dry use in one process."""

from __future__ import annotations

import asyncio
import bisect
import itertools
from collections.abc import Callable, Iterable, Sequence

from shared.broker_port import (
    DEAD_LETTER_STREAM,
    DEAD_LETTERS_MAX,
    PAYLOAD_FIELD,
    STREAM_LENGTH_MAX,
    DeadLetter,
    Message,
    Publishable,
    dead_letter_fields,
    dead_letter_from_fields,
    encode_payload,
    message_from_fields,
)
from shared.clock import Clock, SystemClock
from shared.errors import BrokerError
from shared.models import to_milliseconds

type EntryId = tuple[int, int]


class _Pending:
    """A message that a consumer has had and not acknowledged."""

    __slots__ = ("consumer", "delivered_at")

    def __init__(self, consumer: str, delivered_at: float) -> None:
        self.consumer = consumer
        self.delivered_at = delivered_at


class _Group:
    def __init__(self) -> None:
        self.last_delivered: EntryId = (0, 0)
        self.pending: dict[EntryId, _Pending] = {}


class _Stream:
    def __init__(self) -> None:
        self.ids: list[EntryId] = []
        self.fields: dict[EntryId, list[bytes]] = {}
        self.groups: dict[str, _Group] = {}
        self.last_id: EntryId = (0, 0)

    def add(self, milliseconds: int, fields: list[bytes], length_max: int) -> EntryId:
        last_ms, last_sequence = self.last_id
        entry = (milliseconds, 0) if milliseconds > last_ms else (last_ms, last_sequence + 1)
        self.last_id = entry
        self.ids.append(entry)
        self.fields[entry] = fields
        self.trim(length_max)
        return entry

    def trim(self, length_max: int) -> int:
        gone = self.ids[: max(0, len(self.ids) - length_max)]
        del self.ids[: len(gone)]
        for entry in gone:
            del self.fields[entry]
        return len(gone)

    def after(self, entry: EntryId, count: int) -> list[EntryId]:
        start = bisect.bisect_right(self.ids, entry)
        return self.ids[start : start + count]


class MemoryBroker:
    """A bus that lives and dies with the process; `is_available` = False makes it answer as one that is away."""

    def __init__(
        self,
        *,
        stream_length_max: int = STREAM_LENGTH_MAX,
        dead_letters_max: int = DEAD_LETTERS_MAX,
        clock: Clock | None = None,
    ) -> None:
        self.stream_length_max = stream_length_max
        self.is_available = True
        self._bounds = {DEAD_LETTER_STREAM: dead_letters_max}
        self._clock = clock or SystemClock()
        self._streams: dict[str, _Stream] = {}
        self._unacked_cursors: dict[tuple[str, str, str], EntryId] = {}
        self._arrival = asyncio.Event()

    def append(self, stream: str, fields: Sequence[bytes]) -> str:
        """Append an entry of any fields (name, value, name, value ...), as a stranger with a client could."""
        self._check()
        held = self._streams.setdefault(stream, _Stream())
        bound = self._bounds.get(stream, self.stream_length_max)
        entry = held.add(to_milliseconds(self._clock.now()), list(fields), bound)
        self._wake()
        return _text(entry)

    def wipe(self) -> None:
        """Forget everything, groups included: a server that was flushed or restarted empty."""
        self._streams.clear()
        self.reconnect()
        self._wake()

    def reconnect(self) -> None:
        """Make every consumer begin again with its unacknowledged messages, as after a lost connection."""
        self._unacked_cursors.clear()

    async def publish(self, stream: str, event: Publishable) -> str:
        """Append one event and return its id."""
        return self.append(stream, [PAYLOAD_FIELD, encode_payload(event)])

    async def publish_many(self, items: Sequence[tuple[str, Publishable]]) -> list[str]:
        """Append many events, in order, and return their ids."""
        payloads = [(stream, encode_payload(event)) for stream, event in items]
        return [self.append(stream, [PAYLOAD_FIELD, payload]) for stream, payload in payloads]

    async def read(self, stream: str, last_id: str = "0", count: int = 100, block_ms: int = 0) -> list[Message]:
        """Return entries after `last_id`, oldest first; 0 does not wait."""
        self._check()
        held = self._streams.get(stream)
        start = (held.last_id if held else (0, 0)) if last_id == "$" else _parsed(last_id)

        def look() -> list[Message]:
            found = self._streams.get(stream)
            return self._messages(stream, found.after(start, count)) if found else []

        return await self._wait(look, block_ms)

    async def read_group(
        self, group: str, consumer: str, streams: Sequence[str], count: int = 100, block_ms: int = 0
    ) -> list[Message]:
        """Return up to `count` entries of each stream that no consumer of the group has had, own unacked ones first."""
        self._check()
        unacked = [found for stream in streams for found in self._read_unacked(group, consumer, stream, count)]
        if unacked:
            return unacked

        def look() -> list[Message]:
            return [found for stream in streams for found in self._read_new(group, consumer, stream, count)]

        return await self._wait(look, block_ms)

    async def ack(self, group: str, messages: Sequence[Message]) -> int:
        """Mark messages as handled and return how many were still open."""
        self._check()
        return sum(self._ack_one(group, message) for message in messages)

    async def claim_stale(
        self, group: str, consumer: str, streams: Sequence[str], idle_ms: int, count: int = 100
    ) -> list[Message]:
        """Take over messages that some consumer has left open for `idle_ms`, up to `count` of each stream."""
        self._check()
        now = self._clock.monotonic()
        messages: list[Message] = []
        for stream in streams:
            held, joined = self._joined(stream, group)
            idle = (e for e, p in sorted(joined.pending.items()) if (now - p.delivered_at) * 1000 >= idle_ms)
            for entry in list(itertools.islice(idle, count)):
                if entry in held.fields:
                    joined.pending[entry] = _Pending(consumer, now)
                    messages += self._messages(stream, [entry], group)
                else:  # trimmed before anybody handled it
                    del joined.pending[entry]
        return messages

    async def dead_letter(self, message: Message, consumer: str, reason: str) -> None:
        """Move a message to the bounded stream `dead_letters`; one read through a group is acknowledged."""
        self.append(DEAD_LETTER_STREAM, dead_letter_fields(message, consumer, reason))
        if message.group:
            self._ack_one(message.group, message)

    async def read_dead_letters(self, last_id: str = "0", count: int = 100) -> list[DeadLetter]:
        """Return dead letters after `last_id`, oldest first."""
        self._check()
        held = self._streams.get(DEAD_LETTER_STREAM)
        return [dead_letter_from_fields(held.fields[e]) for e in held.after(_parsed(last_id), count)] if held else []

    async def depth(self, stream: str) -> int:
        """Return how many entries the stream holds; 0 when there is no such stream."""
        self._check()
        held = self._streams.get(stream)
        return len(held.ids) if held else 0

    async def lag(self, group: str, stream: str) -> int:
        """Return how many entries of the stream the group has not acknowledged, delivered or not."""
        self._check()
        held = self._streams.get(stream)
        if held is None:
            return 0
        joined = held.groups.get(group, _Group())
        return len(joined.pending) + len(held.after(joined.last_delivered, len(held.ids)))

    async def trim(self, stream: str, length_max: int) -> int:
        """Drop the oldest entries above `length_max` and return how many went."""
        self._check()
        held = self._streams.get(stream)
        return held.trim(length_max) if held else 0

    async def ping(self) -> bool:
        """Return whether the bus answers."""
        return self.is_available

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    def _check(self) -> None:
        if not self.is_available:
            raise BrokerError("bus: away (in memory, switched off)")

    def _wake(self) -> None:
        self._arrival.set()
        self._arrival = asyncio.Event()

    def _joined(self, stream: str, group: str) -> tuple[_Stream, _Group]:
        held = self._streams.setdefault(stream, _Stream())
        return held, held.groups.setdefault(group, _Group())

    def _read_unacked(self, group: str, consumer: str, stream: str, count: int) -> list[Message]:
        held, joined = self._joined(stream, group)
        key = (group, consumer, stream)
        cursor = self._unacked_cursors.setdefault(key, (0, 0))
        mine = sorted(e for e, p in joined.pending.items() if p.consumer == consumer and e > cursor)[:count]
        self._unacked_cursors[key] = mine[-1] if mine else held.last_id
        for entry in mine:
            if entry not in held.fields:
                del joined.pending[entry]
        return self._messages(stream, mine, group)

    def _read_new(self, group: str, consumer: str, stream: str, count: int) -> list[Message]:
        held, joined = self._joined(stream, group)
        fresh = held.after(joined.last_delivered, count)
        if fresh:
            joined.last_delivered = fresh[-1]
            joined.pending |= {entry: _Pending(consumer, self._clock.monotonic()) for entry in fresh}
            self._unacked_cursors[group, consumer, stream] = fresh[-1]
        return self._messages(stream, fresh, group)

    def _ack_one(self, group: str, message: Message) -> int:
        held = self._streams.get(message.stream)
        joined = held.groups.get(group) if held else None
        return int(joined is not None and joined.pending.pop(_parsed(message.id), None) is not None)

    def _messages(self, stream: str, entries: Iterable[EntryId], group: str = "") -> list[Message]:
        fields = self._streams[stream].fields
        return [message_from_fields(stream, _text(e), fields[e], group) for e in entries if e in fields]

    async def _wait(self, look: Callable[[], list[Message]], block_ms: int) -> list[Message]:
        """Return what `look` finds, waiting for arrivals until `block_ms` of the clock have passed."""
        found = look()
        if found or block_ms <= 0:
            return found
        alarm = asyncio.ensure_future(self._clock.sleep(block_ms / 1000))
        try:
            while not found and not alarm.done():
                arrival = asyncio.ensure_future(self._arrival.wait())
                try:
                    await asyncio.wait({alarm, arrival}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    arrival.cancel()
                self._check()
                found = look()
            return found
        finally:
            alarm.cancel()


def _text(entry: EntryId) -> str:
    return f"{entry[0]}-{entry[1]}"


def _parsed(id: str) -> EntryId:
    milliseconds, _, sequence = id.partition("-")
    try:
        return int(milliseconds), int(sequence or 0)
    except ValueError:
        raise BrokerError(f"bus: {id!r} is not the id of an entry") from None

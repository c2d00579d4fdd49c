"""The message bus on Redis Streams: consumer groups, acknowledgement after the commit, bounded streams.

Three kinds of connection, so that none waits for another: one for writes, one for questions, and one for each reader
that may block. A lost connection is opened again with back-off; a write is sent at most twice, because the answer that
got lost may have been a yes (readers expect repetition).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from redis.exceptions import ResponseError

from shared.broker_link import Link, address_of, checked, open_pool, pack
from shared.broker_port import (
    DEAD_LETTER_STREAM,
    DEAD_LETTERS_MAX,
    PAYLOAD_FIELD,
    STREAM_LENGTH_MAX,
    Broker,
    DeadLetter,
    Message,
    Publishable,
    dead_letter_fields,
    dead_letter_from_fields,
    encode_payload,
)
from shared.broker_reader import GroupReader, messages_of, streams_of
from shared.clock import Clock, SystemClock, seeded_random
from shared.errors import BrokerError
from shared.resilience import CircuitBreaker, Outside, retry_with_backoff

__all__ = ["Broker", "DeadLetter", "Message", "RedisBroker"]

BLOCK_MS_MAX = 30_000
READERS_MAX = 64
PIPELINE_MAX = 5_000
WRITE_TRIES_MAX = 2
READ_TRIES_MAX = 4
RETRY_SECONDS_BASE = 0.05
RETRY_SECONDS_MAX = 1.0
FAILURES_MAX = 5
PAUSE_SECONDS = 1.0


class RedisBroker:
    """The bus on a Redis or Valkey server (`redis://`, `rediss://`, `unix://`)."""

    def __init__(
        self,
        redis_url: str,
        *,
        stream_length_max: int = STREAM_LENGTH_MAX,
        dead_letters_max: int = DEAD_LETTERS_MAX,
        answer_timeout_seconds: float = 5.0,
        clock: Clock | None = None,
        rng: random.Random | None = None,  # noqa: TID251 - only its type
    ) -> None:
        clock = clock or SystemClock()
        rng = rng or seeded_random()
        self.stream_length_max = stream_length_max
        self._timeout = answer_timeout_seconds
        self._pool = open_pool(redis_url)
        self._write_link = Link(self._pool)
        self._query_link = Link(self._pool)
        self._ping_link = Link(self._pool)
        self._idle_links: list[Link] = []
        self._readers: dict[tuple[str, str], GroupReader] = {}
        self._claim_cursors: dict[tuple[str, str], bytes] = {}
        self.outside = Outside("bus", CircuitBreaker(FAILURES_MAX, PAUSE_SECONDS, clock=clock))
        self._clock, self._rng = clock, rng
        self._bounds = {DEAD_LETTER_STREAM: dead_letters_max}
        self._heads: dict[str, bytes] = {}
        self._log = structlog.get_logger("shared.broker")

    async def connect(self) -> None:
        """Reach the bus now, so that a wrong address or password is found at the start and not at the first message."""
        try:
            checked(await self._query_link.call(pack(b"PING"), 1, self._timeout), "a first question")
        except BrokerError as error:
            raise BrokerError(
                f"redis_url: {address_of(self._pool)} cannot be used ({error}); start the server, or correct REDIS_URL"
            ) from error

    async def publish(self, stream: str, event: Publishable) -> str:
        """Append one event and return its id."""
        return (await self.publish_many([(stream, event)]))[0]

    async def publish_many(self, items: Sequence[tuple[str, Publishable]]) -> list[str]:
        """Append many events, 5,000 to a round trip, in order, and return their ids."""
        ids: list[str] = []
        for start in range(0, len(items), PIPELINE_MAX):
            part = items[start : start + PIPELINE_MAX]
            payloads = [(self._head(stream), encode_payload(event)) for stream, event in part]
            request = b"".join([b"%b$%d\r\n%b\r\n" % (head, len(raw), raw) for head, raw in payloads])
            replies = await self._write(request, len(part))
            ids += [reply.decode() for reply in checked(replies, "publishing")]
        return ids

    async def read(self, stream: str, last_id: str = "0", count: int = 100, block_ms: int = 0) -> list[Message]:
        """Return entries after `last_id`, oldest first; 0 does not wait."""
        block_ms = min(block_ms, BLOCK_MS_MAX)
        options = (b"BLOCK", b"%d" % block_ms) if block_ms > 0 else ()
        request = pack(b"XREAD", b"COUNT", b"%d" % count, *options, b"STREAMS", stream.encode(), last_id.encode())
        link = self._query_link
        if block_ms > 0:
            link = self._idle_links.pop() if self._idle_links else Link(self._pool)
        try:
            reply = await self._query(request, 1, link, self._timeout + block_ms / 1000)
        finally:
            if link is not self._query_link and len(self._idle_links) < READERS_MAX:
                self._idle_links.append(link)
        entries = streams_of(checked(reply, f"reading {stream}")[0])
        return [message for name, found in entries for message in messages_of(name, found)]

    async def read_group(
        self, group: str, consumer: str, streams: Sequence[str], count: int = 100, block_ms: int = 0
    ) -> list[Message]:
        """Return up to `count` entries of each stream that no consumer of the group has had.

        After a (re)connect this consumer's unacknowledged messages come first. A missing group or stream is made, and
        the group begins at the stream's first entry. Waits at most `block_ms` (30 s at most), 0 does not wait.
        """
        if not streams:
            return []
        reader = self._reader(group, consumer)
        block_ms = min(block_ms, BLOCK_MS_MAX)

        async def attempt() -> list[Message]:
            return await reader.read(streams, count, block_ms, self._timeout)

        async with reader.lock:
            return await self._retried(READ_TRIES_MAX, attempt)

    async def ack(self, group: str, messages: Sequence[Message]) -> int:
        """Mark messages as handled and return how many were still open."""
        ids: dict[str, list[bytes]] = {}
        for message in messages:
            ids.setdefault(message.stream, []).append(message.id.encode())
        if not ids:
            return 0
        name = group.encode()
        request = b"".join([pack(b"XACK", stream.encode(), name, *found) for stream, found in ids.items()])
        return sum(checked(await self._write(request, len(ids)), "acknowledging"))

    async def claim_stale(
        self, group: str, consumer: str, streams: Sequence[str], idle_ms: int, count: int = 100
    ) -> list[Message]:
        """Take over messages that some consumer has left open for `idle_ms`, up to `count` of each stream.

        Each call goes on where the last one stopped, so that a long list of open messages is seen wholly.
        """
        tail = (b"COUNT", b"%d" % count)
        head = (group.encode(), consumer.encode(), b"%d" % idle_ms)
        cursors = [self._claim_cursors.get((group, stream), b"0-0") for stream in streams]
        request = b"".join(
            pack(b"XAUTOCLAIM", stream.encode(), *head, cursor, *tail)
            for stream, cursor in zip(streams, cursors, strict=True)
        )
        messages: list[Message] = []
        replies = await self._write(request, len(streams))
        for stream, reply in zip(streams, replies, strict=True):
            if isinstance(reply, ResponseError) and str(reply).startswith("NOGROUP"):
                continue  # no group, nothing open; the next read makes it
            answer = checked([reply], f"claiming from {stream}")[0]
            self._claim_cursors[group, stream] = answer[0]
            messages += messages_of(stream, answer[1], group)
            if len(answer) > 2 and answer[2]:  # servers before 7 do not name what was trimmed
                self._on_trimmed(stream, len(answer[2]))
        return messages

    async def dead_letter(self, message: Message, consumer: str, reason: str) -> None:
        """Move a message to the bounded stream `dead_letters`; one read through a group is acknowledged."""
        bound = b"%d" % self._bounds[DEAD_LETTER_STREAM]
        fields = dead_letter_fields(message, consumer, reason)
        request = pack(b"XADD", DEAD_LETTER_STREAM.encode(), b"MAXLEN", b"=", bound, b"*", *fields)
        if message.group:
            request += pack(b"XACK", message.stream.encode(), message.group.encode(), message.id.encode())
        checked(await self._write(request, 2 if message.group else 1), "moving to the dead letters")

    async def read_dead_letters(self, last_id: str = "0", count: int = 100) -> list[DeadLetter]:
        """Return dead letters after `last_id`, oldest first."""
        request = pack(b"XREAD", b"COUNT", b"%d" % count, b"STREAMS", DEAD_LETTER_STREAM.encode(), last_id.encode())
        reply = checked(await self._query(request, 1), "reading the dead letters")[0]
        return [dead_letter_from_fields(entry[1]) for _, entries in streams_of(reply) for entry in entries]

    async def depth(self, stream: str) -> int:
        """Return how many entries the stream holds; 0 when there is no such stream."""
        return int(checked(await self._query(pack(b"XLEN", stream.encode()), 1), f"measuring {stream}")[0])

    async def lag(self, group: str, stream: str) -> int:
        """Return how many entries of the stream the group has not acknowledged, delivered or not."""
        name = stream.encode()
        length, groups = await self._query(pack(b"XLEN", name) + pack(b"XINFO", b"GROUPS", name), 2)
        depth = int(checked([length], f"measuring {stream}")[0])
        if isinstance(groups, ResponseError):  # no such stream
            return depth
        for raw in groups:
            facts = raw if isinstance(raw, dict) else dict(zip(raw[::2], raw[1::2], strict=True))
            if facts[b"name"] == group.encode():
                undelivered = facts.get(b"lag")
                if undelivered is None:  # the server lost count (entries were deleted one by one)
                    undelivered = await self._count_after(name, facts[b"last-delivered-id"])
                return int(facts[b"pending"]) + min(int(undelivered), depth)
        return depth

    async def trim(self, stream: str, length_max: int) -> int:
        """Drop the oldest entries above `length_max` and return how many went."""
        request = pack(b"XTRIM", stream.encode(), b"MAXLEN", b"=", b"%d" % length_max)
        return int(checked(await self._write(request, 1), f"trimming {stream}")[0])

    async def ping(self) -> bool:
        """Return whether the bus answers now, whatever the other connections are waiting for."""
        try:
            return await self._ping_link.call(pack(b"PING"), 1, self._timeout) == [b"PONG"]
        except BrokerError:
            return False

    async def close(self) -> None:
        """Close every connection; a later call would open new ones."""
        for link in (self._write_link, self._query_link, self._ping_link, *self._idle_links):
            await link.close()
        for reader in self._readers.values():
            await reader.close()
        self._idle_links.clear()
        self._readers.clear()

    def _head(self, stream: str) -> bytes:
        head = self._heads.get(stream)
        if head is None:
            name, bound = stream.encode(), b"%d" % self._bounds.get(stream, self.stream_length_max)
            head = b"*8\r\n" + pack(b"XADD", name, b"MAXLEN", b"=", bound, b"*", PAYLOAD_FIELD).split(b"\r\n", 1)[1]
            if len(self._heads) >= PIPELINE_MAX:
                self._heads.clear()
            self._heads[stream] = head
        return head

    def _reader(self, group: str, consumer: str) -> GroupReader:
        reader = self._readers.get((group, consumer))
        if reader is None:
            if len(self._readers) >= READERS_MAX:
                raise BrokerError(
                    f"bus: {READERS_MAX} consumers read already; group {group!r} must wait for one to end"
                )
            reader = GroupReader(Link(self._pool), group, consumer, self._on_trimmed)
            self._readers[group, consumer] = reader
        return reader

    async def _write(self, request: bytes, replies: int) -> list[Any]:
        breaker = self.outside.breaker
        if not breaker.allow_request():
            raise BrokerError(f"bus: failed {FAILURES_MAX} times, tried again after {PAUSE_SECONDS:g} s")
        try:
            answer = await self._retried(
                WRITE_TRIES_MAX, lambda: self._write_link.call(request, replies, self._timeout)
            )
        except BaseException:  # a cancelled probe must not leave the breaker waiting for its answer
            breaker.record_failure()
            raise
        breaker.record_success()
        return answer

    async def _query(
        self, request: bytes, replies: int, link: Link | None = None, timeout_seconds: float | None = None
    ) -> list[Any]:
        chosen, wait = link or self._query_link, timeout_seconds or self._timeout
        return await self._retried(READ_TRIES_MAX, lambda: chosen.call(request, replies, wait))

    async def _retried[R](self, tries_max: int, attempt: Callable[[], Awaitable[R]]) -> R:
        trying = retry_with_backoff(
            tries_max,
            RETRY_SECONDS_BASE,
            RETRY_SECONDS_MAX,
            clock=self._clock,
            rng=self._rng,
            on_retry=self.outside.retried,
        )
        return await trying(attempt)()

    async def _count_after(self, stream: bytes, last_id: bytes) -> int:
        request = pack(b"XRANGE", stream, b"(" + last_id, b"+", b"COUNT", b"%d" % (self.stream_length_max + 1))
        return len(checked(await self._query(request, 1), "counting")[0])

    def _on_trimmed(self, stream: str, entries: int) -> None:
        self._log.warning(
            "bus.trimmed_unread", stream=stream, entries=entries, stream_length_max=self.stream_length_max
        )

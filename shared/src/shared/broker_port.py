"""What every message bus of the platform can do, and what travels on it.

The database is the truth, the bus is a door-bell: entries may be lost, repeated or trimmed, and nothing that decides
money may depend on one. A reader acknowledges after its commit; what it acts on, it reads from the database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from shared.errors import MalformedMessage
from shared.events import Event

PAYLOAD_FIELD = b"data"
DEAD_LETTER_STREAM = "dead_letters"
STREAM_LENGTH_MAX = 10_000
DEAD_LETTERS_MAX = 1_000
PAYLOAD_BYTES_MAX = 1_048_576
REASON_LENGTH_MAX = 500

type Publishable = Event | Mapping[str, Any] | bytes
"""An event, its `to_dict` form, or an envelope that was encoded before (an outbox row)."""


class Message:
    """One entry as a reader got it; the envelope is decoded when first asked for.

    Exactly one of `event` and `error` is None: an entry that cannot be read is a message with a reason, never an
    exception, so that the reader can move it to the dead letters and go on.
    """

    __slots__ = ("_error", "_event", "_is_decoded", "group", "id", "raw", "stream")

    stream: str
    id: str
    raw: bytes
    group: str

    def __init__(self, *, stream: str, id: str, raw: bytes, group: str = "", error: str | None = None) -> None:
        self.stream = stream
        self.id = id
        self.raw = raw
        self.group = group
        self._error = error
        self._event: Event | None = None
        self._is_decoded = error is not None

    @property
    def event(self) -> Event | None:
        """Return the event, or None when the entry cannot be read."""
        if not self._is_decoded:
            self._decode()
        return self._event

    @property
    def error(self) -> str | None:
        """Return why the entry cannot be read, or None when it can."""
        if not self._is_decoded:
            self._decode()
        return self._error

    def _decode(self) -> None:
        self._is_decoded = True
        try:
            self._event = Event.decode(self.raw)
        except MalformedMessage as error:
            self._error = str(error)

    def __repr__(self) -> str:
        return f"Message({self.stream} {self.id}, {len(self.raw)} bytes)"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the stream `dead_letters`: what could not be read or handled, by whom, and why."""

    stream: str
    message_id: str
    consumer: str
    reason: str
    payload: bytes


class Broker(Protocol):
    """The message bus as services know it; every fault of the bus leaves as a `BrokerError`."""

    async def publish(self, stream: str, event: Publishable) -> str:
        """Append one event and return its id."""

    async def publish_many(self, items: Sequence[tuple[str, Publishable]]) -> list[str]:
        """Append many events in one round trip, in order, and return their ids."""

    async def read(self, stream: str, last_id: str = "0", count: int = 100, block_ms: int = 0) -> list[Message]:
        """Return entries after `last_id`, oldest first; 0 does not wait."""

    async def read_group(
        self, group: str, consumer: str, streams: Sequence[str], count: int = 100, block_ms: int = 0
    ) -> list[Message]:
        """Return entries that no consumer of the group has had; after a (re)connect first this consumer's unacked."""

    async def ack(self, group: str, messages: Sequence[Message]) -> int:
        """Mark messages as handled and return how many were still open."""

    async def claim_stale(
        self, group: str, consumer: str, streams: Sequence[str], idle_ms: int, count: int = 100
    ) -> list[Message]:
        """Take over messages that some consumer has left open for `idle_ms`."""

    async def dead_letter(self, message: Message, consumer: str, reason: str) -> None:
        """Move a message to the bounded stream `dead_letters`."""

    async def read_dead_letters(self, last_id: str = "0", count: int = 100) -> list[DeadLetter]:
        """Return dead letters after `last_id`, oldest first."""

    async def depth(self, stream: str) -> int:
        """Return how many entries the stream holds; 0 when there is no such stream."""

    async def lag(self, group: str, stream: str) -> int:
        """Return how many entries of the stream the group has not acknowledged."""

    async def trim(self, stream: str, length_max: int) -> int:
        """Drop the oldest entries above `length_max` and return how many went."""

    async def ping(self) -> bool:
        """Return whether the bus answers."""

    async def close(self) -> None:
        """Close every connection."""


def encode_payload(event: Publishable) -> bytes:
    """Return the bytes that go on the wire; readers judge them, so a mapping is not checked here."""
    if isinstance(event, bytes):
        return event
    if isinstance(event, Event):
        return event.encode()
    try:
        return msgspec.json.encode(event)
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError) as error:
        raise MalformedMessage(f"publish: not an event, was {type(event).__name__} ({error})") from error


def message_from_fields(stream: str, id: str, fields: Sequence[bytes], group: str = "") -> Message:
    """Return the message of one entry, given as name, value, name, value ..."""
    if len(fields) == 2 and fields[0] == PAYLOAD_FIELD and len(fields[1]) <= PAYLOAD_BYTES_MAX:
        return Message(stream=stream, id=id, raw=fields[1], group=group)
    values = dict(zip(fields[::2], fields[1::2], strict=False))
    raw = values.get(PAYLOAD_FIELD)
    if raw is None:
        names = ", ".join(sorted(name[:40].decode("utf-8", "replace") for name in values)[:10])
        return Message(
            stream=stream,
            id=id,
            raw=b" ".join(fields)[:PAYLOAD_BYTES_MAX],
            group=group,
            error=f"event: no field {PAYLOAD_FIELD.decode()!r}, found: {names or 'none'}",
        )
    if len(raw) > PAYLOAD_BYTES_MAX:
        reason = f"event: {len(raw)} bytes, at most {PAYLOAD_BYTES_MAX} are read"
        return Message(stream=stream, id=id, raw=raw[:PAYLOAD_BYTES_MAX], group=group, error=reason)
    return Message(stream=stream, id=id, raw=raw, group=group)


def dead_letter_fields(message: Message, consumer: str, reason: str) -> list[bytes]:
    """Return the entry that records a dead letter, as name, value, name, value ..."""
    return [
        b"stream",
        message.stream.encode(),
        b"message_id",
        message.id.encode(),
        b"consumer",
        consumer.encode(),
        b"reason",
        reason[:REASON_LENGTH_MAX].encode("utf-8", "replace"),
        b"payload",
        message.raw,
    ]


def dead_letter_from_fields(fields: Sequence[bytes]) -> DeadLetter:
    """Return the dead letter of one entry; what is missing reads as empty."""
    values = dict(zip(fields[::2], fields[1::2], strict=False))

    def text(name: bytes) -> str:
        return values.get(name, b"").decode("utf-8", "replace")

    return DeadLetter(
        stream=text(b"stream"),
        message_id=text(b"message_id"),
        consumer=text(b"consumer"),
        reason=text(b"reason"),
        payload=values.get(b"payload", b""),
    )

"""How one consumer of a group reads its streams: its own unacknowledged messages first, then what nobody has had."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from shared.broker_link import Link, ServerRefused, checked, pack
from shared.broker_port import Message, message_from_fields

GROUP_LOST = ("NOGROUP", "UNBLOCKED")
"""What a server says of a group that vanished with its stream, before or during a wait."""
LOST_GROUPS_MAX = 3

type TrimmedSink = Callable[[str, int], None]


class GroupReader:
    """The reading side of one (group, consumer) on a connection of its own."""

    def __init__(self, link: Link, group: str, consumer: str, on_trimmed: TrimmedSink) -> None:
        self.lock = asyncio.Lock()
        self._link = link
        self._head = (b"XREADGROUP", b"GROUP", group.encode(), consumer.encode(), b"COUNT")
        self._group = group
        self._on_trimmed = on_trimmed
        self._generation = 0
        self._unacked_cursors: dict[str, bytes] = {}
        self._recovered: set[str] = set()

    async def read(
        self, streams: Sequence[str], count: int, block_ms: int, answer_timeout_seconds: float
    ) -> list[Message]:
        """Return the next messages; a lost group is made again from the beginning of its streams.

        A bus that is wiped again and again says nothing: whoever listens looks into the database then.
        """
        for _ in range(LOST_GROUPS_MAX):
            try:
                await self._open(answer_timeout_seconds)
                messages = await self._read_unacked(streams, count, answer_timeout_seconds)
                return messages or await self._read_new(streams, count, block_ms, answer_timeout_seconds)
            except ServerRefused as refusal:
                if not is_group_lost(refusal):
                    raise
                await create_groups(self._link, self._group, streams, answer_timeout_seconds)
        return []

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()

    async def _open(self, timeout_seconds: float) -> None:
        generation = await self._link.open(timeout_seconds)
        if generation != self._generation:
            self._generation = generation
            self._unacked_cursors.clear()
            self._recovered.clear()

    async def _read_unacked(self, streams: Sequence[str], count: int, timeout_seconds: float) -> list[Message]:
        while waiting := [stream for stream in streams if stream not in self._recovered]:
            cursors = [self._unacked_cursors.get(stream, b"0") for stream in waiting]
            reply = await self._ask(waiting, cursors, (b"%d" % count,), timeout_seconds)
            messages: list[Message] = []
            for stream, entries in streams_of(reply):
                if not entries:
                    self._recovered.add(stream)
                    continue
                self._unacked_cursors[stream] = entries[-1][0]
                messages += messages_of(stream, entries, self._group)
                await self._forget_trimmed(stream, entries, timeout_seconds)
            if messages:
                return messages
        return []

    async def _read_new(
        self, streams: Sequence[str], count: int, block_ms: int, timeout_seconds: float
    ) -> list[Message]:
        options = (b"%d" % count, b"BLOCK", b"%d" % block_ms) if block_ms > 0 else (b"%d" % count,)
        reply = await self._ask(streams, [b">"] * len(streams), options, timeout_seconds + block_ms / 1000)
        return [
            message for stream, entries in streams_of(reply) for message in messages_of(stream, entries, self._group)
        ]

    async def _ask(
        self, streams: Sequence[str], cursors: Sequence[bytes], options: tuple[bytes, ...], timeout_seconds: float
    ) -> Any:
        names = [stream.encode() for stream in streams]
        request = pack(*self._head, *options, b"STREAMS", *names, *cursors)
        return checked(await self._link.call(request, 1, timeout_seconds), f"reading {', '.join(streams)}")[0]

    async def _forget_trimmed(self, stream: str, entries: Iterable[Any], timeout_seconds: float) -> None:
        """Acknowledge entries that were trimmed before they were handled: nobody can read them any more."""
        gone = [entry[0] for entry in entries if entry[1] is None]
        if gone:
            await self._link.call(pack(b"XACK", stream.encode(), self._group.encode(), *gone), 1, timeout_seconds)
            self._on_trimmed(stream, len(gone))


async def create_groups(link: Link, group: str, streams: Sequence[str], timeout_seconds: float) -> None:
    """Make the group on every stream, from its beginning; one that exists keeps its place."""
    request = b"".join(
        pack(b"XGROUP", b"CREATE", stream.encode(), group.encode(), b"0", b"MKSTREAM") for stream in streams
    )
    replies = await link.call(request, len(streams), timeout_seconds)
    exists = (isinstance(reply, ResponseError) and str(reply).startswith("BUSYGROUP") for reply in replies)
    checked([reply for reply, ok in zip(replies, exists, strict=True) if not ok], f"making group {group}")


def is_group_lost(error: BaseException) -> bool:
    """Return whether the server refused because the group or its stream is gone."""
    cause = error.__cause__
    return isinstance(cause, ResponseError) and str(cause).startswith(GROUP_LOST)


def streams_of(reply: Any) -> list[tuple[str, list[Any]]]:
    """Return (stream, entries) of an answer to XREAD or XREADGROUP."""
    pairs = reply.items() if isinstance(reply, dict) else reply or ()
    return [(name.decode(), entries) for name, entries in pairs]


def messages_of(stream: str, entries: Iterable[Any], group: str = "") -> list[Message]:
    """Return the messages of entries that still exist."""
    return [message_from_fields(stream, entry[0].decode(), entry[1], group) for entry in entries if entry and entry[1]]

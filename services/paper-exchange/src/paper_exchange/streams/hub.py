"""Who hears which stream; an event is written once for all who want it in the same form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

type EventMaker = Callable[[int], Any]


class Subscriber(Protocol):
    """A connection as the hub knows it."""

    @property
    def is_combined(self) -> bool:
        """Return whether events come in an envelope that names the stream."""

    @property
    def ticks_a_ms(self) -> int:
        """Return the unit of times: 1 for milliseconds, 1000 for microseconds."""

    def send(self, text: bytes) -> None:
        """Take one event; never waits."""

    def hang_up(self, code: int, reason: str) -> None:
        """End soon; code 1006 means without a word."""


class StreamHub:
    """Streams and their subscribers."""

    def __init__(self) -> None:
        self._subscribers: dict[str, dict[Subscriber, None]] = defaultdict(dict)

    def has(self, stream: str) -> bool:
        """Return whether anybody hears a stream."""
        return stream in self._subscribers

    @property
    def streams(self) -> Iterable[str]:
        """Return every stream that somebody hears."""
        return self._subscribers.keys()

    def subscribers(self, stream: str) -> list[Subscriber]:
        """Return who hears a stream now."""
        return list(self._subscribers.get(stream, ()))

    def update(self, subscriber: Subscriber, before: Iterable[str], after: Iterable[str]) -> None:
        """Move a subscriber from the streams of `before` to those of `after`."""
        old, new = set(before), set(after)
        for stream in old - new:
            self._subscribers[stream].pop(subscriber, None)
            if not self._subscribers[stream]:
                del self._subscribers[stream]
        for stream in new - old:
            self._subscribers[stream][subscriber] = None

    def publish(self, stream: str, make: EventMaker, change: Callable[[bytes], bytes] | None = None) -> None:
        """Send an event to all who hear `stream`, its text changed at the last moment where that is asked for."""
        written: dict[tuple[bool, int], bytes] = {}
        for subscriber in self.subscribers(stream):
            form = (subscriber.is_combined, subscriber.ticks_a_ms)
            if form not in written:
                text = write_event(stream, make(form[1]), is_combined=form[0])
                written[form] = text if change is None else change(text)
            subscriber.send(written[form])

    def shut_down(self, stream: str, event_ms: int) -> None:
        """Tell all who hear `stream` that the server goes, and go."""
        for subscriber in self.subscribers(stream):
            event = {"e": "serverShutdown", "E": event_ms * subscriber.ticks_a_ms}
            subscriber.send(write_event("!serverShutdown", event, is_combined=subscriber.is_combined))
            subscriber.hang_up(1001, "")

    def hang_up(self, stream: str, code: int) -> None:
        """Hang up on all who hear `stream`."""
        for subscriber in self.subscribers(stream):
            subscriber.hang_up(code, "")


def write_event(stream: str, event: Any, *, is_combined: bool) -> bytes:
    """Return an event as it goes over the wire."""
    return msgspec.json.encode({"stream": stream, "data": event} if is_combined else event)

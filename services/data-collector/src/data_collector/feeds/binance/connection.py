"""One connection to a server of market streams: opened, subscribed, read to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Final

import aiohttp
import msgspec

from data_collector.feeds.binance.frames import Answer, Frame, Shutdown, read_frame
from shared.clock import Clock
from shared.errors import MalformedMessage, VenueUnavailable

VENUE: Final = "binance stream"
MESSAGE_BYTES_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class StreamRules:
    """What the venue allows, each with a margin, and how patient we are."""

    streams_per_connection_max: int = 1000  # allowed: 1024
    messages_per_second_max: float = 4.0  # allowed: 5, our pongs among them
    url_characters_max: int = 2000
    streams_per_request_max: int = 100
    open_seconds_max: float = 10.0
    answer_seconds_max: float = 10.0
    heartbeat_seconds: float = 15.0
    life_seconds_max: float = 23 * 3600.0  # the venue closes after 24 h
    life_spread_seconds: float = 1800.0  # connections are not renewed all at once
    short_life_seconds: float = 10.0
    silence_seconds_max: float = 60.0
    retry_base_seconds: float = 0.5
    retry_seconds_max: float = 60.0
    breaker_threshold: int = 5
    breaker_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class StreamEars:
    """Who listens to what a connection brings; neither may wait."""

    on_frame: Callable[[Frame], None]
    on_malformed: Callable[[str, MalformedMessage], None]


class StreamConnection:
    """A combined-stream connection; pings are answered and sent by aiohttp."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, clock: Clock, rules: StreamRules) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._clock = clock
        self._rules = rules
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[str]] = {}
        self.opened_at = 0.0
        self.will_close = asyncio.Event()  # the server said so
        self.ended = asyncio.Event()
        self.end_reason = ""

    @property
    def age_seconds(self) -> float:
        """Return how long the connection has lived."""
        return self._clock.monotonic() - self.opened_at

    async def open(self, streams: Sequence[str], ears: StreamEars) -> None:
        """Connect and subscribe; returns once the server has granted every stream.

        Raises
        ------
        VenueUnavailable
            No connection, or no grant in time.
        """
        first, rest = _fit(self._base_url, streams, self._rules.url_characters_max)
        url = f"{self._base_url}/stream?streams={'/'.join(first)}" if first else f"{self._base_url}/stream"
        try:
            async with asyncio.timeout(self._rules.open_seconds_max):
                self._socket = await self._session.ws_connect(
                    url, heartbeat=self._rules.heartbeat_seconds, max_msg_size=MESSAGE_BYTES_MAX
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise VenueUnavailable(VENUE, f"no connection: {_text(error)}") from error
        self.opened_at = self._clock.monotonic()
        self._reader = asyncio.create_task(self._read(self._socket, ears), name="binance stream")
        try:
            await self._subscribe(rest)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection and stop reading."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        if self._socket is not None:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._socket.close()
        self.ended.set()

    async def _subscribe(self, streams: Sequence[str]) -> None:
        assert self._socket is not None
        for number, part in enumerate(batched(streams, self._rules.streams_per_request_max), start=1):
            await self._clock.sleep(1 / self._rules.messages_per_second_max)
            answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self._answers[number] = answer
            request = {"method": "SUBSCRIBE", "params": list(part), "id": number}
            try:
                await self._socket.send_str(msgspec.json.encode(request).decode())
                async with asyncio.timeout(self._rules.answer_seconds_max):
                    fault = await answer
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise VenueUnavailable(VENUE, f"a subscription without an answer: {_text(error)}") from error
            if fault:
                raise VenueUnavailable(VENUE, f"a subscription was refused: {fault}")

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, ears: StreamEars) -> None:
        try:
            async for message in socket:
                if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    self._take(message.data, ears)
            self.end_reason = f"closed by the server, code {socket.close_code}"
        except (aiohttp.ClientError, OSError) as error:
            self.end_reason = _text(error)
        finally:
            self.ended.set()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_result("the connection ended")

    def _take(self, data: str | bytes, ears: StreamEars) -> None:
        try:
            frame = read_frame(data)
        except MalformedMessage as error:
            text = data if isinstance(data, str) else data.decode("utf-8", "replace")
            ears.on_malformed(text, error)
            return
        if isinstance(frame, Answer):
            self._note_answer(frame)
        elif isinstance(frame, Shutdown):
            self.will_close.set()
        elif frame is not None:
            ears.on_frame(frame)

    def _note_answer(self, answer: Answer) -> None:
        waiting = self._answers.get(answer.request_id) if isinstance(answer.request_id, int) else None
        if waiting is None:
            waiting = next((each for each in self._answers.values() if not each.done()), None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer.error)


def _fit(base_url: str, streams: Sequence[str], characters_max: int) -> tuple[Sequence[str], Sequence[str]]:
    """Return the streams that the address may name, and those to be subscribed afterwards."""
    length = len(base_url) + len("/stream?streams=")
    for place, stream in enumerate(streams):
        length += len(stream) + 1
        if length > characters_max:
            return streams[:place], streams[place:]
    return streams, ()


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]

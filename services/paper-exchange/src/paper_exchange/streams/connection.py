"""One WebSocket connection: what it hears, how often it may speak, and when it is hung up on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from paper_exchange.streams.control import STREAMS_MAX, Subscriptions, TooManyStreams, answer
from paper_exchange.streams.hub import StreamHub
from paper_exchange.streams.names import StreamPath
from shared.clock import Clock

type Ask = Callable[[str], dict[str, Any]]

_MESSAGE_BYTES_MAX: Final = 1_000_000
_LAST_SECONDS_MAX: Final = 1.0


@dataclass(frozen=True, slots=True)
class ConnectionRules:
    """The limits of one connection, as the exchange documents them."""

    ping_seconds: float = 20.0
    pong_seconds_max: float = 60.0
    life_seconds_max: float = 24 * 3600.0
    life_close_code: int = 1001
    messages_a_second_max: int = 5
    streams_max: int = STREAMS_MAX
    frames_waiting_max: int = 20_000
    connections_max: int = 300
    connections_window_seconds: float = 300.0


class HangUp(Exception):
    """The server ends a connection; code 1006 means without a word."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class StreamConnection:
    """Serves one client until it leaves or breaks a rule; with `ask` its messages are requests of the WebSocket API."""

    def __init__(
        self, hub: StreamHub, rules: ConnectionRules, clock: Clock, ticks_a_ms: int = 1, *, ask: Ask | None = None
    ) -> None:
        self._hub, self._rules, self._clock = hub, rules, clock
        self.ticks_a_ms, self._ask = ticks_a_ms, ask
        self._subscriptions = Subscriptions(streams_max=rules.streams_max)
        self._socket = web.WebSocketResponse(autoping=False, compress=False, max_msg_size=_MESSAGE_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(maxsize=rules.frames_waiting_max)
        self._spoken: deque[float] = deque()
        self._unanswered: bytes | None = None
        self._hang_up: asyncio.Future[HangUp] = asyncio.get_running_loop().create_future()

    @property
    def is_combined(self) -> bool:
        """Return whether events come in an envelope."""
        return self._subscriptions.is_combined

    @property
    def streams(self) -> tuple[str, ...]:
        """Return what is heard, in the order of subscription."""
        return tuple(self._subscriptions.streams)

    def send(self, text: bytes) -> None:
        """Queue one frame; a client that does not read is hung up on, and one hung up on hears no more."""
        if self._hang_up.done():
            return
        try:
            self._waiting.put_nowait(text)
        except asyncio.QueueFull:
            self.hang_up(WSCloseCode.POLICY_VIOLATION, "Client reads too slowly")

    def hang_up(self, code: int, reason: str) -> None:
        """End the connection soon; the first reason counts."""
        if not self._hang_up.done():
            self._hang_up.set_result(HangUp(code, reason))

    async def serve(self, request: web.Request, path: StreamPath) -> web.WebSocketResponse:
        """Upgrade the request and serve until the end."""
        await self._socket.prepare(request)
        self._transport = request.transport
        self._subscriptions.is_combined = path.is_combined
        self._subscribe(path.streams)
        parts = (self._listen(), self._write(), self._keep_asking(), self._grow_old())
        tasks = [asyncio.create_task(part) for part in parts]
        ends: list[asyncio.Future[Any]] = [*tasks, self._hang_up]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.update(self, self.streams, ())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._send_rest()
            await self._close()
        return self._socket

    def _subscribe(self, streams: tuple[str, ...]) -> None:
        if len(streams) > self._rules.streams_max:
            self.hang_up(WSCloseCode.POLICY_VIOLATION, "Too many streams")
            return
        self._subscriptions.streams.update(dict.fromkeys(streams))
        self._hub.update(self, (), streams)

    async def _send_rest(self) -> None:
        """Send what was said before the end, while the client still listens."""
        try:
            async with asyncio.timeout(_LAST_SECONDS_MAX):
                while not self._waiting.empty() and not self._socket.closed:
                    await self._socket.send_str(self._waiting.get_nowait().decode())
        except (TimeoutError, ConnectionError, RuntimeError):
            return

    async def _close(self) -> None:
        reason = self._hang_up.result() if self._hang_up.done() else HangUp(WSCloseCode.OK, "")
        if reason.code == WSCloseCode.ABNORMAL_CLOSURE:
            if self._transport is not None:
                self._transport.abort()
            return
        await self._socket.close(code=reason.code, message=reason.reason.encode())

    async def _listen(self) -> None:
        async for message in self._socket:
            if self._ask is None and self._speaks_too_often():
                self.hang_up(WSCloseCode.POLICY_VIOLATION, "Too many messages")
                return
            if message.type is WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type is WSMsgType.PONG:
                if message.data == self._unanswered:
                    self._unanswered = None
            else:
                self._obey(message)

    def _obey(self, message: WSMessage) -> None:
        text = message.data if message.type is WSMsgType.TEXT else ""
        if self._ask is not None:
            self.send(msgspec.json.encode(self._ask(text)))
            return
        before = self.streams
        try:
            said = answer(text, self._subscriptions)
        except TooManyStreams:
            self._hub.update(self, before, ())
            self.hang_up(WSCloseCode.POLICY_VIOLATION, "Too many streams")
            return
        self._hub.update(self, before, self.streams)
        self.send(msgspec.json.encode(said))

    def _speaks_too_often(self) -> bool:
        now = self._clock.monotonic()
        self._spoken.append(now)
        while self._spoken and self._spoken[0] <= now - 1.0:
            self._spoken.popleft()
        return len(self._spoken) > self._rules.messages_a_second_max

    async def _write(self) -> None:
        while True:
            frame = await self._waiting.get()
            try:
                await self._socket.send_str(frame.decode())
            except (ConnectionError, RuntimeError):
                return

    async def _keep_asking(self) -> None:
        waited = 0.0
        while True:
            await self._clock.sleep(self._rules.ping_seconds)
            if self._unanswered is not None:
                waited += self._rules.ping_seconds
                if waited >= self._rules.pong_seconds_max:
                    self.hang_up(WSCloseCode.POLICY_VIOLATION, "Pong timeout")
                    return
                continue
            waited = 0.0
            self._unanswered = str(int(self._clock.now().timestamp() * 1000)).encode()
            try:
                await self._socket.ping(self._unanswered)
            except (ConnectionError, RuntimeError):
                return

    async def _grow_old(self) -> None:
        await self._clock.sleep(self._rules.life_seconds_max)
        self.hang_up(self._rules.life_close_code, "")

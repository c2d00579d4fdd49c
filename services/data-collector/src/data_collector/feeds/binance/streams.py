"""Many streams over few connections that are kept: made anew when they end, grow old, fall silent or are about to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import batched

import aiohttp
from structlog.stdlib import BoundLogger

from data_collector.feeds.binance.connection import VENUE, StreamConnection, StreamEars, StreamRules
from data_collector.feeds.binance.frames import Frame, KlineFrame
from data_collector.feeds.binance.watch import StreamWatch
from data_collector.feeds.port import StreamKey
from shared.clock import Clock, seeded_random
from shared.errors import MalformedMessage, VenueUnavailable
from shared.metrics import ServiceMetrics
from shared.resilience import Backoff, CircuitBreaker, UniformSource

LOOK_SECONDS_MAX = 1.0
SHORT_LIVES_MAX = 16


@dataclass(frozen=True, slots=True)
class StreamPorts:
    """What the keeper of connections works with; `now` is the venue's time."""

    clock: Clock
    log: BoundLogger
    now: Callable[[], datetime]
    metrics: ServiceMetrics | None = None
    rng: UniformSource | None = None


@dataclass(frozen=True, slots=True)
class StreamHandlers:
    """Who hears what; none may wait. `on_connected` comes after every new connection, also the first."""

    on_kline: Callable[[KlineFrame], None]
    on_malformed: Callable[[str, MalformedMessage], None]
    on_connected: Callable[[], None]


def stream_name(market_id: str, timeframe: str) -> str:
    """Return the venue's name of a candle stream, e.g. `btcusdt@kline_1m`."""
    return f"{market_id.lower()}@kline_{timeframe}"


class BinanceStreams:
    """Keeps as many connections as the streams need, each by a task of its own.

    An old, silent or soon closing connection goes only when its successor is up, so that no frame falls between.
    """

    def __init__(
        self,
        base_url: str,
        streams: Mapping[StreamKey, str],
        handlers: StreamHandlers,
        ports: StreamPorts,
        rules: StreamRules | None = None,
    ) -> None:
        self._base_url = base_url
        self._streams = dict(sorted(streams.items()))  # stream -> the venue's id of the market
        self._keys = {(market_id, key.timeframe): key for key, market_id in streams.items()}
        self._handlers = handlers
        self._ports = ports
        self._rules = rules or StreamRules()
        self._rng = ports.rng or seeded_random()
        self._breaker = CircuitBreaker(self._rules.breaker_threshold, self._rules.breaker_seconds, clock=ports.clock)
        self._watch = StreamWatch(self._rules.silence_seconds_max)
        self._troubles: dict[int, str] = {}
        self.connected_total = 0

    def troubles(self) -> list[str]:
        """Return what keeps frames from coming now: connections that are down, streams that are silent."""
        silent = self._watch.silent(self._ports.now().timestamp())
        told = [f"{VENUE}: {text}" for text in self._troubles.values()]
        return told + ([f"no frame in time: {', '.join(map(str, silent))}"] if silent else [])

    async def run(self) -> None:
        """Keep every connection until cancelled."""
        parts = batched(self._streams, self._rules.streams_per_connection_max)
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for number, part in enumerate(parts):
                group.create_task(self._keep(number, part, session), name=f"{VENUE} {number}")

    async def _keep(self, number: int, part: tuple[StreamKey, ...], session: aiohttp.ClientSession) -> None:
        short_lives = 0
        current = await self._open(number, part, session)
        try:
            while True:
                reason = await self._until_due(current, part)
                self._ports.log.info("stream.renewed", connection=number, reason=reason, age=round(current.age_seconds))
                short_lives = min(short_lives + 1, SHORT_LIVES_MAX) if self._was_short(current) else 0
                if short_lives > 1:  # up and down at once, over and over: not faster and faster
                    await self._pause_after(short_lives)
                following = await self._open(number, part, session)
                await current.close()
                current = following
        finally:
            await current.close()

    def _was_short(self, connection: StreamConnection) -> bool:
        return connection.age_seconds < self._rules.short_life_seconds

    async def _pause_after(self, short_lives: int) -> None:
        ceiling = min(self._rules.retry_base_seconds * 2**short_lives, self._rules.retry_seconds_max)
        await self._ports.clock.sleep(self._rng.uniform(ceiling / 2, ceiling))

    async def _until_due(self, connection: StreamConnection, part: tuple[StreamKey, ...]) -> str:
        """Wait until a connection has ended or should be replaced, and return why."""
        rules = self._rules
        life = rules.life_seconds_max - self._rng.uniform(0, min(rules.life_spread_seconds, rules.life_seconds_max / 2))
        ended, closing = (
            asyncio.ensure_future(connection.ended.wait()),
            asyncio.ensure_future(connection.will_close.wait()),
        )
        try:
            while True:
                pause = asyncio.ensure_future(
                    self._ports.clock.sleep(min(LOOK_SECONDS_MAX, rules.silence_seconds_max / 2))
                )
                await asyncio.wait({ended, closing, pause}, return_when=asyncio.FIRST_COMPLETED)
                pause.cancel()
                if ended.done():
                    return connection.end_reason or "ended"
                if closing.done():
                    return "the server announced that it closes"
                if connection.age_seconds >= life:
                    return "old"
                silent = [key for key in self._watch.silent(self._ports.now().timestamp()) if key in part]
                if silent:
                    for key in silent:
                        self._watch.suspected(key)
                    return f"silent: {', '.join(map(str, silent[:5]))}"
        finally:
            for each in (ended, closing):
                each.cancel()

    async def _open(self, number: int, part: tuple[StreamKey, ...], session: aiohttp.ClientSession) -> StreamConnection:
        """Return a subscribed connection, however long that takes."""
        backoff = Backoff(self._rules.retry_base_seconds, self._rules.retry_seconds_max, rng=self._rng)
        while True:
            try:
                connection = await self._try_open(part, session)
            except VenueUnavailable as error:
                wait = max(backoff.next_seconds(error), self._breaker.retry_in_seconds)
                self._tell_failure(number, error, wait)
                await self._ports.clock.sleep(wait)
            else:
                self._troubles.pop(number, None)
                now = self._ports.now().timestamp()
                for key in part:
                    self._watch.start(key, now)
                self.connected_total += 1
                self._handlers.on_connected()
                return connection

    async def _try_open(self, part: tuple[StreamKey, ...], session: aiohttp.ClientSession) -> StreamConnection:
        if not self._breaker.allow_request():
            raise VenueUnavailable(VENUE, "not tried: it failed too often")
        connection = StreamConnection(session, self._base_url, self._ports.clock, self._rules)
        names = [stream_name(self._streams[key], key.timeframe) for key in part]
        try:
            await connection.open(names, StreamEars(self._on_frame, self._handlers.on_malformed))
        except VenueUnavailable:
            self._breaker.record_failure()
            raise
        finally:
            if self._ports.metrics is not None:
                self._ports.metrics.breaker(VENUE, self._breaker.state.value)
        self._breaker.record_success()
        return connection

    def _tell_failure(self, number: int, error: VenueUnavailable, wait: float) -> None:
        self._troubles[number] = f"{error.text}; next try in {wait:.1f} s"
        self._ports.log.warning("stream.away", connection=number, error=error.text, retry_seconds=round(wait, 3))
        if self._ports.metrics is not None:
            self._ports.metrics.error(error)
            self._ports.metrics.retry(VENUE)

    def _on_frame(self, frame: Frame) -> None:
        if isinstance(frame, KlineFrame):
            key = self._keys.get((frame.market_id, frame.interval))
            if key is not None:
                self._watch.heard(key, frame.event_ms / 1000)
            self._handlers.on_kline(frame)

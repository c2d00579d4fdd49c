"""The exchange as a server: one port on this machine for REST, streams and its own control."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from aiohttp import web

from paper_exchange.market.numbers import SCALE
from paper_exchange.market.run import MarketRun
from paper_exchange.market.run_plan import Alignment
from paper_exchange.market.sources import Recording
from paper_exchange.rest.budget import BudgetRules
from paper_exchange.rest.service import RestService
from paper_exchange.streams.announcer import StreamAnnouncer
from paper_exchange.streams.connection import ConnectionRules, StreamConnection
from paper_exchange.streams.hub import StreamHub
from paper_exchange.streams.names import StreamPath, read_path
from shared.clock import Clock
from shared.domain.rounding import Instrument
from shared.errors import ConfigError

HOST: Final = "127.0.0.1"
_STOP_SECONDS_MAX: Final = 1.0


@dataclass(frozen=True, slots=True)
class ExchangeUrls:
    """Where the exchange is: `rest` without a path, `stream` without /ws or /stream."""

    port: int

    @property
    def rest(self) -> str:
        """Return the base of REST."""
        return f"http://{HOST}:{self.port}"

    @property
    def stream(self) -> str:
        """Return the base of the streams."""
        return f"ws://{HOST}:{self.port}"


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    """How the exchange behaves; with `wait` the market stands still until somebody asks for it."""

    port: int = 0
    speed: float = 1.0
    alignment: Alignment = "end"
    wait: bool = False
    budget: BudgetRules = field(default_factory=BudgetRules)
    connection: ConnectionRules = field(default_factory=ConnectionRules)
    instruments: Mapping[str, Instrument] = field(default_factory=dict)


class PaperExchange:
    """A local exchange: `start` listens and returns where, `running` does so for the length of a block."""

    def __init__(self, recording: Recording, options: ExchangeOptions, clock: Clock) -> None:
        self._options, self._clock = options, clock
        self.market = MarketRun(recording, clock, speed=options.speed, alignment=options.alignment)
        self.hub = StreamHub()
        self.market.listen(StreamAnnouncer(self.market, self.hub))
        self.rest = RestService(self.market, _rules(recording, options.instruments), options.budget)
        self._connections: set[StreamConnection] = set()
        self._connected_at: deque[float] = deque()
        self._runner: web.AppRunner | None = None
        self._playing: asyncio.Task[None] | None = None
        self.urls = ExchangeUrls(options.port)

    async def start(self) -> ExchangeUrls:
        """Listen and let the market begin; a port that cannot be had is a `ConfigError`."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_STOP_SECONDS_MAX)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, self.urls.port).start()
        except (OSError, OverflowError) as error:
            await self._runner.cleanup()
            taken = getattr(error, "errno", None) == errno.EADDRINUSE
            why = "in use by another program" if taken else str(getattr(error, "strerror", None) or error)
            raise ConfigError(f"port {self.urls.port} on {HOST}: {why}; give another one, or 0 for any") from None
        self.urls = ExchangeUrls(int(self._runner.addresses[0][1]))
        self._playing = asyncio.create_task(self.market.run())
        if not self._options.wait:
            self.market.begin()
        return self.urls

    async def stop(self) -> None:
        """Hang up on everybody and stop listening."""
        for connection in list(self._connections):
            connection.hang_up(1001, "")
        if self._playing is not None:
            self._playing.cancel()
            await asyncio.gather(self._playing, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ExchangeUrls]:
        """Run for the length of a block."""
        try:
            yield await self.start()
        finally:
            await self.stop()

    async def over(self) -> None:
        """Wait until the recording has been played; raises what ended the market before."""
        assert self._playing is not None, "the exchange was not started"
        await asyncio.shield(self._playing)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = read_path(request.path, request.query.get("streams"))
        if path is None or request.headers.get("Upgrade", "").lower() != "websocket":
            return self.rest.answer(request)
        return await self._connect(request, path)

    async def _connect(self, request: web.Request, path: StreamPath) -> web.StreamResponse:
        if self._connects_too_often():
            return web.Response(status=429, headers={"Retry-After": "300"})
        ticks = 1000 if request.query.get("timeUnit", "").upper() == "MICROSECOND" else 1
        connection = StreamConnection(self.hub, self._options.connection, self._clock, ticks)
        self._connections.add(connection)
        self.market.begin()
        try:
            return await connection.serve(request, path)
        finally:
            self._connections.discard(connection)

    def _connects_too_often(self) -> bool:
        rules, now = self._options.connection, self._clock.monotonic()
        while self._connected_at and self._connected_at[0] <= now - rules.connections_window_seconds:
            self._connected_at.popleft()
        if len(self._connected_at) >= rules.connections_max:
            return True
        self._connected_at.append(now)
        return False


def _rules(recording: Recording, known: Mapping[str, Instrument]) -> dict[str, Instrument]:
    """Return every symbol's rules; one that nobody knows trades on the grid of its own prices."""
    ticks = {symbol: tape.tick for (symbol, _), tape in recording.tapes.items()}
    return {
        symbol: known.get(symbol) or Instrument(symbol=symbol, tick_size=Decimal(tick) / SCALE)
        for symbol, tick in ticks.items()
    }

"""The exchange as a server: one port on this machine for REST, streams and its own control."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from aiohttp import web

from paper_exchange.faults.board import FaultBoard, Moment
from paper_exchange.faults.control import PREFIX, PaperControl
from paper_exchange.faults.plan import FaultPlan
from paper_exchange.faults.publisher import FramePublisher
from paper_exchange.faults.requests import cut, meet_faults
from paper_exchange.listener import HOST, Listener
from paper_exchange.market.numbers import SCALE
from paper_exchange.market.run import MarketRun
from paper_exchange.market.run_plan import Alignment
from paper_exchange.market.sources import Recording
from paper_exchange.rest.budget import BudgetRules
from paper_exchange.rest.errors import ApiError
from paper_exchange.rest.service import RestService
from paper_exchange.rest.socket_api import CONNECT_WEIGHT, SUFFIX, SocketApi
from paper_exchange.streams.announcer import StreamAnnouncer
from paper_exchange.streams.connection import ConnectionRules, StreamConnection
from paper_exchange.streams.hub import StreamHub
from paper_exchange.streams.names import StreamPath, read_path
from shared.clock import Clock
from shared.domain.rounding import Instrument

_LOOK_SECONDS: Final = 0.02


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
    faults: FaultPlan = field(default_factory=FaultPlan)


class PaperExchange:
    """A local exchange: `start` listens and returns where, `running` does so for the length of a block."""

    def __init__(self, recording: Recording, options: ExchangeOptions, clock: Clock) -> None:
        self._options, self._clock = options, clock
        self.market = MarketRun(recording, clock, speed=options.speed, alignment=options.alignment)
        self.hub = StreamHub()
        self.faults = FaultBoard(options.faults)
        publisher = FramePublisher(self.hub, self.faults, self.market.seconds)
        self._announcer = StreamAnnouncer(self.market, self.hub, publisher, clock)
        self.market.listen(self._announcer)
        self.rest = RestService(self.market, _rules(recording, options.instruments), options.budget, publisher.holes)
        self._control = PaperControl(self.faults, self._status)
        self._listener = Listener(options.port, clock)
        self._connections: set[StreamConnection] = set()
        self._connected_at: deque[float] = deque()
        self._playing: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def urls(self) -> ExchangeUrls:
        """Return where the exchange is; before `start` with the port that was asked for."""
        return ExchangeUrls(self._listener.port)

    async def start(self) -> ExchangeUrls:
        """Listen and let the market begin; a port that cannot be had is a `ConfigError`."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        await self._listener.start(app)
        self._playing = asyncio.create_task(self.market.run())
        self._tasks = [asyncio.create_task(self._announcer.run()), asyncio.create_task(self._break_machine())]
        if not self._options.wait:
            self.market.begin()
        return self.urls

    async def stop(self) -> None:
        """Hang up on everybody and stop listening."""
        for connection in list(self._connections):
            connection.hang_up(1001, "")
        tasks = [*self._tasks, self._playing] if self._playing is not None else self._tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._listener.stop()

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

    async def broken(self) -> None:
        """Wait for ever; raises what ended a part of the exchange that must not end."""
        assert self._playing is not None, "the exchange was not started"
        parts = {*self._tasks, self._playing}
        while parts:
            done, parts = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()

    def _moment(self) -> Moment:
        candle = max((market.candle_number for market in self.market.markets.values()), default=0)
        return Moment(candle, self.market.seconds())

    def _status(self) -> dict[str, Any]:
        plan = self.market.plan
        return {
            "server_ms": self.market.server_ms(),
            "market_ms": None if plan is None else int(self.market.told_ms()),
            "shift_ms": None if plan is None else plan.shift_ms,
            "speed": self.market.speed,
            "is_over": self.market.is_over,
            "candles_closed": {market.symbol: market.base.total for market in self.market.markets.values()},
            "connections": len(self._connections),
            "faults": self.faults.report(),
        }

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith(PREFIX):
            return await self._control.answer(request)
        is_api = request.path.endswith(SUFFIX)
        path = StreamPath((), False) if is_api else read_path(request.path, request.query.get("streams"))
        if path is not None and request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._connect(request, path)
        faults = self.faults.of_request(request.path, self._moment())
        if not faults:
            return self.rest.answer(request)
        weight_max, now_ms = self._options.budget.weight_max, self.market.server_ms()
        spoiled = await meet_faults(faults, self._clock, weight_max=weight_max, now_ms=now_ms)
        if spoiled.is_cut:
            cut(request)
        if spoiled.error is not None:
            return self.rest.refuse(request.remote or "", spoiled.error)
        return spoiled.page or self.rest.answer(request, rows_hidden=spoiled.rows_hidden)

    async def _connect(self, request: web.Request, path: StreamPath) -> web.StreamResponse:
        if self._connects_too_often():
            return web.Response(status=429, headers={"Retry-After": "300"})
        ticks = 1000 if request.query.get("timeUnit", "").upper() == "MICROSECOND" else 1
        ask = self._socket_api(request, ticks).answer if request.path.endswith(SUFFIX) else None
        connection = StreamConnection(self.hub, self._options.connection, self._clock, ticks, ask=ask)
        self._connections.add(connection)
        if ask is None:
            self.market.begin()
        try:
            return await connection.serve(request, path)
        finally:
            self._connections.discard(connection)

    def _socket_api(self, request: web.Request, ticks: int) -> SocketApi:
        address = request.remote or ""
        shows_limits = request.query.get("returnRateLimits", "true") != "false"
        with suppress(ApiError):  # a connection is let in, its requests are not
            self.rest.budget.charge(address, CONNECT_WEIGHT, self.market.server_ms())
        return SocketApi(self.rest, address, ticks, shows_limits=shows_limits)

    def _connects_too_often(self) -> bool:
        rules, now = self._options.connection, self._clock.monotonic()
        while self._connected_at and self._connected_at[0] <= now - rules.connections_window_seconds:
            self._connected_at.popleft()
        if len(self._connected_at) >= rules.connections_max:
            return True
        self._connected_at.append(now)
        return False

    async def _break_machine(self) -> None:
        """Refuse connections when a fault says so, once a candle at most."""
        candles: dict[str, int] = {}
        while True:
            await self._clock.sleep(_LOOK_SECONDS)
            moment = self._moment()
            for fault in self.faults.of_machine(moment) if self.market.plan is not None else ():
                if fault["after_seconds"] >= 0 or candles.get(fault.name) != moment.candle:
                    candles[fault.name] = moment.candle
                    await self._listener.refuse(fault["seconds"], cut=fault["cut"])


def _rules(recording: Recording, known: Mapping[str, Instrument]) -> dict[str, Instrument]:
    """Return every symbol's rules; one that nobody knows trades on the grid of its own prices."""
    ticks = {symbol: tape.tick for (symbol, _), tape in recording.tapes.items()}
    return {
        symbol: known.get(symbol) or Instrument(symbol=symbol, tick_size=Decimal(tick) / SCALE)
        for symbol, tick in ticks.items()
    }

"""Answers whether a service lives, works and how fast: /health, /live, /ready and /metrics over HTTP.

The answers come from a thread of their own: a service whose event loop is held up still says so.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from shared.clock import Clock, SystemClock
from shared.errors import ConfigError
from shared.redaction import redact_text
from shared.side_loop import SideLoop

type CheckOutcome = bool | tuple[bool, str]
type CheckFunction = Callable[[], CheckOutcome | Awaitable[CheckOutcome | None] | None]

SHUTDOWN_SECONDS_MAX: Final = 1.0
DETAIL_LENGTH_MAX: Final = 500
PULSE_SECONDS_MAX: Final = 1.0
LOOP_SECONDS_MAX: Final = 30.0
EVENT_LOOP: Final = "event_loop"


@dataclass(frozen=True)
class CheckResult:
    """What one check found."""

    ok: bool
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as /health shows it."""
        return {"status": "ok" if self.ok else "failed", "detail": self.detail}


class Heartbeat:
    """A check of a loop: it fails when nobody has called `beat` for `age_seconds_max`."""

    def __init__(self, age_seconds_max: float, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._age_seconds_max = age_seconds_max
        self._last = self._clock.monotonic()

    def beat(self) -> None:
        """Say that the loop has come round."""
        self._last = self._clock.monotonic()

    async def check(self) -> tuple[bool, str]:
        """Return whether the loop came round lately."""
        return self.look()

    def look(self) -> tuple[bool, str]:
        """Return the same to any thread."""
        age = self._clock.monotonic() - self._last
        return age <= self._age_seconds_max, f"last turn {age:.1f} s ago, at most {self._age_seconds_max:.1f} s allowed"


class HealthCheckServer:
    """Serves the checks of one process; port 0 takes any free one and `port` then tells which.

    Checks run in the event loop of `start`. When that loop has not turned for `loop_seconds_max`, /live, /ready and
    /health answer 503 without asking it.
    """

    def __init__(
        self,
        service_name: str,
        port: int = 8080,
        *,
        host: str = "127.0.0.1",
        registry: CollectorRegistry | None = None,
        check_seconds_max: float = 5.0,
        loop_seconds_max: float = LOOP_SECONDS_MAX,
        clock: Clock | None = None,
    ) -> None:
        self.service_name, self.host, self.port = service_name, host, port
        self._registry = REGISTRY if registry is None else registry
        self._check_seconds_max = check_seconds_max
        self._clock = clock or SystemClock()
        self._started_at = self._clock.monotonic()
        self._pulse_seconds = min(PULSE_SECONDS_MAX, loop_seconds_max / 4)
        self._pulse = Heartbeat(loop_seconds_max, clock=self._clock)
        self._checks: dict[str, CheckFunction] = {EVENT_LOOP: self._pulse.check}
        self._live_checks: set[str] = {EVENT_LOOP}
        self._told: list[Callable[[bool], None]] = []
        self._running: dict[str, asyncio.Task[CheckResult]] = {}
        self._in_thread: set[str] = set()
        self._runner: web.AppRunner | None = None
        self._own: asyncio.AbstractEventLoop | None = None
        self._side = SideLoop(f"health {service_name}")
        self._beating: asyncio.Task[None] | None = None

    def tell_live(self, tell: Callable[[bool], None]) -> None:
        """Tell at every look at /metrics, before it is written, whether the process lives as /live understands it."""
        self._told.append(tell)

    def register_check(self, name: str, fn: CheckFunction, *, liveness: bool = False) -> None:
        """Ask `fn` whenever health is asked for; it returns a bool, (bool, detail) or raises; a known name is replaced.

        With `liveness` /live asks it too: its failure means that only a restart helps.
        """
        self._checks[name] = fn
        self._running.pop(name, None)
        if liveness:
            self._live_checks.add(name)
        else:
            self._live_checks.discard(name)

    async def run_checks(self) -> dict[str, Any]:
        """Run all checks together and return what /health shows."""
        return await self._document(list(self._checks))

    async def start(self) -> None:
        """Listen; a port that cannot be had is a `ConfigError`."""
        if self._runner is not None:
            return
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._health)
        app.router.add_get("/live", self._live)
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS_MAX)

        async def listen() -> None:
            await runner.setup()
            try:
                await web.TCPSite(runner, self.host, self.port).start()
            except (OSError, OverflowError) as error:
                await runner.cleanup()
                raise ConfigError(self._explain(error)) from None

        self._own = asyncio.get_running_loop()
        self._pulse.beat()
        self._side.start()
        try:
            await self._side.run(listen())
        except ConfigError:
            self._side.stop()
            raise
        self._runner = runner
        self._beating = asyncio.create_task(self._beat(), name="health pulse")
        self.port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening and give up the checks still under way."""
        for task in self._running.values():
            task.cancel()
        self._running.clear()
        beating, self._beating = self._beating, None
        if beating is not None:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
        runner, self._runner = self._runner, None
        if runner is not None:
            await self._side.run(runner.cleanup())
            self._side.stop()

    async def _beat(self) -> None:
        while True:
            self._pulse.beat()
            await self._clock.sleep(self._pulse_seconds)

    def _explain(self, error: Exception) -> str:
        where = f"health_port {self.port} on {self.host}"
        advice = "set HEALTH_PORT or --health-port to a free one, or 0 for any"
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            return f"{where}: in use by another program (perhaps another instance); {advice}"
        if number == errno.EACCES:
            return f"{where}: this user may not listen there; {advice}"
        return f"{where}: cannot listen ({getattr(error, 'strerror', None) or error}); check HEALTH_HOST, or {advice}"

    async def _document(self, names: list[str]) -> dict[str, Any]:
        results = await asyncio.gather(*(self._run(name) for name in names))
        return self._written(dict(zip(names, results, strict=True)))

    def _written(self, results: Mapping[str, CheckResult]) -> dict[str, Any]:
        return {
            "status": "ok" if all(result.ok for result in results.values()) else "degraded",
            "service": self.service_name,
            "uptime_seconds": round(self._clock.monotonic() - self._started_at, 3),
            "checks": {name: result.to_dict() for name, result in results.items()},
        }

    async def _asked(self, names: list[str]) -> dict[str, Any]:
        """Return the document of some checks, asked of the service's loop from beside it, if that still turns."""
        turns, detail = self._pulse.look()
        if not turns or self._own is None:
            return self._written({EVENT_LOOP: CheckResult(False, f"it does not turn: {detail}")})
        work = self._document(names)
        try:
            asked = asyncio.run_coroutine_threadsafe(work, self._own)
        except RuntimeError:  # that loop is closed
            work.close()
            return self._written({EVENT_LOOP: CheckResult(False, "it has ended")})
        # A check that hangs is cut off over there, after `check_seconds_max`.
        answer = asyncio.wrap_future(asked)
        while not answer.done():
            await asyncio.wait({answer}, timeout=self._pulse_seconds)
            turns, detail = self._pulse.look()
            if not turns and not answer.done():
                asked.cancel()
                return self._written({EVENT_LOOP: CheckResult(False, f"it does not turn: {detail}")})
        if answer.cancelled():
            return self._written({EVENT_LOOP: CheckResult(False, "it ends")})
        return answer.result()

    async def _run(self, name: str) -> CheckResult:
        """Wait for a check at most its time; two askers share one run.

        A coroutine that hangs is cancelled; a thread cannot be, so none is started beside one that still hangs.
        """
        task = self._running.get(name)
        if task is None or task.done():
            task = asyncio.create_task(self._outcome(name, self._checks[name]))
            self._running[name] = task
        await asyncio.wait({task}, timeout=self._check_seconds_max)
        if not task.done():
            if name not in self._in_thread:
                task.cancel()
            return CheckResult(False, f"no answer within {self._check_seconds_max:g} s")
        return CheckResult(False, "given up") if task.cancelled() else task.result()

    async def _outcome(self, name: str, function: CheckFunction) -> CheckResult:
        try:
            found = await self._ask(name, function)
        except Exception as error:  # noqa: BLE001 - a task boundary: a check that raises is a check that failed
            return CheckResult(False, _shorten(f"{type(error).__name__}: {error}"))
        if isinstance(found, tuple):
            ok, detail = found
            return CheckResult(bool(ok), _shorten(str(detail)))
        return CheckResult(found is None or bool(found))  # no word is a good word, as with a ping

    async def _ask(self, name: str, function: CheckFunction) -> CheckOutcome | None:
        if _is_coroutine_function(function):
            found = function()
        else:  # a plain function may block: it must not hold the loop
            self._in_thread.add(name)
            try:
                found = await asyncio.to_thread(function)
            finally:
                self._in_thread.discard(name)
        return await found if inspect.isawaitable(found) else found

    async def _health(self, _: web.Request) -> web.Response:
        return _respond(await self._asked(list(self._checks)))

    async def _live(self, _: web.Request) -> web.Response:
        return _respond(await self._asked(sorted(self._live_checks)))

    async def _metrics(self, _: web.Request) -> web.Response:
        if self._told:
            found = await self._asked(sorted(self._live_checks))
            for tell in self._told:
                tell(found["status"] == "ok")
        # The header is set as it stands: `content_type=` refuses the charset that it holds.
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _respond(document: dict[str, Any]) -> web.Response:
    return web.json_response(document, status=200 if document["status"] == "ok" else 503)


def _is_coroutine_function(function: CheckFunction) -> bool:
    # An object may have an `async def __call__`; whether it is callable is not the question.
    call = getattr(type(function), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _shorten(text: str) -> str:
    return redact_text(text)[:DETAIL_LENGTH_MAX]

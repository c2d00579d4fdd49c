"""The port: listens, and refuses everybody for a while when it is told to."""

from __future__ import annotations

import errno
from typing import Final

from aiohttp import web

from shared.clock import Clock
from shared.errors import ConfigError

HOST: Final = "127.0.0.1"
_STOP_SECONDS_MAX: Final = 1.0


class Listener:
    """One port on this machine; port 0 takes any free one and `port` then tells which."""

    def __init__(self, port: int, clock: Clock) -> None:
        self.port = port
        self._clock = clock
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    async def start(self, app: web.Application) -> int:
        """Listen and return the port; one that cannot be had is a `ConfigError`."""
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_STOP_SECONDS_MAX)
        await self._runner.setup()
        try:
            await self._listen(self._runner)
        except (OSError, OverflowError) as error:
            await self.stop()
            taken = getattr(error, "errno", None) == errno.EADDRINUSE
            why = "in use by another program" if taken else str(getattr(error, "strerror", None) or error)
            raise ConfigError(f"port {self.port} on {HOST}: {why}; give another one, or 0 for any") from None
        return self.port

    async def stop(self) -> None:
        """Stop listening."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def refuse(self, seconds: float, *, cut: bool) -> None:
        """Refuse new connections for a while; with `cut` those there are break too."""
        runner, site = self._runner, self._site
        if runner is None or site is None:
            return
        await site.stop()
        if cut and runner.server is not None:
            for handler in list(runner.server.connections):
                if handler.transport is not None:
                    handler.transport.abort()
        await self._clock.sleep(seconds)
        if self._runner is not None:
            await self._listen(runner)

    async def _listen(self, runner: web.AppRunner) -> None:
        self._site = web.TCPSite(runner, HOST, self.port)
        await self._site.start()
        self.port = int(runner.addresses[0][1])

"""The four services as processes of their own on real servers: started, killed, paused, started again, watched."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg

from shared.clock import Clock, SystemClock
from shared.config import ENVIRONMENT_NAMES
from shared.testing.servers import ServerRun

PROCESSES: Final = ("data-collector", "strategy-engine", "order-executor", "portfolio-manager")
CURSOR_OF: Final[Mapping[str, str]] = dict(
    zip(PROCESSES, ("collector", "engine", "executor", "portfolio"), strict=True)
)
POLL_SECONDS: Final = 0.005
RUN_SECONDS_MAX: Final = 420.0
STOP_SECONDS_MAX: Final = 10.0
SCRIPTS: Final = Path(sys.executable).parent

type Cursors = Mapping[str, str]


@dataclass
class ProcessRun:
    """Four services, two URLs and the settings of all: what `docker compose` would run, without it."""

    folder: Path
    database_url: str
    redis_url: str
    settings: Mapping[str, str]
    clock: Clock = field(default_factory=SystemClock)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> ProcessRun:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
                process.wait()

    def start(self, *services: str, name: str = "", **settings: str) -> None:
        """Start services; half of them by `trading run`, half by their own console scripts.

        A second copy of one needs a `name` of its own.
        """
        for service in services:
            number = PROCESSES.index(service)
            command = [SCRIPTS / "trading", "run", service] if number % 2 else [SCRIPTS / service]
            self.running[name or service] = self._popen([str(part) for part in command], name or service, settings)

    def trading(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command of `trading` to its end."""
        command = [str(SCRIPTS / "trading"), *arguments]
        return subprocess.run(
            command, env=self._environment({}), cwd=self.folder, capture_output=True, timeout=120, check=False
        )

    def kill(self, name: str) -> None:
        """SIGKILL one process."""
        process = self.running.pop(name)
        assert process.poll() is None, f"{name} ended by itself: {self.said(name)[-4000:]}"
        process.kill()
        process.wait()

    def stop(self, *names: str) -> dict[str, int]:
        """SIGTERM processes and return their exit codes; longer than ten seconds is a failure."""
        for name in names:
            self.running[name].send_signal(signal.SIGTERM)
        return {name: self.wait(name, STOP_SECONDS_MAX) for name in names}

    def wait(self, name: str, seconds_max: float = RUN_SECONDS_MAX) -> int:
        """Return the exit code of a process that ends by itself."""
        process = self.running.pop(name)
        try:
            return process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{name} has not ended after {seconds_max} s: {self.said(name)[-4000:]}") from None

    def said(self, name: str) -> str:
        """Return everything that the processes of a name wrote."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def until(self, is_met: Callable[[Cursors], bool], *, meanwhile: Callable[[], object] | None = None) -> Cursors:
        """Wait until the stored cursors are as wanted and return them; a database that is away is waited for.

        A process that ended with an error fails the wait.
        """
        return asyncio.run(self._until(is_met, meanwhile or (lambda: None)))

    async def _until(self, is_met: Callable[[Cursors], bool], meanwhile: Callable[[], object]) -> Cursors:
        deadline = self.clock.monotonic() + RUN_SECONDS_MAX
        connection: asyncpg.Connection | None = None
        try:
            while self.clock.monotonic() < deadline:
                self._refuse_the_dead()
                meanwhile()
                try:
                    connection = connection or await asyncpg.connect(self.database_url, timeout=10)
                    cursors = {row["name"]: row["value"] for row in await connection.fetch("SELECT * FROM cursors")}
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    connection = None
                else:
                    if is_met(cursors):
                        return cursors
                await self.clock.sleep(POLL_SECONDS)
        finally:
            if connection is not None:
                await connection.close()
        said = "\n".join(f"{name}: {self.said(name)[-1500:]}" for name in self.running)
        raise AssertionError(f"nothing after {RUN_SECONDS_MAX} s; the processes said:\n{said}")

    def _refuse_the_dead(self) -> None:
        for name, process in self.running.items():
            code = process.poll()
            assert code in (None, 0), f"{name} ended with {code}: {self.said(name)[-4000:]}"

    def _popen(self, command: Sequence[str], name: str, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{name}.log", "ab") as said:
            return subprocess.Popen(
                command,
                stdout=said,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=self._environment(settings),
                start_new_session=True,
            )

    def _environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        outside = {name: value for name, value in os.environ.items() if name.upper() not in ENVIRONMENT_NAMES}
        own = {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url, "HEALTH_PORT": "0", "STATE": "state"}
        return outside | own | {key.upper(): value for key, value in {**self.settings, **settings}.items()}


def handled_by(service: str, close_time_ms: int) -> Callable[[Cursors], bool]:
    """Return the condition: a service's watermark has reached a close time."""
    name = f"{CURSOR_OF[service]}/watermark"
    return lambda cursors: int(cursors.get(name, -1)) >= close_time_ms


def all_handled(cursors: Cursors) -> bool:
    """Return whether every service has handled the last candle of a replay that has ended."""
    end = cursors.get("collector/end")
    return end is not None and all(
        int(cursors.get(f"{name}/watermark", -1)) >= int(end) for name in ("engine", "executor", "portfolio")
    )


def truncate_append_only_file(server: ServerRun, keep: float = 0.6) -> int:
    """Cut the newest append-only file of a Redis that is not running; return how many bytes were lost."""
    newest = max((server.folder / "appendonlydir").glob("*.aof"), key=lambda path: path.stat().st_size)
    size = newest.stat().st_size
    os.truncate(newest, int(size * keep))
    return size - int(size * keep)


def wait_while(process: subprocess.Popen[bytes], is_so: Callable[[], bool], seconds_max: float = 30.0) -> None:
    """Wait until something is no longer so; fail when the process ends first or the time is over."""
    for _ in range(int(seconds_max / POLL_SECONDS)):
        if not is_so():
            return
        assert process.poll() is None, "the process ended first"
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"still so after {seconds_max} s")

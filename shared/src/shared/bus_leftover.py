"""A bus server that outlived its parent: remembered in a pid file, recognised by its socket, ended."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
from pathlib import Path

import msgspec

from shared.errors import BrokerError, StateLocked

PID_FILE = "bus.pid"
DIRECTORY_PREFIX = "trading-bus-"
END_SECONDS_MAX = 5.0


class BusProcess(msgspec.Struct, frozen=True, kw_only=True):
    """What the pid file says of a running server; the socket's path is in its command line and is never used twice."""

    pid: int
    parent_pid: int
    socket: str


def write_pid_file(state_dir: Path, process: BusProcess) -> None:
    """Remember a running server, replacing the file in one step."""
    path = state_dir / PID_FILE
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(process))
    fresh.replace(path)


def remove_pid_file(state_dir: Path) -> None:
    """Forget the server that has ended."""
    (state_dir / PID_FILE).unlink(missing_ok=True)


def end_leftover(state_dir: Path) -> int | None:
    """End the server that the pid file names and return its pid, or None when there is none.

    A pid that now belongs to another program is left alone; a server whose parent still runs is in use.
    """
    path = state_dir / PID_FILE
    try:
        process = msgspec.json.decode(path.read_bytes(), type=BusProcess)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError):  # cut by a crash: nothing can be known from it
        path.unlink(missing_ok=True)
        return None
    ended = _end(process, state_dir)
    remove_directory(Path(process.socket).parent)
    path.unlink(missing_ok=True)
    return process.pid if ended else None


def remove_directory(directory: Path) -> None:
    """Remove a server's socket directory; one that we did not name is left alone."""
    if directory.name.startswith(DIRECTORY_PREFIX):
        shutil.rmtree(directory, ignore_errors=True)


def _end(process: BusProcess, state_dir: Path) -> bool:
    try:
        handle = os.pidfd_open(process.pid)  # from here on the pid cannot pass to another program unseen
    except OSError:
        return False
    try:
        if not _is_server(process):
            return False
        if _parent_of(process.pid) == process.parent_pid:
            raise StateLocked(
                f"{state_dir}: its message bus (pid {process.pid}) serves the running process {process.parent_pid}; "
                "stop that one first"
            )
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], END_SECONDS_MAX)[0]:
                return True
        raise BrokerError(f"{state_dir}: the left-over message bus (pid {process.pid}) does not end; end it by hand")
    finally:
        os.close(handle)


def _is_server(process: BusProcess) -> bool:
    try:
        return process.socket.encode() in Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, ValueError, IndexError):
        return 0

"""Who a process is, for others on the same machine: a name that no later process bears, and whether it has ended."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
_ENDED: Final = frozenset("ZX")  # a zombie runs no code any more, it only waits to be asked for its exit code


class ProcessIdentity(NamedTuple):
    """A process: its host, its view of process numbers, its number in it, and when it began (ticks since boot)."""

    host: str
    namespace: str
    pid: int
    started: str

    def __str__(self) -> str:
        """Return the name that is stored: words for a person first, then what tells two processes apart."""
        return f"process {self.pid} on {self.host} ({self.namespace} {self.started})"

    @property
    def has_ended(self) -> bool:
        """Return whether the process is known to have ended; False where nobody here could know."""
        own = own_identity()
        if not self.started or (self.host, self.namespace) != (own.host, own.namespace):
            return False
        state, started = _stat_of(self.pid)
        return state in _ENDED or started != self.started


def own_identity() -> ProcessIdentity:
    """Return this process."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = f"{boot}/{os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:  # not Linux: nobody can prove an end, a lease runs out instead
        namespace = "-"
    started = _stat_of(os.getpid())[1] if namespace != "-" else ""
    return ProcessIdentity(socket.gethostname(), namespace, os.getpid(), started)


def parse_identity(text: str) -> ProcessIdentity | None:
    """Return the process that a stored name means, None for a text that is none."""
    words = text.split(" ")
    if len(words) != 6 or words[0] != "process" or words[2] != "on" or not words[1].isdigit():
        return None
    return ProcessIdentity(words[3], words[4].removeprefix("("), int(words[1]), words[5].removesuffix(")"))


def _stat_of(pid: int) -> tuple[str, str]:
    """Return a process's state and start; of one that is not there, a state that means so."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return "X", ""

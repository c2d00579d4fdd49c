"""The state directory: where it is, and the lock that lets one instance have it."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from shared.errors import ConfigError, StateLocked

LOCK_FILE = "lock"
DATABASE_FILE = "trading.db"
LOCK_ATTEMPTS_MAX = 5
LOCK_WAIT_SECONDS = 0.02


def database_url(state: Path) -> str:
    """Return the URL of the state's own database."""
    return f"sqlite:///{(state / DATABASE_FILE).absolute()}"


def prepare_state(state: Path) -> None:
    """Make the state directory, or say why it cannot be one."""
    if set(str(state.absolute())) & set("?%#"):
        raise ConfigError(
            f"state: {state} has one of the signs ? % # in its path, which a database URL gives a meaning"
        )
    try:
        state.mkdir(parents=True, exist_ok=True)
        probe = state / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"state: {state} cannot be written ({error.strerror}); give another --state") from None


@contextmanager
def hold_state(state: Path) -> Iterator[None]:
    """Hold the state directory; a second holder is told which process has it."""
    prepare_state(state)
    with open(state / LOCK_FILE, "a+") as lock:
        if not _take_lock(lock):
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise StateLocked(f"state: {state} is in use by process {holder}; stop it or give another --state")
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _take_lock(lock: TextIO) -> bool:
    """Return whether the lock is ours now; somebody who only looks at it (`state_holder`) has it for an instant."""
    for _ in range(LOCK_ATTEMPTS_MAX):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            threading.Event().wait(LOCK_WAIT_SECONDS)
        else:
            return True
    return False


def state_holder(state: Path) -> int | None:
    """Return the process that holds the state directory, None when nobody does."""
    path = state / LOCK_FILE
    if not path.is_file():
        return None
    with open(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = lock.read().strip()
            return int(text) if text.isdigit() else -1
    return None

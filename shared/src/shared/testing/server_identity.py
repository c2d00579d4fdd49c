"""As whom a test's server runs: PostgreSQL refuses root, and every server dies with the tests."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def other_identity(root: Path) -> str | None:
    """Return how a server that refuses root is run: unchanged, in a user namespace, or as nobody who owns `root`."""
    if os.geteuid() != 0:
        return None
    trial = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "true"]
    if shutil.which("unshare") and subprocess.run(trial, capture_output=True, check=False).returncode == 0:
        return "namespace"
    account = pwd.getpwnam("nobody")
    os.chown(root, account.pw_uid, account.pw_gid)
    return "nobody"


def child_setup(identity: str | None) -> Callable[[], None]:
    """Return what a child does before it becomes the server: take the identity, and end when its parent does."""
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

"""Environments of other tools: made once below `var/peers`, from pinned and hashed requirements.

Where packages come from is this machine's own configuration, found the way `make setup` finds it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

CHECKOUT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements"
ENVIRONMENTS = CHECKOUT / "var" / "peers"
STAMP = ".installed"
INSTALL_SECONDS_MAX = 900


class PeerAbsentError(Exception):
    """A tool that cannot be installed here, with the reason in one line."""


def python_of(peer: str) -> Path:
    """Return the interpreter of a tool's environment, made when it is missing or its requirements changed."""
    requirements = REQUIREMENTS / f"{peer}.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ENVIRONMENTS / f"{peer}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / STAMP).is_file():
        print(f"  installing {peer} into var/peers (once)", flush=True)
        environment = _where_packages_are()
        _run("venv", "--quiet", "--clear", "--python", sys.executable, folder, environment=environment)
        to_folder = ("--quiet", "--compile-bytecode", "--python", python, "--require-hashes")
        _run("pip", "sync", *to_folder, requirements, environment=environment)
        (folder / STAMP).touch()
    return python


def version_of(peer: str) -> str:
    """Return the pinned version of a tool."""
    lines = (REQUIREMENTS / f"{peer}.txt").read_text().splitlines()
    pinned = next(line for line in lines if line.startswith(f"{peer}=="))
    return pinned.removeprefix(f"{peer}==").rstrip(" \\")


def _run(*words: object, environment: Mapping[str, str]) -> None:
    command = [str(Path(sys.executable).with_name("uv")), *map(str, words)]
    try:
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS_MAX
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerAbsentError(f"uv: {error}") from None
    if ended.returncode:
        said = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
        raise PeerAbsentError(" ".join(said[-2:])[:200] or f"uv ended with {ended.returncode}")


def _where_packages_are() -> dict[str, str]:
    install = _installer()
    settings = install.pip_settings([sys.executable, "-m", "pip"])
    found: dict[str, str] = install.environment_for_uv(os.environ, settings)
    return found


@cache
def _installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trading_install", CHECKOUT / "tools" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""`trading doctor`: what this machine needs, looked at one by one, each with its remedy."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

import click

from shared.clock import Clock, SystemClock
from shared.config import SERVICE_PORTS, Settings, load_settings
from shared.embedded_bus import EmbeddedBus
from shared.errors import TradingError
from shared.plugins import discover
from shared.step_compiler import cache_directory
from trading_cli.rows_output import console, to_json
from trading_cli.state_dir import state_holder
from trading_cli.stored_state import StoredState, cli_settings, find_state, read_stored

PYTHON_MIN: Final = (3, 12)
SQLITE_MIN: Final = (3, 38, 0)  # json_each and ->> on every statement of the busy path
DISK_BYTES_MIN: Final = 1_000_000_000
EARLIEST: Final = datetime(2025, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)
OWN_PACKAGES: Final = (
    *("trading-shared", "trading-data-collector", "trading-strategy-engine", "trading-order-executor"),
    *("trading-portfolio-manager", "trading-backtester", "trading-cli"),
)
REINSTALL: Final = "run `make setup`"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: `remedy` is "" when it is well."""

    what: str
    found: str
    remedy: str = ""

    @property
    def is_ok(self) -> bool:
        """Return whether nothing has to be done."""
        return not self.remedy


@click.command("doctor")
@click.option("--state", type=click.Path(path_type=Path), help="state directory [default: TRADING_STATE, else var]")
@click.option("--json", "as_json", is_flag=True, help="the findings as JSON")
@click.pass_context
def doctor(ctx: click.Context, /, state: Path | None, *, as_json: bool) -> None:
    """Check that this machine has what the platform needs; exit code 1 when something has to be done."""
    findings = list(examine(state))
    is_ok = all(finding.is_ok for finding in findings)
    if as_json:
        rows = [asdict(finding) | {"ok": finding.is_ok} for finding in findings]
        click.echo(to_json({"schema": "doctor/1", "ok": is_ok, "findings": rows}))
    else:
        page = console()
        for finding in findings:
            word = "ok     " if finding.is_ok else "PROBLEM"
            page.print(f"{word}  {finding.what}: {finding.found}" + ("" if finding.is_ok else f"; {finding.remedy}"))
    ctx.exit(0 if is_ok else 1)


def examine(state: Path | None, clock: Clock | None = None) -> Iterator[Finding]:
    """Yield every finding; none of the checks writes anything but probes that are removed again."""
    yield check_python(sys.version_info[:3])
    yield check_packages(OWN_PACKAGES)
    try:
        settings = cli_settings(state=state)
        yield Finding("settings", "readable")
    except TradingError as error:
        yield Finding("settings", str(error), "correct the setting")
        settings = load_settings({"state": state} if state else {}, env={})
    yield check_strategies(settings)
    yield check_bus()
    yield check_sqlite(sqlite3.sqlite_version)
    yield check_disk(settings.state)
    yield check_writable("state directory", settings.state, "give another --state, or set TRADING_STATE")
    yield check_writable("cache of compiled strategies", cache_directory(), "set TRADING_CACHE to a folder of yours")
    yield check_stored(state)
    yield from check_ports(settings)
    yield check_clock((clock or SystemClock()).now())


def check_python(found: tuple[int, ...]) -> Finding:
    """Look at the interpreter."""
    text = ".".join(map(str, found))
    wanted = ".".join(map(str, PYTHON_MIN))
    return Finding("Python", text, "" if found[:2] >= PYTHON_MIN else f"at least {wanted} is needed; {REINSTALL}")


def check_packages(names: tuple[str, ...]) -> Finding:
    """Look for every package that ours declare."""
    missing: list[str] = []
    count = 0
    for own in names:
        try:
            needed = [own, *(text for text in requires(own) or [] if "extra ==" not in text)]
        except PackageNotFoundError:
            missing.append(own)
            continue
        for text in needed:
            name = re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0]
            count += 1
            try:
                version(name)
            except PackageNotFoundError:
                missing.append(name)
    if missing:
        return Finding("packages", f"missing: {', '.join(sorted(set(missing)))}", REINSTALL)
    return Finding("packages", f"{count} declared, all installed")


def check_strategies(settings: Settings) -> Finding:
    """Look at every strategy file."""
    try:
        found = discover(settings.strategies_dir or None)
    except TradingError as error:
        return Finding("strategies", str(error), "correct STRATEGIES_DIR")
    if found.problems:
        return Finding("strategies", str(found.problems[0]), "correct or remove the file")
    return Finding("strategies", ", ".join(found.names) or "none")


def check_bus() -> Finding:
    """Start and end a private message bus."""

    async def start_and_end() -> None:
        with tempfile.TemporaryDirectory(prefix="trading-doctor-") as folder:
            async with EmbeddedBus(Path(folder)):
                pass

    try:
        asyncio.run(start_and_end())
    except (TradingError, OSError) as error:
        return Finding("message bus", str(error), f"{REINSTALL}, or name a server with --redis-url")
    return Finding("message bus", "a private Valkey server starts, answers and ends")


def check_sqlite(found: str) -> Finding:
    """Look at the SQLite that Python brings."""
    wanted = ".".join(map(str, SQLITE_MIN))
    is_ok = tuple(map(int, found.split("."))) >= SQLITE_MIN
    return Finding("SQLite", found, "" if is_ok else f"at least {wanted} is needed; use a newer Python")


def check_disk(directory: Path, bytes_min: int = DISK_BYTES_MIN) -> Finding:
    """Look for room to write in."""
    free = shutil.disk_usage(nearest_folder(directory)).free
    is_ok = free >= bytes_min
    return Finding(
        "disk", f"{free / 1e9:.1f} GB free", "" if is_ok else f"free space: {bytes_min / 1e9:.1f} GB are needed"
    )


def check_writable(what: str, directory: Path, remedy: str) -> Finding:
    """Try to write where it is, or where it would be made."""
    folder = nearest_folder(directory)
    if directory.exists() and not directory.is_dir():
        return Finding(what, f"{directory} is a file", remedy)
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".trading-doctor-"):
            pass
    except OSError as error:
        return Finding(what, f"{folder} cannot be written ({error.strerror})", remedy)
    return Finding(what, f"{directory} can be written" if directory.is_dir() else f"{directory} can be made")


def check_stored(state: Path | None) -> Finding:
    """Look at the database, if there is one."""
    what = "database"
    try:
        stored: StoredState = find_state(state, None)
        if stored.is_own:
            try:
                stored.require()
            except TradingError:
                return Finding(what, f"none yet in {stored.directory}; `trading up` makes it")
        modes = read_stored(stored, lambda database: database.stamps())
    except TradingError as error:
        return Finding(what, str(error), "do what it says")
    return Finding(what, f"{stored.name} can be read ({modes.get('mode', 'no mode yet')})")


def check_ports(settings: Settings) -> Iterator[Finding]:
    """Look whether the ports of /health and /metrics are free; those of `run` trouble nobody else."""
    holder = state_holder(settings.state)
    port, host = settings.health_port, settings.health_host
    if holder is not None:
        yield Finding(f"port {port}", f"in use by `trading up` (pid {holder})")
    elif is_free(host, port):
        yield Finding(f"port {port}", "free")
    else:
        yield Finding(f"port {port}", f"in use on {host}", "end what uses it, or set HEALTH_PORT")
    others = {name: other for name, other in SERVICE_PORTS.items() if other != port}
    busy = [f"{other} ({name})" for name, other in others.items() if not is_free(host, other)]
    yield Finding("ports of `trading run`", f"in use: {', '.join(busy)}" if busy else "free")


def check_clock(now: datetime) -> Finding:
    """Look whether the machine knows roughly what time it is."""
    is_ok = EARLIEST <= now <= LATEST
    return Finding("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC", "" if is_ok else "set the machine's clock (NTP)")


def is_free(host: str, port: int) -> bool:
    """Return whether a port can be listened on; 0 always can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def nearest_folder(directory: Path) -> Path:
    """Return the directory itself, or the nearest one above it that exists."""
    path = Path(os.path.abspath(directory))
    return next(folder for folder in (path, *path.parents) if folder.is_dir())

"""Whole runs of `trading up` in processes of their own: watched from outside, ended in every way, gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from shared.bus_leftover import PID_FILE
from shared.clock import Clock, SystemClock, seeded_random
from shared.config import ENVIRONMENT_NAMES
from shared.testing.state_tables import connect_readonly

SERVICES: Final = ("collector", "engine", "executor", "portfolio")
DATABASE_FILE: Final = "trading.db"
POLL_SECONDS: Final = 0.002
RUN_SECONDS_MAX: Final = 420.0
COMMAND: Final = Path(sys.executable).with_name("trading")

type Condition = Callable[[sqlite3.Connection], bool]


class KillPoint(NamedTuple):
    """A kill when one service has handled so many candles; the batch size of that run; whether the bus dies too."""

    service: str
    candles: int
    batch_rows_max: int
    with_children: bool


def kill_points(seed: int, candles: int, count: int, batches: Sequence[int] = (29, 120, 500)) -> list[KillPoint]:
    """Return `count` places to kill at, ordered by candle: every service has its turn, chance chooses the rest."""
    rng = seeded_random(seed)
    places = sorted(rng.sample(range(1, candles), count))
    services = [SERVICES[number % len(SERVICES)] for number in range(count)]
    rng.shuffle(services)
    return [
        KillPoint(service, place, rng.choice(batches), rng.random() < 0.5)
        for service, place in zip(services, places, strict=True)
    ]


@dataclass(frozen=True)
class Ended:
    """How a run ended, and what it said."""

    code: int
    output: str


@dataclass
class PlatformRun:
    """One state directory and the options with which `trading up` is started on it, as often as wanted."""

    state: Path
    options: Sequence[str]
    clock: Clock = field(default_factory=SystemClock)

    @property
    def database(self) -> Path:
        """Return the state's SQLite file."""
        return self.state / DATABASE_FILE

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Start the platform in a process group of its own; what it says goes to `said.txt` in the state."""
        self.state.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if name.upper() not in ENVIRONMENT_NAMES}
        with open(self.state / "said.txt", "ab") as said:
            return subprocess.Popen(
                [str(COMMAND), "up", "--state", str(self.state), "--health-port", "0", *self.options, *more],
                stdout=said,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.state,
                env=environment,
                start_new_session=True,
            )

    def finish(self, *more: str) -> Ended:
        """Run until the platform ends by itself."""
        process = self.start(*more)
        return self._ended(process)

    def kill_when(self, condition: Condition, *more: str, with_children: bool = True) -> bool:
        """SIGKILL the platform when `condition` of the database holds; False when the run ended before."""
        process = self.start(*more)
        met = self._until(process, condition)
        self.kill(process, with_children=with_children)
        return met

    def kill_at_once(self, is_time: Callable[[], bool], *more: str) -> None:
        """SIGKILL everything as soon as `is_time` (asked of the file system) says so."""
        process = self.start(*more)
        self._watch(process, is_time)
        self.kill(process)

    def stop_when(
        self, condition: Condition, number: signal.Signals, *more: str, bus_dies: Condition | None = None
    ) -> Ended:
        """Send a signal that asks for an orderly end when `condition` holds, and wait for that end.

        When `bus_dies` holds, before that, the message bus is killed alone: the platform goes on with another.
        """
        process = self.start(*more)
        if bus_dies is not None and self._until(process, bus_dies):
            known = json.loads((self.state / PID_FILE).read_bytes())
            os.kill(known["pid"], signal.SIGKILL)
        if not self._until(process, condition):
            raise AssertionError(f"the run ended before it was stopped; it said:\n{self.said()[-4000:]}")
        process.send_signal(number)
        return self._ended(process)

    def kill(self, process: subprocess.Popen[bytes], *, with_children: bool = True) -> None:
        """SIGKILL the process and, unless they are left to notice it themselves, its children."""
        if process.poll() is None:
            (os.killpg if with_children else os.kill)(process.pid, signal.SIGKILL)
        process.wait()

    def verify(self) -> Ended:
        """Run `trading verify` on the state as it is."""
        command = [str(COMMAND), "verify", "--state", str(self.state)]
        done = subprocess.run(command, capture_output=True, cwd=self.state, timeout=RUN_SECONDS_MAX, check=False)
        return Ended(done.returncode, (done.stdout + done.stderr).decode(errors="replace"))

    def said(self) -> str:
        """Return everything that the runs on this state said."""
        return (self.state / "said.txt").read_text(errors="replace")

    def copy_database(self, folder: Path) -> Path:
        """Copy the database with its write-ahead log, as the kill left them."""
        folder.mkdir(parents=True)
        for path in self.state.glob(f"{DATABASE_FILE}*"):
            shutil.copyfile(path, folder / path.name)
        return folder / DATABASE_FILE

    def cursor(self, name: str) -> int | None:
        """Return a stored cursor."""
        with closing(connect_readonly(self.database)) as connection:
            return read_cursor(connection, name)

    def _until(self, process: subprocess.Popen[bytes], condition: Condition) -> bool:
        opened: list[sqlite3.Connection] = []

        def is_met() -> bool:
            try:
                if not opened:
                    if not self.database.exists():
                        return False
                    opened.append(connect_readonly(self.database))
                return condition(opened[0])
            except sqlite3.OperationalError:  # the tables are not there yet
                return False

        try:
            return self._watch(process, is_met)
        finally:
            for connection in opened:
                connection.close()

    def _watch(self, process: subprocess.Popen[bytes], is_met: Callable[[], bool]) -> bool:
        deadline = self.clock.monotonic() + RUN_SECONDS_MAX
        while not is_met():
            try:
                process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if self.clock.monotonic() < deadline:
                    continue
                self.kill(process)
                raise AssertionError(f"nothing after {RUN_SECONDS_MAX} s; it said:\n{self.said()[-4000:]}") from None
            return is_met()
        return True

    def _ended(self, process: subprocess.Popen[bytes]) -> Ended:
        try:
            code = process.wait(RUN_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill(process)
            raise AssertionError(f"no end after {RUN_SECONDS_MAX} s; it said:\n{self.said()[-4000:]}") from None
        return Ended(code, self.said())


def read_cursor(connection: sqlite3.Connection, name: str) -> int | None:
    """Return a cursor of an open database, None where it is not set."""
    row = connection.execute("SELECT value FROM cursors WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else None


def handled(service: str, close_time_ms: int) -> Condition:
    """Return the condition: a service's watermark has reached a close time."""

    def is_met(connection: sqlite3.Connection) -> bool:
        watermark = read_cursor(connection, f"{service}/watermark")
        return watermark is not None and watermark >= close_time_ms

    return is_met


def has_rows(table: str) -> Condition:
    """Return the condition: a table exists and holds a row."""

    def is_met(connection: sqlite3.Connection) -> bool:
        return connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None

    return is_met

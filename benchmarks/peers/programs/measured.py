"""What every tool's program shares: the job it reads, the clock it runs on, the figures it writes.

Runs in the environment of any tool: the standard library and numpy alone.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

STARTED = time.perf_counter()


class Outcome(NamedTuple):
    """What one pass over the work left: how many orders were filled, and the account at the last close."""

    orders: int
    equity: float


class Job:
    """One piece of work; `sets` are parameter pairs, `share` says how much of the whole work is really done."""

    def __init__(self, path: Path) -> None:
        given = json.loads(path.read_text())
        self.work: str = given["work"]
        self.market_path: str = given["market"]
        self.strategy: str = given["strategy"]
        self.params: dict[str, int] = given["params"]
        self.sets: list[tuple[int, int]] = [tuple(pair) for pair in given["sets"]]
        self.engine: str = given["engine"]
        self.balance: float = given["balance"]
        self.quantity: float = given["quantity"]
        self.fee: float = given["fee"]
        self.threads: int = given["threads"]
        self.repeats: int = given["repeats"]
        self.out = Path(given["out"])

    def market(self) -> dict[str, Any]:
        """Return the candles as arrays, read into memory."""
        import numpy as np

        with np.load(self.market_path) as stored:
            return {name: stored[name] for name in stored.files}


def job() -> Job:
    """Return the job that the command line names."""
    return Job(Path(sys.argv[1]))


def import_seconds() -> float:
    """Return how long the program has run: called behind its imports."""
    return time.perf_counter() - STARTED


def peak_rss_mb() -> float:
    """Return the most memory that the process has held."""
    status = Path("/proc/self/status")
    if status.is_file():  # where there is one: the other figure begins with that of the process before
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_figures(job: Job, imported: float, once: Callable[[], Outcome], **more: Any) -> None:
    """Do the work once unmeasured (it compiles), then as often as the job says, and write what came of it."""
    before = peak_rss_mb()
    started = time.perf_counter()
    outcome = once()
    seconds = [time.perf_counter() - started]
    first = seconds[0]
    if job.repeats:
        seconds = []
    for _ in range(job.repeats):
        started = time.perf_counter()
        outcome = once()
        seconds.append(time.perf_counter() - started)
    figures = {
        "orders": outcome.orders,
        "equity": outcome.equity,
        "import_seconds": imported,
        "first_seconds": first,
        "seconds": seconds,
        "rss_mb_before": before,
        "rss_mb": peak_rss_mb(),
        **more,
    }
    job.out.write_text(json.dumps(figures))

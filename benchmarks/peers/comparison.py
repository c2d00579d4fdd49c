"""Runs the same work in every tool, each in a fresh process, and sets the figures side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.environments import PeerAbsentError, python_of, version_of

PROGRAMS = Path(__file__).parent / "programs"
PROGRAM_SECONDS_MAX = 3600
OURS = "trading"
W1_PARAMS = {"short_period": 9, "long_period": 21}
W2_SETS = tuple((short, long) for short in range(5, 25) for long in range(30, 130, 5))
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS"), "1"
)


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool on one work; `sets_share` of the sets are really run and the time is multiplied."""

    name: str
    work: str
    engine: str = ""
    threads: int = 1
    repeats: int = 3
    sets_share: float = 1.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What a tool reached; `why_absent` says why there is nothing."""

    tool: Tool
    version: str = ""
    seconds: float = 0.0
    candle_steps_per_second: float = 0.0
    orders: int = 0
    equity: float = 0.0
    rss_mb: float = 0.0
    import_seconds: float = 0.0
    first_seconds: float = 0.0
    why_absent: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bench:
    """The market that all tools share, and where the jobs are written."""

    folder: Path
    market: Path
    rows: int
    strategy: str = "ema_crossover"
    params: tuple[tuple[str, int], ...] = tuple(W1_PARAMS.items())
    balance: float = 1_000_000.0
    fee: float = 0.001

    def run(self, tool: Tool) -> Measured:
        """Run one tool in a fresh process of its own environment."""
        sets = W2_SETS[: max(1, round(len(W2_SETS) * tool.sets_share))] if tool.work == "W2" else ()
        try:
            python = Path(sys.executable) if tool.name == OURS else python_of(tool.name)
            figures = self._figures(tool, python, sets)
        except PeerAbsentError as error:
            return Measured(tool, why_absent=str(error))
        seconds = min(figures["seconds"]) / (tool.sets_share if sets else 1.0)
        steps = self.rows * (len(W2_SETS) if sets else 1)
        return Measured(
            tool,
            version="" if tool.name == OURS else version_of(tool.name),
            seconds=seconds,
            candle_steps_per_second=steps / seconds,
            **{name: figures[name] for name in ("orders", "equity", "rss_mb", "import_seconds", "first_seconds")},
            details=figures,
        )

    def _figures(self, tool: Tool, python: Path, sets: Sequence[tuple[int, int]]) -> dict[str, Any]:
        out, job = self.folder / "figures.json", self.folder / "job.json"
        out.unlink(missing_ok=True)
        given = {
            "work": tool.work,
            "market": str(self.market),
            "strategy": self.strategy,
            "params": dict(self.params),
            "sets": sets,
            "engine": tool.engine,
            "balance": self.balance,
            "quantity": 0.01,
            "fee": self.fee,
            "threads": tool.threads,
            "repeats": tool.repeats,
            "out": str(out),
        }
        job.write_text(json.dumps(given))
        command = [str(python), str(PROGRAMS / f"{tool.name}_program.py"), str(job)]
        try:
            ended = subprocess.run(
                command,
                env=os.environ | ONE_THREAD,
                capture_output=True,
                text=True,
                check=False,
                timeout=PROGRAM_SECONDS_MAX,
            )
        except subprocess.TimeoutExpired:
            raise PeerAbsentError(f"no answer within {PROGRAM_SECONDS_MAX} s") from None
        if ended.returncode or not out.is_file():
            said = ended.stderr.strip().splitlines()
            raise PeerAbsentError(f"its program ended with {ended.returncode}: {said[-1] if said else ''}"[:300])
        figures: dict[str, Any] = json.loads(out.read_text())
        return figures


def write_market(columns: dict[str, Any], path: Path) -> Path:
    """Write candles as every tool's program reads them."""
    np.savez(path, **columns)
    return path


def compare(bench: Bench, tools: Sequence[Tool]) -> list[Measured]:
    """Run the tools one after the other, printing a line each."""
    print(
        f"{'work':4} {'tool':32} {'seconds':>9} {'M steps/s':>10} {'orders':>9} {'equity':>19} {'MB':>6} {'import s':>9}"
    )
    found = []
    for tool in tools:
        row = bench.run(tool)
        found.append(row)
        print(_line(row), flush=True)
    return found


def _line(row: Measured) -> str:
    label = " ".join(part for part in (row.tool.name, row.version, row.tool.engine) if part)
    if row.tool.threads > 1:
        label += f" ({row.tool.threads} threads)"
    if row.why_absent:
        return f"{row.tool.work:4} {label:32} absent: {row.why_absent}"
    share = f"  (from {row.tool.sets_share:.0%} of the sets)" if row.tool.sets_share < 1 else ""
    return (
        f"{row.tool.work:4} {label:32} {row.seconds:9.4f} {row.candle_steps_per_second / 1e6:10.2f} {row.orders:9,} "
        f"{row.equity:19,.6f} {row.rss_mb:6.0f} {row.import_seconds:9.1f}{share}"
    )


def ratios(rows: Sequence[Measured]) -> dict[str, float]:
    """Return how many times as fast as each peer's best engine this platform was, by work and peer."""
    best: dict[tuple[str, str], float] = {}
    for row in rows:
        if not row.why_absent:
            key = (row.tool.work, row.tool.name)
            best[key] = min(best.get(key, row.seconds), row.seconds)
    return {
        f"{work} vs {name}": round(seconds / best[work, OURS], 2)
        for (work, name), seconds in sorted(best.items())
        if name != OURS and (work, OURS) in best
    }


def as_row(row: Measured) -> dict[str, Any]:
    """Return a row as JSON takes it."""
    return asdict(row)

"""Fifty symbols with seven strategies each at fifty candles a second: does memory stay, do bounds hold, who lags.

Run as `python -m benchmarks.scale --minutes 5 --json out.json`; exits 1 when a figure misses its goal.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import msgspec

from shared.testing.scale_run import ScaleOptions, ScaleReport, as_lines, run_scale

RSS_GROWTH_MAX = 0.05
LAG_P99_SECONDS_MAX = 2.0


def misses(report: ScaleReport) -> list[str]:
    """Return what the run missed; empty when every goal was reached."""
    found = [f"{name} held {held}, at most {report.bounds[name]} allowed" for name, held in report.over_bounds.items()]
    if report.rss_growth > RSS_GROWTH_MAX:
        found.append(f"memory grew by {report.rss_growth:.1%}, at most {RSS_GROWTH_MAX:.0%} allowed")
    for name, lag in report.lag_seconds.items():
        if not lag["count"] or lag["p99"] > LAG_P99_SECONDS_MAX:
            found.append(f"{name} lag p99 {lag['p99']:.2f} s, at most {LAG_P99_SECONDS_MAX:g} s allowed")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run, print the figures and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="measured after the history (default 5)")
    parser.add_argument("--symbols", type=int, default=50, help="default 50")
    parser.add_argument("--history", type=int, default=120, help="candles of history for each symbol (default 120)")
    parser.add_argument("--json", type=Path, help="write the figures")
    chosen = parser.parse_args(arguments)
    options = ScaleOptions(symbols=chosen.symbols, seconds=60 * chosen.minutes, history_candles=chosen.history)
    with tempfile.TemporaryDirectory(prefix="trading-scale-") as folder:
        report = run_scale(Path(folder), options)
    for line in as_lines(report):
        print(line)
    missed = misses(report)
    for line in missed:
        print(f"MISSED: {line}")
    if chosen.json is not None:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

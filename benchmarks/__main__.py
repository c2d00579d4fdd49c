"""`python -m benchmarks [group ...] [--json FILE] [--quick] [--profile]`: measure, print, say what was reached."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import backtests
from benchmarks.market import one_minute_market
from benchmarks.profiles import profile_replay
from benchmarks.rates import SILENT, TRADING, one_silent_strategy, order_latency, seven_strategies


def help_seconds() -> dict[str, Any]:
    """Time `trading --help` in a fresh process, best of five."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([TRADING, "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return {"what": "trading --help", "seconds": round(min(times), 3), "goal": "0.3 s", "reached": min(times) <= 0.3}


def platform_figures(folder: Path, *, quick: bool, profile: bool) -> list[dict[str, Any]]:
    """Measure the embedded platform and print a line each."""
    share = 10 if quick else 1
    market = one_minute_market(folder, 40_000 // share)
    print(f"{market.rows} candles: {market.name}")
    run_warm = one_minute_market(folder, 1_000)
    seven_strategies(folder, run_warm)  # compiles the steps, once per machine
    subprocess.run(["rm", "-rf", str(folder / "seven")], check=True)
    market = one_minute_market(folder, 40_000 // share)
    results = [
        help_seconds(),
        seven_strategies(folder, market),
        one_silent_strategy(folder, market),
        order_latency(folder, market, max(10, 60 // share)),
    ]
    for result in results:
        print(json.dumps(result))
    if profile:
        small = one_minute_market(folder, 8_000)
        print(profile_replay(folder, small, "seven strategies"))
        print(profile_replay(folder, small, "one silent strategy", str(SILENT)))
    return results


GROUPS = ("platform", "compiled", "peers", "agreement", "command", "sizes")


def main() -> None:
    """Measure the chosen groups and print a line each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="group", help=f"of {', '.join(GROUPS)} (default: all)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--quick", action="store_true", help="a tenth of the candles")
    parser.add_argument("--profile", action="store_true", help="also show what bounds the platform's rates")
    arguments = parser.parse_args()
    unknown = set(arguments.groups) - set(GROUPS)
    if unknown:
        parser.error(f"unknown group {', '.join(sorted(unknown))}; known: {', '.join(GROUPS)}")
    results: list[dict[str, Any]] = []
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="trading-bench-") as name:
        folder, quick = Path(name), arguments.quick
        measure: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "platform": lambda: platform_figures(folder, quick=quick, profile=arguments.profile),
            "compiled": lambda: backtests.compiled(folder),
            "peers": lambda: backtests.peers(folder, quick=quick),
            "agreement": lambda: backtests.agreement(folder),
            "command": lambda: backtests.command(folder),
            "sizes": lambda: backtests.sizes(folder, quick=quick),
        }
        for group in arguments.groups or GROUPS:
            print(f"--- {group}", flush=True)
            results += measure[group]()
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    sys.exit(main())

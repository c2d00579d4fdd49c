"""What backtests reach: beside other tools, in agreement with them, as a whole command, and as data grows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.peer_market import CANDLES_A_YEAR, peer_market, write_parquet
from benchmarks.peers.comparison import OURS, Bench, Measured, Tool, as_row, compare, ratios, write_market
from benchmarks.rates import TRADING

CHECKOUT = Path(__file__).resolve().parents[1]
ORDERS, EQUITY = 24_391, 985_535.398066
REAL_FILES = ("binance-BTCUSDT-1h", "binance-ETHUSDT-15m", "binance-XRPUSDT-5m")
RULES = {
    "ema_crossover": {"short_period": 9, "long_period": 21},
    "macd": {"fast_period": 12, "slow_period": 26, "signal_period": 9},
}
# what `trading backtest` cannot do without, and nothing else: the floor under the whole command
FLOOR = "import click, pydantic, polars, numba, numpy as np; numba.njit(lambda x: x + 1)(1.0)"


def peers(folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Run W1, W2 and W3 in every tool on the same market and print the ratios."""
    rows = CANDLES_A_YEAR // (10 if quick else 1)
    bench = Bench(folder, write_market(peer_market(rows), folder / "market.npz"), rows)
    share = 0.05 if quick else 1.0
    threads = min(2, os.cpu_count() or 1)
    tools = [
        Tool(OURS, "W1", engine="compiled", repeats=50),
        Tool(OURS, "W1", engine="exact", repeats=20),
        Tool("vectorbt", "W1", engine="numba", repeats=5),
        Tool("vectorbt", "W1", engine="rust", repeats=5),
        Tool("backtesting", "W1", repeats=1),
        Tool(OURS, "W2", threads=threads, repeats=5),
        Tool("vectorbt", "W2", engine="numba", repeats=1, sets_share=share),
        Tool("vectorbt", "W2", engine="rust", repeats=1, sets_share=share),
        Tool("backtesting", "W2", repeats=0, sets_share=0.01),
        Tool(OURS, "W3", repeats=3),
        Tool("backtesting", "W3", repeats=1),
        Tool("backtrader", "W3", repeats=0),
    ]
    found = compare(bench, tools)
    times = ratios(found)
    for name, ratio in times.items():
        print(f"  {name}: {ratio:g} times as fast")
    checked = [row for row in found if not row.why_absent and row.tool.work in ("W1", "W3") and not quick]
    agreed = all(row.orders == ORDERS and abs(row.equity - EQUITY) < 1e-5 for row in checked)
    if not quick:
        print(f"  orders {ORDERS:,} and equity {EQUITY:,} in every tool: {'yes' if agreed else 'NO'}")
    return [
        {"what": "peers", "rows": [as_row(row) for row in found], "ratios": times, "agreed": agreed},
        *_goals(found),
    ]


def _goals(found: list[Measured]) -> list[dict[str, Any]]:
    ours: dict[str, Measured] = {}
    for row in found:
        if row.tool.name == OURS and not row.why_absent:
            ours.setdefault(row.tool.work, row)
    goals = []
    if "W1" in ours:
        rate = ours["W1"].candle_steps_per_second
        goals.append({"what": "W1 candles/s", "value": round(rate), "goal": "100 M", "reached": rate >= 100e6})
    if "W2" in ours:
        row = ours["W2"]
        reached = row.seconds <= 0.7 and row.rss_mb < 400
        goals.append(
            {"what": "W2", "seconds": row.seconds, "rss_mb": row.rss_mb, "goal": "0.7 s, 400 MB", "reached": reached}
        )
    if "W3" in ours:
        rate = ours["W3"].candle_steps_per_second
        goals.append({"what": "W3 candles/s", "value": round(rate), "goal": "300 k", "reached": rate >= 300e3})
    for goal in goals:
        print(json.dumps(goal))
    return goals


def agreement(folder: Path) -> list[dict[str, Any]]:
    """Compare orders and final equity on recorded candles with other tools under the same rules."""
    root = Path(os.environ.get("TRADING_REFERENCE", CHECKOUT.parent / "shared")) / "data/candles"
    results: list[dict[str, Any]] = []
    for name in REAL_FILES:
        path = root / f"{name}.parquet"
        if not path.is_file():
            results.append({"what": "agreement", "file": name, "absent": "no recorded candles at hand"})
            print(json.dumps(results[-1]))
            continue
        market = write_market(_columns(path), folder / "real.npz")
        for strategy, params in RULES.items():
            bench = Bench(folder, market, 1, strategy, tuple(params.items()))
            tools = (Tool(OURS, "W1"), Tool("vectorbt", "W1", engine="rust"), Tool("backtesting", "W1"))
            found = [bench.run(Tool(tool.name, tool.work, tool.engine, repeats=0)) for tool in tools]
            figures = {row.tool.name: row.why_absent or {"orders": row.orders, "equity": row.equity} for row in found}
            present = [row for row in found if not row.why_absent]
            equal = (
                len(present) > 1
                and present[0].tool.name == OURS
                and all(
                    row.orders == present[0].orders and abs(row.equity - present[0].equity) <= 1e-9 * bench.balance
                    for row in present
                )
            )
            results.append({"what": "agreement", "file": name, "strategy": strategy, "equal": equal, **figures})
            print(json.dumps(results[-1]))
    return results


def _columns(path: Path) -> dict[str, Any]:
    frame = pl.read_parquet(path)
    times = frame["open_time"].dt.epoch("ms").to_numpy()
    names = ("open", "high", "low", "close", "volume")
    return {"open_time": times} | {name: frame[name].cast(pl.Float64).to_numpy() for name in names}


def _child(command: list[str]) -> tuple[float, float, float]:
    """Run a program; return wall seconds, its peak memory in MB and the processor's seconds."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    assert status == 0, process.stderr.read().decode() if process.stderr else ""
    return seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def compiled(folder: Path) -> list[dict[str, Any]]:
    """Measure every strategy that ships on the compiled engine, plain and with everything on, in a fresh process."""
    out = folder / "compiled.json"
    subprocess.run([sys.executable, "-m", "benchmarks.compiled", "--json", str(out)], check=True, cwd=CHECKOUT)
    results: list[dict[str, Any]] = json.loads(out.read_text())
    return results


def command(folder: Path, *, repeats: int = 3) -> list[dict[str, Any]]:
    """Time the whole `trading backtest` on a year of one-minute candles, and its libraries' floor beside it."""
    path = write_parquet(peer_market(), folder / "year.parquet")
    words = [str(TRADING), "backtest", "--strategy", "ema_crossover", "--data", str(path), "--symbol", "BTC/USDT"]
    words += ["--state", str(folder / "state"), "--initial-balance", "1000000"]
    _child(words)  # compiles, once per machine
    runs = [_child(words) for _ in range(repeats)]
    floors = [_child([sys.executable, "-c", FLOOR]) for _ in range(repeats)]
    seconds, memory = min(run[0] for run in runs), max(run[1] for run in runs)
    result = {
        "what": "trading backtest, a year of 1m Parquet, fresh process, warm cache",
        "seconds": round(seconds, 2),
        "floor_seconds": round(min(floor[0] for floor in floors), 2),
        "processor_seconds": round(min(run[2] for run in runs), 2),
        "floor_processor_seconds": round(min(floor[2] for floor in floors), 2),
        "rss_mb": round(memory),
        "goal": "4 s, 400 MB",
        "reached": seconds <= 4 and memory < 400,
    }
    print(json.dumps(result))
    return [result]


def sizes(folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Run W1 on one and ten million candles: time and memory must grow as the candles do."""
    results = []
    for rows in (100_000, 1_000_000) if quick else (1_000_000, 10_000_000):
        bench = Bench(folder, write_market(peer_market(rows), folder / "many.npz"), rows)
        row = bench.run(Tool(OURS, "W1", engine="exact", repeats=5))
        grown = row.rss_mb - row.details.get("rss_mb_before", 0.0)
        results.append(
            {
                "what": f"W1 on {rows:,} candles",
                "ns_per_candle": round(row.seconds / rows * 1e9, 2),
                "rss_mb": round(row.rss_mb),
                "bytes_per_candle_beside_data": round(grown * 2**20 / rows, 1),
                "why_absent": row.why_absent,
            }
        )
        print(json.dumps(results[-1]))
    return results

"""Candles a second through the compiled engine, each strategy plain and with everything on: `python -m benchmarks.compiled`.

One thread. `million_candles_per_second` is the loop: every trade and the equity at each candle written, in floats.
`whole_run_million_candles_per_second` is what a user's run takes: the same, room for its results, and the money of every
fill (prices, fees, cash) made exact to 18 decimals; equity stays a float a candle. A figure is the best of many runs in
processor time of the thread, which other work on the machine inflates less than time on the wall.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from backtester.compiled.encoding import opening_account
from backtester.compiled.layout import ENTRY, trade_lines
from backtester.compiled.run import CompiledRun, candle_arrays
from backtester.options import BacktestOptions
from benchmarks.peer_market import CANDLES_A_YEAR, peer_market
from shared.candle_files import CandleFile
from shared.domain.rounding import plus, times
from shared.models import to_decimal
from shared.plugins import discover

BALANCE = Decimal(1_000_000)
PLAIN = BacktestOptions(slippage_bps=Decimal(0), gap="fill", max_entries=0)
FULL = BacktestOptions(
    sizing="equity_fraction:0.5",  # type: ignore[arg-type]  # read as a person writes it
    stop_loss_pct=Decimal(1),
    take_profit_pct=Decimal(2),
    trailing_pct=Decimal("1.5"),
)
PARAMS: dict[str, dict[str, Any]] = {
    "bollinger": {"min_bandwidth": 0.0},
    "grid": {"lower_price": 40_000.0, "upper_price": 60_000.0, "grid_count": 200},
}
GOALS_MILLIONS = {"bollinger": 40.0, "volume_profile": 6.0}
GOAL_PLAIN_MILLIONS, GOAL_FULL_MILLIONS = 100.0, 50.0
SECONDS_MAX = 2.0
RUNS_MIN = 3


def market_file(rows: int = CANDLES_A_YEAR) -> CandleFile:
    """Return the market on which tools are compared, as a loaded candle file."""
    market = peer_market(rows)
    columns = {name: market[name] for name in ("open", "high", "low", "close", "volume")}
    stream = {"path": Path("walk"), "symbol": "BTC/USDT", "timeframe": "1m", "sha256": ""}
    return CandleFile(**stream, open_time_ms=market["open_time"], **columns)


def best_seconds(work: Callable[[], None]) -> float:
    """Return the least processor time of several runs of `work`."""
    times_taken: list[float] = []
    while len(times_taken) < RUNS_MIN or sum(times_taken) < SECONDS_MAX:
        started = time.thread_time()
        work()
        times_taken.append(time.thread_time() - started)
    return min(times_taken)


def measure(name: str, options: BacktestOptions, data: CandleFile) -> dict[str, Any]:
    """Return the figures of one strategy: the loop alone, and the whole engine with its money made exact."""
    strategy = discover().get(name).create(data.symbol, PARAMS.get(name, {}))
    run = CompiledRun(strategy, BALANCE, options)
    run.prepare(data)
    candles, rules, lines = candle_arrays(data), run.rules(data, 0), trade_lines(2 * data.rows + 1)
    entries, equity = np.empty(data.rows + 1, ENTRY), np.zeros(data.rows)
    loop = run.loop(rules)

    def loop_once() -> None:
        states, values = strategy.records
        desk = (rules, *opening_account(BALANCE), entries, lines)
        loop(states, values, candles, desk, equity, 0, data.rows)

    seconds = best_seconds(loop_once)
    engine_seconds = best_seconds(lambda: [run.play(data)].clear())
    outcome = run.play(data)
    is_plain = options is PLAIN
    goal = GOALS_MILLIONS.get(name, GOAL_PLAIN_MILLIONS) if is_plain else GOAL_FULL_MILLIONS
    return {
        "what": f"{name}, {'plain' if is_plain else 'stops, equity sizing and slippage'}",
        "million_candles_per_second": round(data.rows / seconds / 1e6, 1),
        "whole_run_million_candles_per_second": round(data.rows / engine_seconds / 1e6, 1),
        "orders": len(outcome.trades),
        "final_balance": str(plus(outcome.cash, times(outcome.held, to_decimal(float(data.close[-1]))))),
        "goal": min(goal, GOALS_MILLIONS.get(name, goal)),
        "reached": data.rows / seconds / 1e6 >= min(goal, GOALS_MILLIONS.get(name, goal)),
    }


def linear_row(millions: int) -> dict[str, Any]:
    """Return the seconds of so many million candles through the engine."""
    data = market_file(millions * 1_000_000)
    run = CompiledRun(discover().get("ema_crossover").create(data.symbol, {}), BALANCE, PLAIN)
    run.prepare(data)
    seconds = best_seconds(lambda: [run.play(data)].clear())
    return {"what": f"ema_crossover, {millions} M candles", "seconds": round(seconds, 4)}


def measure_all(rows: int = CANDLES_A_YEAR) -> list[dict[str, Any]]:
    """Return the figures of every strategy, plain and full, over `rows` candles."""
    data = market_file(rows)
    names = ("ema_crossover", "rsi", "macd", "vwap", "grid", "bollinger", "volume_profile")
    return [measure(name, options, data) for name in names for options in (PLAIN, FULL)]


def main() -> None:
    """Print a line for each figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiled", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--linear", action="store_true", help="also 1 and 10 million candles")
    arguments = parser.parse_args()
    results = measure_all()
    if arguments.linear:
        results += [linear_row(millions) for millions in (1, 10)]
    for result in results:
        print(json.dumps(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    sys.exit(main())

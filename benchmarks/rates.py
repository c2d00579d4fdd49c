"""Candles a second through the whole embedded platform, and how long an order takes after its candle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.market import Market

TRADING = Path(sys.executable).with_name("trading")
SILENT = Path(__file__).parent / "strategies"


def run_up(folder: Path, name: str, market: Market, *options: str) -> dict[str, Any]:
    """Run `trading up` on a fresh state and return its figures."""
    report = folder / f"{name}.json"
    command = [TRADING, "up", "--feed", "replay", "--data", f"BTC/USDT:1m={market.path}", "--balance", "100000"]
    command += ["--state", folder / name, "--health-port", "0", "--json", report, *options]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    figures: dict[str, Any] = json.loads(report.read_text())
    return figures


def seven_strategies(folder: Path, market: Market) -> dict[str, Any]:
    """Replay at max speed with every strategy that ships."""
    figures = run_up(folder, "seven", market, "--speed", "max")
    return {
        "what": "seven strategies, one symbol, embedded, replay at max",
        "candles_per_second": figures["candles_per_second"],
        "orders_per_second": figures["orders_per_second"],
        "signals_per_candle": round(figures["signals"] / figures["candles"], 3),
        "goal": "1,000 candles/s",
        "reached": figures["candles_per_second"] >= 1000,
    }


def one_silent_strategy(folder: Path, market: Market) -> dict[str, Any]:
    """Replay at max speed with a strategy that never speaks."""
    figures = run_up(folder, "silent", market, "--speed", "max", "--strategies-dir", str(SILENT))
    return {
        "what": "one silent strategy, one symbol, embedded, replay at max",
        "candles_per_second": figures["candles_per_second"],
        "goal": "10,000 candles/s",
        "reached": figures["candles_per_second"] >= 10_000,
    }


def order_latency(folder: Path, market: Market, seconds: int) -> dict[str, Any]:
    """Replay 50 candles a second; from a candle's commit and announcement to its order row's commit."""
    figures = run_up(folder, "latency", market, "--speed", "3000", "--duration", str(seconds))
    p50, p99 = figures["latency_ms"]["p50"], figures["latency_ms"]["p99"]
    return {
        "what": "order row committed after its candle is published, 50 candles/s",
        "p50_ms": p50,
        "p99_ms": p99,
        "orders": figures["orders"],
        "goal": "p50 <= 15 ms, p99 <= 50 ms",
        "reached": p50 is not None and p50 <= 15 and p99 <= 50,
    }

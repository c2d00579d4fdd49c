"""`python -m benchmarks.market_day [--hours H] [--speed N] [--json FILE]`: a day of ten symbols, faults on.

The local exchange plays a simulated market at speed while everything that can go wrong with a venue goes wrong. The
four services run as processes on PostgreSQL and Redis. At the end what is stored is compared, row by row, with what the
exchange has recorded, every fill is folded again, and the growth of each process is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import redis
from numpy.typing import NDArray

from benchmarks.market_exchange import MINUTE_MS, LocalExchange, MarketOptions, local_exchange
from paper_exchange.market.sources import SIMULATION_START
from shared.broker_port import PAYLOAD_FIELD
from shared.clock import SystemClock
from shared.events import Event, candle_stream
from shared.models import Candle, from_milliseconds, to_milliseconds
from shared.testing.process_runs import PROCESSES, ProcessRun
from shared.testing.servers import postgres_run, redis_program, redis_run

SYMBOLS = tuple(f"{base}/USDT" for base in ("BTC", "ETH", "BNB", "SOL", "XRP", "ADA", "DOGE", "LTC", "LINK", "DOT"))
HISTORY = 700  # candles before the day, for whoever begins with a past
SAMPLE_SECONDS = 2.0
SETTLE_SECONDS_MAX = 45.0
DAY_HOURS = 24.0
HOURS_MAX = 72.0  # the bus keeps as much, to be compared with
LISTED_MAX = 20

FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "drop", "candle": 31, "every": 173},
    {"kind": "drop", "name": "drop after the frame", "candle": 97, "every": 401, "delivered": True, "code": 1001},
    {"kind": "silence", "candle": 200, "candles": 40, "every": 500, "streams": "btcusdt@*"},
    {"kind": "silence", "name": "lost closes", "frames": "closed", "chance": 0.01},
    {"kind": "duplicate", "chance": 0.05, "copies": 2},
    {"kind": "reorder", "chance": 0.03, "by": 3},
    {"kind": "malformed", "chance": 0.01},
    {"kind": "malformed", "name": "noise", "chance": 0.002, "frames": "all", "instead": False},
    {"kind": "early_close", "chance": 0.01},
    {"kind": "shutdown", "candle": 700, "times": 2},
    {"kind": "error", "chance": 0.05},
    {"kind": "slow", "chance": 0.05, "delay_seconds": 0.5},
    {"kind": "rate_limit", "chance": 0.03, "retry_after": 1, "times": 6},
    {"kind": "ban", "skip": 60, "times": 1, "retry_after": 2},
    {"kind": "html", "chance": 0.03, "times": 10},
    {"kind": "cut_answer", "chance": 0.05, "times": 20},
    {"kind": "late_candle", "chance": 0.2, "rows": 2},
    {"kind": "refuse", "after_seconds": 20.0, "seconds": 2.0},
)
WRONG = ("lost", "foreign", "different", "doubled", "holes_not_stated")
HOLES = """
SELECT coalesce(sum(candles_missing), 0) FROM candle_gaps
WHERE symbol = $1 AND timeframe = '1m' AND confirmed AND start_time >= $2 AND end_time <= $3
"""
STORED = """
SELECT (extract(epoch FROM open_time) * 1000)::bigint, open, high, low, close, volume FROM candles
WHERE symbol = $1 AND timeframe = '1m' AND open_time >= $2 AND open_time < $3 ORDER BY open_time
"""


@dataclass
class MemorySamples:
    """Resident memory of processes, beside how many candles had closed by then."""

    points: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def take(self, pids: Mapping[str, int], candles: int) -> None:
        """Note what every process holds now."""
        for name, pid in pids.items():
            self.points[f"{name} ({pid})"].append((candles / 1000, resident_mib(pid)))

    def slopes(self) -> list[dict[str, Any]]:
        """Return what each process held at each quarter of the day, and its growth, in MiB per 1,000 candles.

        The first half is left out of the slope: what is loaded once is not growth.
        """
        found = []
        for name, points in self.points.items():
            half, quarter = (np.array(points[len(points) * part // 4 :]) for part in (2, 3))
            if len(quarter) < 3 or quarter[0, 0] == quarter[-1, 0]:
                continue
            row: dict[str, Any] = {"process": name, "samples": len(points)}
            row["mib_at_quarters"] = [
                round(points[min(len(points) * part // 4, len(points) - 1)][1], 1) for part in range(5)
            ]
            row["mib_per_1000_candles"] = slope_of(half)
            row["mib_per_1000_candles_last_quarter"] = slope_of(quarter)
            found.append(row)
        return found


def slope_of(points: NDArray[np.float64]) -> float:
    """Return the slope of a straight line through points."""
    return round(float(np.polyfit(points[:, 0], points[:, 1], 1)[0]), 3)


@dataclass(frozen=True)
class Day:
    """What runs, and which minutes of the market count."""

    run: ProcessRun
    exchange: LocalExchange
    hours: float

    def span_ms(self) -> tuple[int, int]:
        """Return the open time of the first minute and the close time of the last one."""
        first_ms = to_milliseconds(SIMULATION_START) + int(self.exchange.status()["shift_ms"])
        return first_ms, first_ms + round(self.hours * 60) * MINUTE_MS

    def pids(self) -> dict[str, int]:
        """Return every process of the platform, and the exchange's."""
        return {name: process.pid for name, process in self.run.running.items()} | {
            "paper-exchange": self.exchange.process.pid
        }


def resident_mib(pid: int) -> float:
    """Return what a process holds in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def services(folder: Path, urls: tuple[str, str], exchange: LocalExchange) -> ProcessRun:
    """Return the four services on this exchange, not started."""
    settings = {
        "feed": "binance",
        "binance_rest_url": exchange.rest,
        "binance_stream_url": exchange.stream,
        "symbols": ",".join(SYMBOLS),
        "history_candles": str(HISTORY),
        "feed_silence_seconds_max": "2",
        "retry_delay_max": "1",
        "circuit_breaker_timeout": "2",
        "lease_seconds": "5",
        "paper_balance": "100000",
    }
    return ProcessRun(folder, *urls, settings)


async def compared(day: Day) -> dict[str, Any]:
    """Compare what is stored and what was told on the bus with the exchange's recording of the same minutes.

    The minutes count from the first one that is stored of any symbol: the market goes on while the collector connects.
    """
    span_ms = await asyncio.to_thread(day.span_ms)
    connection = await asyncpg.connect(day.run.database_url)
    figures: dict[str, Any] = dict.fromkeys(("recorded", "holes_of_the_market", *WRONG, "told_again", "not_told"), 0)
    lost_minutes: set[int] = set()
    try:
        first = await connection.fetchval("SELECT min(open_time) FROM candles")
        begin_ms = max(span_ms[0], to_milliseconds(first)) if first else span_ms[0]
        figures["began_at_minute"] = (begin_ms - span_ms[0]) // MINUTE_MS
        span_ms = (begin_ms, span_ms[1])
        for symbol in SYMBOLS:
            recorded = await asyncio.to_thread(day.exchange.candles, symbol, *span_ms)
            rows = await connection.fetch(STORED, symbol, *(from_milliseconds(each) for each in span_ms))
            times = [each for each in told_times(day.run.redis_url, symbol) if span_ms[0] <= each < span_ms[1]]
            truth, found = {row[0]: row for row in recorded}, {row[0]: tuple(row) for row in rows}
            figures["recorded"] += len(truth)
            holes = (span_ms[1] - span_ms[0]) // MINUTE_MS - len(truth)
            figures["holes_of_the_market"] += holes
            bounds = [from_milliseconds(each) for each in span_ms]
            figures["holes_not_stated"] += abs(holes - int(await connection.fetchval(HOLES, symbol, *bounds)))
            figures["lost"] += len(truth.keys() - found.keys())
            lost_minutes |= {(each - span_ms[0]) // MINUTE_MS for each in truth.keys() - found.keys()}
            figures["foreign"] += len(found.keys() - truth.keys())
            figures["different"] += sum(found[each] != truth[each] for each in truth.keys() & found.keys())
            figures["doubled"] += len(rows) - len(found)
            figures["told_again"] += len(times) - len(set(times))
            figures["not_told"] += len(truth.keys() - set(times))
        handled = await connection.fetchval("SELECT value FROM cursors WHERE name = 'portfolio/watermark'")
    finally:
        await connection.close()
    figures["lost_minutes"] = sorted(lost_minutes)[:LISTED_MAX]
    return figures | {"minutes_unhandled": max(0, span_ms[1] - int(handled or 0)) // MINUTE_MS}


def told_times(redis_url: str, symbol: str) -> list[int]:
    """Return the open times of a symbol's candles as they were told on the bus, in its order."""
    with redis.Redis.from_url(redis_url) as client:
        entries: Any = client.xrange(candle_stream(symbol, "1m"))
    told = [Event.decode(fields[PAYLOAD_FIELD]).data for _, fields in entries]
    return [to_milliseconds(each.open_time) for each in told if isinstance(each, Candle)]


def day_of_market(folder: Path, hours: float, speed: float) -> dict[str, Any]:
    """Play the day and return what became of it."""
    market = MarketOptions(SYMBOLS, speed, HISTORY + 60, max(hours, DAY_HOURS), FAULTS)
    with (
        postgres_run(durable=True) as postgres,
        redis_run(redis_program(), durable=True) as bus,
        local_exchange(folder, market) as exchange,
        services(folder / "services", (postgres.url, bus.url), exchange) as run,
    ):
        migrated = run.trading("db", "upgrade", "--database-url", postgres.url)
        assert migrated.returncode == 0, migrated.stderr.decode()[-2000:]
        run.start(*PROCESSES)
        day = Day(run, exchange, hours)
        samples = asyncio.run(played(day))
        report = exchange.status()["faults"]
        exchange.set_faults([])
        figures = asyncio.run(settled(day))
        while_running = run.trading("verify", "--database-url", postgres.url)
        codes = run.stop(*PROCESSES)
        verified = run.trading("verify", "--database-url", postgres.url)
    return {
        "market": {"symbols": len(SYMBOLS), "hours": hours, "speed": speed},
        "candles": figures,
        "verify": {
            "exit_code": verified.returncode,
            "exit_code_while_running": while_running.returncode,
            "said": verified.stdout.decode().strip().splitlines()[:12],
        },
        "exit_codes": codes,
        "faults_fired": {each["name"]: each["fired"] for each in report},
        "memory": samples.slopes(),
    }


async def played(day: Day) -> MemorySamples:
    """Wait until the last minute of the day has closed, taking samples of memory."""
    samples, clock = MemorySamples(), SystemClock()
    while True:
        for name, process in day.run.running.items():
            assert process.poll() is None, f"{name} ended by itself: {day.run.said(name)[-3000:]}"
        status = await asyncio.to_thread(day.exchange.status)
        if status["market_ms"] is not None:
            samples.take(day.pids(), sum(status["candles_closed"].values()))
            if status["market_ms"] >= day.span_ms()[1]:
                return samples
        await clock.sleep(SAMPLE_SECONDS)


async def settled(day: Day) -> dict[str, Any]:
    """Return the comparison as soon as the last service has handled the day and nothing is missing, or after a while."""
    clock = SystemClock()
    deadline = clock.monotonic() + SETTLE_SECONDS_MAX
    while True:
        figures = await compared(day)
        is_even = not any(figures[name] for name in WRONG)
        if (is_even and figures["minutes_unhandled"] == 0) or clock.monotonic() > deadline:
            return figures
        await clock.sleep(SAMPLE_SECONDS)


def main() -> int:
    """Play a day, print what came of it, and end with 1 when a candle is missing, doubled or wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.market_day", description=__doc__)
    parser.add_argument("--hours", type=float, default=DAY_HOURS, help=f"of market, at most {HOURS_MAX:g}")
    parser.add_argument("--speed", type=float, default=600.0, help="of candles: 600 plays ten minutes in a second")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trading-bench-") as name:
        found = day_of_market(Path(name), min(arguments.hours, HOURS_MAX), arguments.speed)
    for part, value in found.items():
        print(part, json.dumps(value, indent=2 if part == "memory" else None))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2))
    is_whole = not any(found["candles"][name] for name in WRONG) and found["verify"]["exit_code"] == 0
    print("the day is whole" if is_whole else "THE DAY IS NOT WHOLE")
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())

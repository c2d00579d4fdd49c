"""`python -m benchmarks.processes [--json FILE] [--quick]`: four processes on PostgreSQL and Redis, and bulk writes.

Times are PostgreSQL's own: it notes when each transaction was committed, so nothing is added to what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.market import Market, one_minute_market
from shared.db import Database
from shared.models import Candle
from shared.testing.process_runs import PROCESSES, ProcessRun, all_handled
from shared.testing.servers import ServerRun, postgres_run, redis_program, redis_run

CONSUMERS = PROCESSES[1:]
SAFE = {"fsync": "on", "full_page_writes": "on", "track_commit_timestamp": "on", "shared_buffers": "256MB"}
START = datetime(2024, 1, 1, tzinfo=UTC)
BATCH = 5_000

LATENCY = """
SELECT extract(epoch FROM pg_xact_commit_timestamp(d.xmin) - pg_xact_commit_timestamp(c.xmin)) * 1000
FROM decisions d JOIN signals s ON s.id = d.signal_id
JOIN candles c ON c.symbol = s.symbol AND c.timeframe = s.timeframe AND c.open_time = s.candle_open_time
WHERE d.outcome = 'ordered' ORDER BY 1
"""
DURATION = """
SELECT extract(epoch FROM max(pg_xact_commit_timestamp(p.xmin)) - min(pg_xact_commit_timestamp(c.xmin)))
FROM candles c CROSS JOIN (SELECT xmin FROM cursors WHERE name = 'portfolio/watermark') p
"""


@contextmanager
def processes(folder: Path, market: Market, **settings: str) -> Iterator[tuple[ProcessRun, ServerRun]]:
    """Give four running processes: the three that read have taken their leases before the first candle comes."""
    with postgres_run(durable=True, settings=SAFE) as postgres, redis_run(redis_program()) as bus:
        asyncio.run(_migrated(postgres.url))
        common = {
            "feed": "replay",
            "data": f"BTC/USDT:1m={market.path}",
            "paper_balance": "100000",
            "lease_seconds": "5",
        }
        with ProcessRun(folder, postgres.url, bus.url, common | settings) as run:
            run.start(*CONSUMERS)
            while len(asyncio.run(_fetch(postgres.url, "SELECT name FROM lease WHERE epoch > 0"))) < len(CONSUMERS):
                time.sleep(0.05)
            run.start("data-collector")
            yield run, postgres


def seven_strategies(folder: Path, market: Market) -> dict[str, Any]:
    """Replay at max speed with every strategy that ships, from the first candle's commit to the last one handled."""
    with processes(folder / "seven", market, speed="max") as (run, postgres):
        run.until(all_handled)
        seconds = float(asyncio.run(_fetch(postgres.url, DURATION))[0])
        orders = asyncio.run(_fetch(postgres.url, "SELECT count(*) FROM orders"))[0]
    rate = market.rows / seconds
    return {
        "what": "seven strategies, one symbol, four processes on PostgreSQL (fsync on) and Redis, replay at max",
        "candles_per_second": round(rate),
        "candles": market.rows,
        "orders": int(orders),
        "goal": "400 candles/s",
        "reached": rate >= 400,
    }


def order_latency(folder: Path, market: Market, seconds: int) -> dict[str, Any]:
    """Replay 50 candles a second; from the commit of a candle to the commit of the order that it caused."""
    with processes(folder / "latency", market, speed="3000", duration=str(seconds)) as (run, postgres):
        run.wait("data-collector")
        found = [float(value) for value in asyncio.run(_fetch(postgres.url, LATENCY))]
    p50, p99 = (found[min(len(found) - 1, int(len(found) * share))] for share in (0.50, 0.99))
    return {
        "what": "order row committed after its candle is committed, 50 candles/s, across processes",
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
        "orders": len(found),
        "goal": "p50 <= 15 ms, p99 <= 50 ms",
        "reached": p50 <= 15 and p99 <= 50,
    }


def bulk_upserts(rows: int) -> list[dict[str, Any]]:
    """Store candles in batches: new ones, then the same again; beside it COPY into a temporary table."""
    with postgres_run(durable=True, settings=SAFE) as postgres:
        found = asyncio.run(_upsert_rates(postgres.url, rows))
    what = f"into PostgreSQL (fsync on), {BATCH} to a transaction"
    goal = {"goal": "40,000 candles/s"}
    return [
        {"what": f"{name} {what}", "candles_per_second": round(rate), **goal, "reached": rate >= 40_000}
        for name, rate in found.items()
    ]


async def _upsert_rates(url: str, rows: int) -> dict[str, float]:
    database = Database(url)
    await database.init_tables()
    connection = await asyncpg.connect(url)
    candles = list(itertools.islice(_candles(), rows))
    batches = [candles[start : start + BATCH] for start in range(0, rows, BATCH)]

    async def rate(write: Callable[[Sequence[Candle]], Awaitable[object]]) -> float:
        began = time.perf_counter()
        for batch in batches:
            await write(batch)
        return rows / (time.perf_counter() - began)

    found = {"new candles": await rate(database.upsert_candles)}
    found["the same candles again"] = await rate(database.upsert_candles)
    await connection.execute("TRUNCATE candles")
    found["COPY and ON CONFLICT, new candles"] = await rate(lambda batch: _copy(connection, batch))
    await connection.close()
    await database.close()
    return found


async def _copy(connection: asyncpg.Connection, batch: Sequence[Candle]) -> None:
    records = [(c.symbol, c.timeframe, c.open_time, c.open, c.high, c.low, c.close, c.volume) for c in batch]
    async with connection.transaction():
        await connection.execute("CREATE TEMP TABLE taken (LIKE candles) ON COMMIT DROP")
        await connection.copy_records_to_table("taken", records=records)
        await connection.execute("INSERT INTO candles SELECT * FROM taken ON CONFLICT DO NOTHING")


def _candles() -> Iterator[Candle]:
    for number in itertools.count():
        close = Decimal(50_000) + Decimal(number % 997) / 4
        yield Candle(
            symbol="BTC/USDT",
            timeframe="1m",
            open_time=START + timedelta(minutes=number),
            open=close - 1,
            high=close + 3,
            low=close - 5,
            close=close,
            volume=Decimal(number % 89 + 1) / 8,
        )


async def _fetch(url: str, statement: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch(statement)]
    finally:
        await connection.close()


async def _migrated(url: str) -> None:
    database = Database(url)
    await database.init_tables()
    await database.close()


def main() -> None:
    """Measure everything and print a line each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--quick", action="store_true", help="a fifth of the candles")
    arguments = parser.parse_args()
    share = 5 if arguments.quick else 1
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    results = bulk_upserts(100_000 // share)
    with tempfile.TemporaryDirectory(prefix="trading-bench-") as name:
        folder = Path(name)
        market = one_minute_market(folder, 20_000 // share)
        results.append(seven_strategies(folder, market))
        results.append(order_latency(folder, market, 60 // share))
    for result in results:
        print(json.dumps(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    sys.exit(main())

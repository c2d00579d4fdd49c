"""Where each instance goes on after a restart: a stored flat state, or the stored candles fed again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select

from shared.candle_reader import CandleReader
from shared.db import Database
from shared.models import InstanceKey
from shared.sa_models import StrategyStateRow
from shared.strategy_runner import StrategyRunner

REBUILD_PAGE_ROWS = 2_000


async def restore_runners(database: Database, runners: Sequence[StrategyRunner], reader: CandleReader) -> list[str]:
    """Bring every runner to the reader's place; return a sentence for each that had to be fed candles again."""
    async with database.read() as session:
        rows = (await session.execute(select(StrategyStateRow.__table__))).mappings().all()
    stored = {InstanceKey(row["strategy"], row["symbol"], row["timeframe"]): row for row in rows}
    notes = []
    for runner in runners:
        runner.reset()
        until = reader.open_time((runner.key.symbol, runner.key.timeframe))
        if until is None:
            continue
        row = stored.get(runner.key)
        after: datetime | None = None
        if (
            row is not None
            and row["config_hash"] == runner.stamp.config_hash
            and runner.restore(row["state"], row["candles_seen"])
        ):
            after = row["candle_open_time"]
        elif row is not None:
            notes.append(f"{runner.key}: code or parameters changed since the checkpoint; fed its candles again")
        await _feed(database, runner, after, until)
    return notes


def checkpoint_rows(
    runners: Sequence[StrategyRunner], open_times: dict[tuple[str, str], datetime]
) -> list[dict[str, Any]]:
    """Return the rows of the runners' states at the last candle of their streams."""
    rows = []
    for runner in runners:
        open_time = open_times.get((runner.key.symbol, runner.key.timeframe))
        state = runner.snapshot() if open_time is not None else None
        if state is None:
            continue
        rows.append(
            {
                "strategy": runner.key.strategy,
                "symbol": runner.key.symbol,
                "timeframe": runner.key.timeframe,
                "state": state,
                "candle_open_time": open_time,
                "candles_seen": runner.candles_seen,
                "config_hash": runner.stamp.config_hash,
                "code_hash": runner.stamp.code_hash,
            }
        )
    return rows


async def _feed(database: Database, runner: StrategyRunner, after: datetime | None, until: datetime) -> None:
    while after is None or after < until:
        page = await database.read_candles(
            runner.key.symbol,
            runner.key.timeframe,
            after_open_time=after,
            until_open_time=until,
            limit=REBUILD_PAGE_ROWS,
        )
        runner.rebuild(page)
        if len(page) < REBUILD_PAGE_ROWS:
            return
        after = page[-1].open_time

"""What two states must agree on, value by value: every table without the columns that only machine time writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

Row = dict[str, Any]
Tables = Mapping[str, list[Row]]

# Order of a row, and the columns left out: when a machine happened to write it.
COMPARED: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    "candles": ("symbol, timeframe, open_time", frozenset()),
    "candle_revisions": ("symbol, timeframe, open_time, revision", frozenset({"recorded_at"})),
    "candle_gaps": ("symbol, timeframe, start_time", frozenset({"recorded_at"})),
    "quarantine": ("id", frozenset({"recorded_at"})),
    "signals": ("created_at, id", frozenset()),
    "decisions": ("as_of, signal_id", frozenset()),
    "orders": ("as_of, id", frozenset()),
    "trades": ("sequence", frozenset()),
    "ledger": ("as_of, entry_id", frozenset()),
    "movements": ("ext_id", frozenset()),
    "allocations": ("strategy, symbol, timeframe", frozenset()),
    "strategy_positions": ("strategy, symbol, timeframe", frozenset()),
    "positions": ("symbol", frozenset()),
    "accounts": ("account", frozenset()),
    "control": ("account", frozenset({"set_at"})),
    "portfolio_snapshots": ("snapshot_at, id", frozenset()),
    "strategy_states": ("strategy, symbol, timeframe", frozenset()),
    "dead_letters": ("id", frozenset({"recorded_at"})),
    "cursors": ("name", frozenset()),
}
DIFFERENCES_PER_TABLE_MAX: Final = 3


def read_tables(database: Path, names: Iterable[str] = COMPARED) -> dict[str, list[Row]]:
    """Return the compared columns of the named tables of an SQLite file, in one order."""
    found: dict[str, list[Row]] = {}
    with closing(connect_readonly(database)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        for name in names:
            order, left_out = COMPARED[name]
            rows = connection.execute(f"SELECT * FROM {name} ORDER BY {order}")
            found[name] = [{key: row[key] for key in row.keys() if key not in left_out} for row in rows]  # noqa: SIM118
    return found


async def read_state(database_url: str, names: Iterable[str] = COMPARED) -> dict[str, list[Row]]:
    """Return the compared columns of the named tables of any database, as exact Decimals and UTC times, in one order."""
    from sqlalchemy import select

    from shared.db import Database
    from shared.sa_models import Base

    database = Database(database_url)
    found: dict[str, list[Row]] = {}
    try:
        async with database.read() as session:
            for name in names:
                order, left_out = COMPARED[name]
                rows = (await session.execute(select(Base.metadata.tables[name]))).mappings()
                kept = [{key: value for key, value in row.items() if key not in left_out} for row in rows]
                found[name] = sorted(kept, key=itemgetter(*order.split(", ")))
    finally:
        await database.close()
    return found


def state_differences(expected: Tables, found: Tables) -> list[str]:
    """Return where two states differ, the first few of each table; empty when every value is the same."""
    differences: list[str] = []
    for name, wanted in expected.items():
        there = found[name]
        mine: list[str] = []
        if len(wanted) != len(there):
            mine.append(f"{name}: {len(wanted)} rows expected, {len(there)} found")
        for number, (left, right) in enumerate(zip(wanted, there, strict=False)):
            changed = {key: (left[key], right[key]) for key in left if left[key] != right[key]}
            if changed:
                words = ", ".join(f"{key} {was!r} became {is_!r}" for key, (was, is_) in changed.items())
                mine.append(f"{name} row {number} ({next(iter(left.values()))}): {words}")
        differences += mine[:DIFFERENCES_PER_TABLE_MAX]
        if len(mine) > DIFFERENCES_PER_TABLE_MAX:
            differences.append(f"{name}: {len(mine)} differences in all")
    return differences


def connect_readonly(database: Path) -> sqlite3.Connection:
    """Open an SQLite file that another process writes, to read only."""
    return sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30.0)

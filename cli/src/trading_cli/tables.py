"""`trading orders|trades|positions|signals`: what is stored, as a table, JSON or CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Select, select

from shared.config_values import parse_symbol
from shared.db import Database
from shared.domain.rounding import minus, times
from shared.errors import ConfigError
from shared.sa_models import DecisionRow, OrderRow, PositionRow, SignalRow, StrategyPositionRow, TradeRow
from trading_cli.rows_output import rows_csv, rows_json, show_rows
from trading_cli.stored_state import find_state, read_stored, state_options

TABLE_ROWS_DEFAULT = 50
TRADE_COLUMNS = ("traded_at", "symbol", "strategy", "timeframe", "side", "price", "quantity", "fee", "order_id")
ORDER_COLUMNS = (
    *("created_at", "symbol", "strategy", "timeframe", "side", "type", "status", "price", "quantity"),
    *("filled_quantity", "avg_fill_price", "filled_at", "purpose", "late", "reason", "id", "signal_id"),
)
SIGNAL_COLUMNS = (
    *("created_at", "symbol", "strategy", "timeframe", "side", "price", "quantity"),
    *("outcome", "outcome_reason", "reason", "id", "order_id"),
)
POSITION_COLUMNS = (
    *("symbol", "strategy", "timeframe", "quantity", "avg_entry_price", "current_price", "unrealized_pnl"),
    *("realized_pnl", "fees", "cash", "entries_open", "stop_price", "updated_at"),
)
# What a terminal has no room for is left to JSON and CSV.
HIDDEN_IN_TABLES = frozenset({"id", "signal_id", "order_id", "type", "filled_quantity", "updated_at"})

type Rows = list[dict[str, Any]]
type Query = Callable[[Database, str | None, str | None, int | None], Any]


def _list_command(name: str, columns: Sequence[str], query: Query, summary: str) -> click.Command:
    @click.command(name, help=summary)
    @state_options
    @click.option("--symbol", help="BASE/QUOTE only")
    @click.option("--strategy", help="this strategy only")
    @click.option("--limit", type=click.IntRange(min=1), help=f"newest rows [default: {TABLE_ROWS_DEFAULT} in a table]")
    @click.option("--json", "as_json", is_flag=True, help="a JSON array, every row unless --limit")
    @click.option("--csv", "as_csv", is_flag=True, help="CSV with a header, every row unless --limit")
    def command(
        state: Path | None,
        database_url: str | None,
        symbol: str | None,
        strategy: str | None,
        limit: int | None,
        **faces: bool,
    ) -> None:
        if faces["as_json"] and faces["as_csv"]:
            raise ConfigError("--json and --csv: choose one")
        is_table = not any(faces.values())
        rows_max = limit or (TABLE_ROWS_DEFAULT if is_table else None)
        stored = find_state(state, database_url)
        wanted = None if symbol is None else _checked_symbol(symbol)
        rows: Rows = read_stored(stored, lambda database: query(database, wanted, strategy, rows_max))
        if faces["as_json"]:
            click.echo(rows_json(rows, columns))
        elif faces["as_csv"]:
            click.echo(rows_csv(rows, columns), nl=False)
        else:
            shown = [column for column in columns if column not in HIDDEN_IN_TABLES]
            more = f", the newest {limit or TABLE_ROWS_DEFAULT}" if len(rows) == rows_max else ""
            show_rows(rows, shown, f"{name} of {stored.name}: {len(rows)}{more}")

    return command


def _checked_symbol(symbol: str) -> str:
    try:
        return parse_symbol(symbol)
    except ValueError as error:
        raise ConfigError(f"--symbol: {error}") from None


async def _read_trades(database: Database, symbol: str | None, strategy: str | None, limit: int | None) -> Rows:
    query = _filtered(select(TradeRow.__table__), TradeRow, symbol, strategy)
    return await _newest(database, query.order_by(TradeRow.sequence.desc()), limit)


async def _read_orders(database: Database, symbol: str | None, strategy: str | None, limit: int | None) -> Rows:
    query = _filtered(select(OrderRow.__table__), OrderRow, symbol, strategy)
    return await _newest(database, query.order_by(OrderRow.created_at.desc(), OrderRow.id.desc()), limit)


async def _read_signals(database: Database, symbol: str | None, strategy: str | None, limit: int | None) -> Rows:
    decided = (
        DecisionRow.outcome,
        DecisionRow.reason.label("outcome_reason"),
        DecisionRow.order_id,
    )
    query: Select[Any] = select(*SignalRow.__table__.columns, *decided).outerjoin(
        DecisionRow, DecisionRow.signal_id == SignalRow.id
    )
    query = _filtered(query, SignalRow, symbol, strategy)
    return await _newest(database, query.order_by(SignalRow.created_at.desc(), SignalRow.id.desc()), limit)


async def _read_positions(database: Database, symbol: str | None, strategy: str | None, limit: int | None) -> Rows:
    async with database.read() as session:
        prices = await session.execute(select(PositionRow.symbol, PositionRow.current_price))
        marks: dict[str, Decimal] = {row.symbol: row.current_price for row in prices}
        query = _filtered(select(StrategyPositionRow.__table__), StrategyPositionRow, symbol, strategy)
        held = [dict(row) for row in (await session.execute(query)).mappings() if row["quantity"]]
    rows: Rows = []
    for row in sorted(held, key=lambda row: (row["symbol"], row["timeframe"], row["strategy"])):
        price = marks[row["symbol"]] if row["symbol"] in marks else row["avg_entry_price"]
        gain = times(minus(price, row["avg_entry_price"]), row["quantity"])
        rows.append(row | {"current_price": price, "unrealized_pnl": gain})
    return rows[:limit]


def _filtered(query: Select[Any], table: Any, symbol: str | None, strategy: str | None) -> Select[Any]:
    if symbol is not None:
        query = query.where(table.symbol == symbol)
    return query if strategy is None else query.where(table.strategy == strategy)


async def _newest(database: Database, query: Select[Any], limit: int | None) -> Rows:
    """Return the newest rows, oldest first: what a terminal shows last is what happened last."""
    async with database.read() as session:
        found = (await session.execute(query if limit is None else query.limit(limit))).mappings()
        return [dict(row) for row in found][::-1]


trades = _list_command("trades", TRADE_COLUMNS, _read_trades, "List fills, the newest last.")
orders = _list_command("orders", ORDER_COLUMNS, _read_orders, "List orders, the newest last.")
signals = _list_command("signals", SIGNAL_COLUMNS, _read_signals, "List signals and what became of them, newest last.")
positions = _list_command("positions", POSITION_COLUMNS, _read_positions, "List what each strategy holds.")

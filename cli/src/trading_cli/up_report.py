"""What a run of the platform comes to: the figures of `up --json`, and the summary a person reads at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec
from sqlalchemy import func, select

from portfolio_manager.verification import Verification
from shared.db import Database
from shared.domain.rounding import ZERO, minus
from shared.sa_models import AccountRow, Base, CandleRow, DecisionRow, OrderRow, PositionRow, SignalRow, TradeRow

SCHEMA = "up/1"


class UpReport(msgspec.Struct, frozen=True, kw_only=True):
    """The state's totals, and this run's time and rate."""

    schema: str
    candles: int
    signals: int
    orders: int
    fills: int
    refused: dict[str, int]
    ignored: dict[str, int]
    positions: dict[str, Decimal]
    cash: Decimal
    equity: Decimal
    initial_balance: Decimal
    seconds: float
    candles_per_second: float
    orders_per_second: float
    latency_ms: dict[str, float | None]


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Rows in the tables that a run adds to."""

    candles: int
    signals: int
    orders: int
    fills: int


async def read_totals(database: Database) -> Totals:
    """Return how many rows there are."""
    tables: tuple[type[Base], ...] = (CandleRow, SignalRow, OrderRow, TradeRow)
    async with database.read() as session:
        candles, signals, orders, fills = [await database.count_rows(table, session) for table in tables]
    return Totals(candles=candles, signals=signals, orders=orders, fills=fills)


async def make_report(
    database: Database, before: Totals, seconds: float, latency_ms: Mapping[str, float | None]
) -> UpReport:
    """Return the report of a run that began with `before` and took `seconds`."""
    totals = await read_totals(database)
    row, decided = OrderRow, (DecisionRow.outcome, DecisionRow.reason)
    counted = select(*decided, func.count()).group_by(*decided)
    ended = select(row.reason, func.count()).where(row.status.in_(("REJECTED", "EXPIRED"))).group_by(row.reason)
    async with database.read() as session:
        reasons = (await session.execute(counted)).all()
        closed = (await session.execute(ended)).all()
        account = (await session.execute(select(AccountRow.__table__))).mappings().first()
        positions = (await session.execute(select(PositionRow.symbol, PositionRow.quantity))).all()
    refused = {reason: count for outcome, reason, count in reasons if outcome == "refused"}
    for reason, count in closed:
        refused[reason] = refused.get(reason, 0) + count
    return UpReport(
        schema=SCHEMA,
        candles=totals.candles,
        signals=totals.signals,
        orders=totals.orders,
        fills=totals.fills,
        refused=dict(sorted(refused.items())),
        ignored={reason: count for outcome, reason, count in sorted(reasons) if outcome == "ignored"},
        positions={symbol: quantity for symbol, quantity in sorted(positions) if quantity},
        cash=account["cash"] if account else ZERO,
        equity=account["equity"] if account else ZERO,
        initial_balance=account["initial_balance"] if account else ZERO,
        seconds=round(seconds, 3),
        candles_per_second=round((totals.candles - before.candles) / seconds, 1) if seconds else 0.0,
        orders_per_second=round((totals.orders - before.orders) / seconds, 1) if seconds else 0.0,
        latency_ms=dict(latency_ms),
    )


def to_json(report: UpReport) -> bytes:
    """Return the report as strict JSON; money as numbers with all their digits."""
    return msgspec.json.format(msgspec.json.Encoder(decimal_format="number").encode(report), indent=2)


def summary_lines(report: UpReport, verification: Verification, state: str, notices: Sequence[str]) -> list[str]:
    """Return the last words of a run, with what a person should know of its strategies."""
    pnl = minus(report.equity, report.initial_balance)
    refused = ", ".join(f"{reason} {count}" for reason, count in report.refused.items()) or "none"
    ignored = ", ".join(f"{reason} {count}" for reason, count in report.ignored.items()) or "none"
    held = ", ".join(f"{quantity.normalize():f} {symbol}" for symbol, quantity in report.positions.items()) or "nothing"
    check = (
        "clean"
        if verification.is_clean
        else f"{len(verification.differences)} DIFFERENCES, first: {verification.differences[0]}"
    )
    return [
        *(f"note: {notice}" for notice in notices),
        f"equity {report.equity:.2f} ({pnl:+.2f} since the first start), cash {report.cash:.2f}, holding {held}",
        f"{report.candles} candles, {report.signals} signals, {report.orders} orders, {report.fills} fills",
        f"refused: {refused}; ignored: {ignored}",
        f"this run: {report.seconds:.1f} s, {report.candles_per_second:.0f} candles/s; ledger check: {check}",
        f"state kept in {state}: the next `trading up --state {state}` goes on from here",
    ]

"""One moment of the system of record, as `status` and the live view show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.db import Database
from shared.domain.rounding import ZERO, minus, plus, times
from shared.models import InstanceKey, from_milliseconds
from shared.sa_models import (
    AccountRow,
    AllocationRow,
    CandleGapRow,
    ControlRow,
    DeadLetterRow,
    DecisionRow,
    OrderRow,
    PositionRow,
    QuarantineRow,
    SignalRow,
    StrategyPositionRow,
    TradeRow,
)
from trading_cli.overview_model import (
    AccountOverview,
    GapOverview,
    InstanceOverview,
    LastSignal,
    Overview,
    PositionOverview,
)

__all__ = [
    "AccountOverview",
    "GapOverview",
    "InstanceOverview",
    "LastSignal",
    "Overview",
    "OverviewMemory",
    "PositionOverview",
    "read_overview",
]

BPS = Decimal(10_000)
GAPS_MAX = 10
RECENT_SIGNALS_MAX = 200
SERVICES = ("collector", "engine", "executor", "portfolio")
# an order that ended without a fill was refused, except where a person or the end of its position took it back
REFUSED_STATUSES = ("REJECTED", "EXPIRED", "FAILED")


@dataclass(slots=True)
class OverviewMemory:
    """What a reader that looks again and again need not read again: fills are only ever added."""

    last_sequence: int = 0
    fills: dict[InstanceKey, int] = field(default_factory=dict)
    turnover: dict[InstanceKey, Decimal] = field(default_factory=dict)
    last_signals: dict[InstanceKey, tuple[int, LastSignal]] = field(default_factory=dict)


async def read_overview(database: Database, memory: OverviewMemory | None = None) -> Overview:
    """Return one moment of `database`; with a `memory` kept between calls only what is new is read.

    SQL counts, money is added up here.
    """
    memory = memory or OverviewMemory()
    async with database.read() as session:
        accounts = await _rows(session, AccountRow)
        control = await _rows(session, ControlRow)
        positions = tuple(_position(row) for row in await _rows(session, PositionRow))
        await _remember_fills(session, memory)
        signals = await _count_by_instance(session)
        await _remember_signals(session, memory, signals)
        allocations = {_key(row): row for row in await _rows(session, AllocationRow)}
        holdings = {_key(row): row for row in await _rows(session, StrategyPositionRow)}
        decisions = await _decisions(session)
        refused_orders = await _grouped(session, OrderRow.reason, OrderRow.status.in_(REFUSED_STATUSES))
        orders = await _grouped(session, OrderRow.status)
        gaps = await _gaps(session)
        counted = [await database.count_rows(row, session) for row in (CandleGapRow, QuarantineRow, DeadLetterRow)]
        cursors = await database.read_cursors(session=session)
    marks = {position.symbol: position.current_price for position in positions}
    keys = sorted(allocations.keys() | holdings.keys(), key=lambda key: key.business_order)
    watermarks, lags = _progress(cursors)
    return Overview(
        account=_account(accounts[0], positions) if accounts else None,
        control_state=control[0]["state"] if control else "ACTIVE",
        control_reason=control[0]["reason"] if control else "",
        instances=tuple(
            _instance(key, allocations.get(key), holdings.get(key), marks, signals, memory) for key in keys
        ),
        positions=positions,
        signals=sum(signals.values()),
        fills=sum(memory.fills.values()),
        orders=orders,
        refused=_added(decisions.get("refused", {}), refused_orders),
        ignored=decisions.get("ignored", {}),
        undecided=sum(signals.values()) - sum(sum(counts.values()) for counts in decisions.values()),
        gaps=gaps,
        gap_count=counted[0],
        quarantined=counted[1],
        dead_letters=counted[2],
        watermarks=watermarks,
        lags=lags,
        cursors=cursors,
    )


async def _rows(session: AsyncSession, row_class: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in (await session.execute(select(row_class.__table__))).mappings()]


def _key(row: Mapping[str, Any]) -> InstanceKey:
    return InstanceKey(row["strategy"], row["symbol"], row["timeframe"])


async def _remember_fills(session: AsyncSession, memory: OverviewMemory) -> None:
    columns = (TradeRow.strategy, TradeRow.symbol, TradeRow.timeframe)
    query = select(*columns, TradeRow.price, TradeRow.quantity, TradeRow.sequence)
    for *key, price, quantity, sequence in await session.execute(query.where(TradeRow.sequence > memory.last_sequence)):
        instance = InstanceKey(*key)
        memory.fills[instance] = memory.fills.get(instance, 0) + 1
        memory.turnover[instance] = plus(memory.turnover.get(instance, ZERO), times(price, quantity))
        memory.last_sequence = max(memory.last_sequence, sequence)


async def _count_by_instance(session: AsyncSession) -> dict[InstanceKey, int]:
    columns = (SignalRow.strategy, SignalRow.symbol, SignalRow.timeframe)
    rows = await session.execute(select(*columns, func.count()).group_by(*columns))
    return {InstanceKey(*key): int(count) for *key, count in rows}


async def _remember_signals(session: AsyncSession, memory: OverviewMemory, counts: Mapping[InstanceKey, int]) -> None:
    """Look up the newest signal of every instance that has spoken since, or whose last one was not yet decided."""
    changed = {
        key
        for key, count in counts.items()
        if (known := memory.last_signals.get(key)) is None or known[0] != count or not known[1].outcome
    }
    if not changed:
        return
    query = (
        select(SignalRow.strategy, SignalRow.symbol, SignalRow.timeframe, SignalRow.side, SignalRow.reason)
        .add_columns(SignalRow.created_at, DecisionRow.outcome, DecisionRow.reason)
        .outerjoin(DecisionRow, DecisionRow.signal_id == SignalRow.id)
        .order_by(SignalRow.created_at.desc(), SignalRow.id.desc())
    )
    for row in await session.execute(query.limit(RECENT_SIGNALS_MAX)):
        _take(memory, changed, counts, row)
    for key in sorted(changed):  # those that have been silent for long
        own = (SignalRow.strategy == key.strategy, SignalRow.symbol == key.symbol, SignalRow.timeframe == key.timeframe)
        for row in await session.execute(query.where(*own).limit(1)):
            _take(memory, changed, counts, row)


def _take(memory: OverviewMemory, changed: set[InstanceKey], counts: Mapping[InstanceKey, int], row: Any) -> None:
    strategy, symbol, timeframe, side, reason, created_at, outcome, outcome_reason = row
    key = InstanceKey(strategy, symbol, timeframe)
    if key in changed:
        changed.discard(key)
        last = LastSignal(side, reason, created_at, outcome or "", outcome_reason or "")
        memory.last_signals[key] = (counts[key], last)


async def _decisions(session: AsyncSession) -> dict[str, dict[str, int]]:
    columns = (DecisionRow.outcome, DecisionRow.reason)
    counts: dict[str, dict[str, int]] = {}
    for outcome, reason, count in await session.execute(select(*columns, func.count()).group_by(*columns)):
        counts.setdefault(outcome, {})[reason] = int(count)
    return counts


async def _grouped(session: AsyncSession, column: Any, *where: Any) -> dict[str, int]:
    rows = await session.execute(select(column, func.count()).where(*where).group_by(column))
    return {str(value): int(count) for value, count in rows}


async def _gaps(session: AsyncSession) -> tuple[GapOverview, ...]:
    row = CandleGapRow
    query = select(row.symbol, row.timeframe, row.start_time, row.end_time, row.candles_missing, row.confirmed)
    newest = query.order_by(row.start_time.desc()).limit(GAPS_MAX)
    return tuple(GapOverview(*found) for found in await session.execute(newest))


def _added(*counts: Mapping[str, int]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in counts:
        for reason, count in part.items():
            total[reason] = total.get(reason, 0) + count
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def _progress(cursors: Mapping[str, str]) -> tuple[dict[str, datetime], dict[str, float]]:
    reached = {name: int(cursors[f"{name}/watermark"]) for name in SERVICES if f"{name}/watermark" in cursors}
    newest = max(reached.values(), default=0)
    lags = {name: (newest - value) / 1000 for name, value in reached.items()}
    return {name: from_milliseconds(value) for name, value in reached.items()}, lags


def _position(row: Mapping[str, Any]) -> PositionOverview:
    gain = times(minus(row["current_price"], row["avg_entry_price"]), row["quantity"])
    return PositionOverview(row["symbol"], row["quantity"], row["avg_entry_price"], row["current_price"], gain)


def _account(row: Mapping[str, Any], positions: Sequence[PositionOverview]) -> AccountOverview:
    exposure = ZERO
    for position in positions:
        exposure = plus(exposure, times(position.quantity, position.current_price))
    peak = max(row["equity_peak"], row["equity"])
    same = ("mode", "quote_asset", "initial_balance", "cash", "equity", "day", "state", "state_reason", "as_of")
    return AccountOverview(
        **{name: row[name] for name in same},
        exposure=exposure,
        day_base=row["day_equity"],
        day_pnl=minus(minus(row["equity"], row["day_equity"]), row["day_flows"]),
        equity_peak=peak,
        drawdown_pct=float(minus(peak, row["equity"]) / peak * 100) if peak > 0 else 0.0,
    )


def _instance(
    key: InstanceKey,
    allocation: Mapping[str, Any] | None,
    holding: Mapping[str, Any] | None,
    marks: Mapping[str, Decimal],
    signals: Mapping[InstanceKey, int],
    memory: OverviewMemory,
) -> InstanceOverview:
    held: Mapping[str, Any] = holding or {}
    quantity, average = held.get("quantity", ZERO), held.get("avg_entry_price", ZERO)
    cash, fees = held.get("cash", ZERO), held.get("fees", ZERO)
    realized = held.get("realized_pnl", ZERO)
    price = marks.get(key.symbol, average)
    unrealized = times(minus(price, average), quantity)
    pnl = plus(realized, unrealized)
    turnover = memory.turnover.get(key, ZERO)
    last = memory.last_signals.get(key)
    return InstanceOverview(
        key=key,
        active=bool(allocation and allocation["active"]),
        share=allocation["share"] if allocation else ZERO,
        signals=signals.get(key, 0),
        fills=memory.fills.get(key, 0),
        quantity=quantity,
        avg_entry_price=average,
        current_price=price,
        realized_pnl=realized,
        unrealized_pnl=unrealized,
        pnl=pnl,
        fees=fees,
        cash=cash,
        equity=plus(cash, times(quantity, price)),
        entries_open=held.get("entries_open", 0),
        stop_price=held.get("stop_price"),
        turnover=turnover,
        breakeven_bps=float(plus(pnl, fees) / turnover * BPS) if turnover else None,
        last_signal=last[1] if last else None,
    )

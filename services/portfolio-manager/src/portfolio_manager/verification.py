"""Everything that is derived, folded again from the fills and compared: the ledger check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.db import Database
from shared.db_orders import fill_of
from shared.domain.ledger import ledger_entries
from shared.domain.positions import FLAT, Holding, apply_fill
from shared.domain.rounding import ZERO, Instrument, plus, ratio, times
from shared.events import SIGNAL_STREAM
from shared.models import Fill, InstanceKey, from_milliseconds
from shared.sa_models import (
    AccountRow,
    AllocationRow,
    Base,
    DecisionRow,
    LedgerRow,
    MovementRow,
    OrderRow,
    OutboxRow,
    PositionRow,
    SignalRow,
    StrategyPositionRow,
    TradeRow,
)

DIFFERENCES_MAX = 100
Rows = Sequence[Mapping[str, Any]]


class Difference(msgspec.Struct, frozen=True):
    """Something stored that its fills do not add up to."""

    where: str
    expected: str
    found: str

    def __str__(self) -> str:
        """Return one line for a person."""
        return f"{self.where}: the fills say {self.expected}, stored is {self.found}"


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a check: differences, what was looked at, and how far each service is behind (no difference)."""

    differences: tuple[Difference, ...]
    fills: int
    orders: int
    signals: int
    as_of: datetime | None
    lags: Mapping[str, str]

    @property
    def is_clean(self) -> bool:
        """Return whether everything agrees."""
        return not self.differences


async def verify_database(database: Database) -> Verification:
    """Return what a fold over all fills finds, read in one snapshot of the database."""
    async with database.read() as session:
        tables = {row: await _all(session, row) for row in (TradeRow, OrderRow, LedgerRow, StrategyPositionRow)}
        small = {row: await _all(session, row) for row in (AllocationRow, PositionRow, AccountRow)}
        ordered = select(DecisionRow.signal_id, DecisionRow.order_id)
        decided = {row.signal_id: row.order_id for row in await session.execute(ordered)}
        movements = set((await session.execute(select(MovementRow.ext_id))).scalars())
        waiting = select(OutboxRow.key).where(OutboxRow.topic == SIGNAL_STREAM, OutboxRow.acked_at.is_(None))
        pending = set((await session.execute(waiting)).scalars())
        signals = (await session.execute(select(SignalRow.id, SignalRow.created_at))).all()
        cursors = await database.read_cursors(session=session)
    fills = sorted((fill_of(row) for row in tables[TradeRow]), key=lambda fill: fill.sequence)
    account = small[AccountRow][0] if small[AccountRow] else None
    found: list[Difference] = []
    holdings = _fold(fills, found)
    found += _check_sub_accounts(holdings, tables[StrategyPositionRow], small[AllocationRow])
    found += _check_positions(holdings, small[PositionRow])
    found += _check_ledger(fills, tables[LedgerRow], movements)
    found += _check_orders(fills, tables[OrderRow])
    found += _check_signals(signals, decided.keys() | pending, cursors.get("executor/watermark"))
    found += _check_decisions(decided, tables[OrderRow])
    if account is not None:
        found += _check_account(account, holdings, small[PositionRow], len(fills))
    return Verification(
        differences=tuple(found[:DIFFERENCES_MAX]),
        fills=len(fills),
        orders=len(tables[OrderRow]),
        signals=len(signals),
        as_of=account["as_of"] if account else None,
        lags=_lags(cursors),
    )


async def _all(session: AsyncSession, row_class: type[Base]) -> Rows:
    rows = await session.execute(select(row_class.__table__))
    return [dict(row) for row in rows.mappings()]


def _key(row: Mapping[str, Any]) -> InstanceKey:
    return InstanceKey(row["strategy"], row["symbol"], row["timeframe"])


def _compare(where: str, expected: Mapping[str, Any], row: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(f"{where} {name}", _text(value), _text(row[name]))
        for name, value in expected.items()
        if row[name] != value
    ]


def _text(value: Any) -> str:
    return f"{value.normalize():f}" if isinstance(value, Decimal) else str(value)


def _fold(fills: Sequence[Fill], found: list[Difference]) -> dict[InstanceKey, Holding]:
    holdings: dict[InstanceKey, Holding] = {}
    for number, fill in enumerate(fills, start=1):
        if fill.sequence != number:
            found.append(Difference(f"trades {fill.id} sequence", str(number), str(fill.sequence)))
        try:
            holdings[fill.instance] = apply_fill(
                holdings.get(fill.instance, FLAT), fill, Instrument(symbol=fill.symbol)
            )
        except AssertionError as error:
            found.append(Difference(f"trades {fill.id}", "a quantity that is held", str(error)))
    return holdings


def _check_sub_accounts(holdings: Mapping[InstanceKey, Holding], rows: Rows, allocations: Rows) -> list[Difference]:
    stored = {_key(row): row for row in rows}
    found: list[Difference] = []
    given = {_key(row): row["cash"] for row in allocations}
    for key in sorted(stored.keys() | holdings.keys()):
        holding = holdings.get(key, FLAT)
        if key not in stored:
            found.append(Difference(f"strategy_positions {key}", _text(holding.quantity), "no row"))
            continue
        expected = {
            "quantity": holding.quantity,
            "avg_entry_price": holding.avg_entry_price,
            "realized_pnl": holding.realized_pnl,
            "fees": holding.fees,
            "cash": plus(given.get(key, ZERO), holding.cash_flow),
        }
        found += _compare(f"strategy_positions {key}", expected, stored[key])
    return found


def _check_positions(holdings: Mapping[InstanceKey, Holding], rows: Rows) -> list[Difference]:
    totals: dict[str, tuple[Decimal, Decimal]] = {}
    for key, holding in holdings.items():
        quantity, cost = totals.get(key.symbol, (ZERO, ZERO))
        own_cost = times(holding.quantity, holding.avg_entry_price)
        totals[key.symbol] = (plus(quantity, holding.quantity), plus(cost, own_cost))
    stored = {row["symbol"]: row for row in rows}
    found = []
    for symbol in sorted(totals.keys() | stored.keys()):
        quantity, cost = totals.get(symbol, (ZERO, ZERO))
        if symbol in stored:
            average = ratio(cost, quantity) if quantity else ZERO
            expected = {"quantity": quantity, "avg_entry_price": average}
            found += _compare(f"positions {symbol}", expected, stored[symbol])
        elif quantity:
            found.append(Difference(f"positions {symbol} quantity", _text(quantity), "no row"))
    return found


def _check_ledger(fills: Sequence[Fill], rows: Rows, movements: Set[str]) -> list[Difference]:
    expected = {entry.entry_id: entry for fill in fills for entry in ledger_entries(fill)}
    stored = {row["entry_id"]: row for row in rows}
    found = [Difference(f"ledger {missing}", "an entry", "none") for missing in sorted(expected.keys() - stored.keys())]
    strange = [row["entry_id"] for row in rows if row["entry_id"] not in expected and row["cause_id"] not in movements]
    found += [Difference(f"ledger {extra}", "none", "an entry") for extra in sorted(strange)]
    for entry_id in expected.keys() & stored.keys():
        entry = expected[entry_id]
        wanted = {
            "cause_type": entry.cause_type,
            "asset": entry.asset,
            "delta": entry.delta,
            "cause_id": entry.cause_id,
            "leg": entry.leg,
        }
        found += _compare(f"ledger {entry_id}", wanted, stored[entry_id])
    return found


def _check_orders(fills: Sequence[Fill], rows: Rows) -> list[Difference]:
    filled: dict[str, Decimal] = {}
    prices: dict[str, list[Decimal]] = {}
    for fill in fills:
        filled[fill.order_id] = plus(filled.get(fill.order_id, ZERO), fill.quantity)
        prices.setdefault(fill.order_id, []).append(fill.price)
    found = []
    for row in rows:
        quantity = filled.pop(row["id"], ZERO)
        if row["filled_quantity"] != quantity:
            found.append(
                Difference(f"orders {row['id']} filled_quantity", _text(quantity), _text(row["filled_quantity"]))
            )
        if (row["status"] == "FILLED") != (quantity == row["quantity"]):
            found.append(
                Difference(f"orders {row['id']}", f"{_text(quantity)} of {_text(row['quantity'])}", row["status"])
            )
        own = prices.get(row["id"], [])
        if len(own) == 1:
            found += _compare(f"orders {row['id']}", {"avg_fill_price": own[0]}, row)
    return found + [Difference(f"trades of order {order_id}", "an order", "none") for order_id in sorted(filled)]


def _check_signals(signals: Sequence[Any], answered: Set[str], watermark: str | None) -> list[Difference]:
    if watermark is None:
        return []
    until = from_milliseconds(int(watermark))
    return [
        Difference(f"signals {signal_id}", "a decision", "none")
        for signal_id, created_at in signals
        if created_at <= until and signal_id not in answered
    ]


def _check_decisions(decided: Mapping[str, str | None], orders: Rows) -> list[Difference]:
    by_signal = {row["signal_id"]: row["id"] for row in orders if row["signal_id"] is not None}
    expected = {signal_id: order_id for signal_id, order_id in decided.items() if order_id is not None}
    return [
        Difference(f"decisions {signal_id} order", _text(by_signal.get(signal_id)), _text(expected.get(signal_id)))
        for signal_id in sorted(by_signal.keys() | expected.keys())
        if by_signal.get(signal_id) != expected.get(signal_id)
    ]


def _check_account(
    account: Mapping[str, Any], holdings: Mapping[InstanceKey, Holding], positions: Rows, fills: int
) -> list[Difference]:
    cash = account["initial_balance"]
    for holding in holdings.values():
        cash = plus(cash, holding.cash_flow)
    marks = {row["symbol"]: row["current_price"] for row in positions}
    equity = cash
    for key, holding in holdings.items():
        equity = plus(equity, times(holding.quantity, marks.get(key.symbol, ZERO)))
    expected = {"cash": cash, "sequence": fills}
    if account["as_of"] is not None:
        expected["equity"] = equity
    return _compare(f"accounts {account['account']}", expected, account)


def _lags(cursors: Mapping[str, str]) -> dict[str, str]:
    newest = int(cursors.get("collector/watermark", 0))
    lags = {}
    for service in ("engine", "executor", "portfolio"):
        stored = cursors.get(f"{service}/watermark")
        lags[service] = (
            "not started" if stored is None else f"{max(0, newest - int(stored)) / 1000:.0f} s of market behind"
        )
    return lags

"""Journals stay within their bounds; the record, and whatever `trading verify` folds, is never touched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import structlog
from sqlalchemy import select

from shared.clock import ManualClock, SystemClock
from shared.config import Settings, load_settings
from shared.db import Database
from shared.models import to_milliseconds
from shared.retention import PRUNE_EVERY_SECONDS, Pruner, rules_of
from shared.sa_models import (
    CandleGapRow,
    CandleRevisionRow,
    CursorRow,
    DecisionRow,
    OrderRow,
    PortfolioSnapshotRow,
    SignalRow,
)
from shared.testing.builders import BTC

ONE = Decimal(1)
START = datetime(2024, 1, 1, tzinfo=UTC)
SERVICES = ("data-collector", "strategy-engine", "order-executor", "portfolio-manager")


def settings_of(**options: object) -> Settings:
    return load_settings(dict(options), env={})


def pruner_of(database: Database, settings: Settings, clock: ManualClock | None = None) -> Pruner:
    rules = {name: rule for service in SERVICES for name, rule in rules_of(service, settings).items()}
    return Pruner(database, rules, clock=clock or ManualClock(), log=structlog.stdlib.get_logger("retention"))


async def write_revisions(database: Database, count: int) -> None:
    values = dict.fromkeys(("open", "high", "low", "close", "volume"), ONE)
    rows = [
        {"symbol": BTC, "timeframe": "1m", "open_time": START, "revision": number, "recorded_at": later(number)}
        | values
        for number in range(1, count + 1)
    ]
    async with database.get_session() as session:
        await database.insert_rows(session, CandleRevisionRow, rows)


def later(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


async def test_the_oldest_revisions_go_first(database: Database) -> None:
    await write_revisions(database, 30)
    assert await pruner_of(database, settings_of(candle_revisions_max=12)).prune() == {"candle_revisions": 18}
    async with database.read() as session:
        left = list(await session.scalars(select(CandleRevisionRow.revision).order_by(CandleRevisionRow.revision)))
    assert left == list(range(19, 31))
    assert await pruner_of(database, settings_of(candle_revisions_max=12)).prune() == {}


async def test_a_journal_far_past_its_bound_is_pruned_in_several_transactions(database: Database) -> None:
    await write_revisions(database, 2_500)
    assert await pruner_of(database, settings_of(candle_revisions_max=1)).prune() == {"candle_revisions": 2_499}


async def test_gaps_have_a_bound_of_their_own(database: Database) -> None:
    gaps = [
        {"symbol": BTC, "timeframe": "1m", "start_time": later(9 * number), "end_time": later(9 * number + 2),
         "candles_missing": 2, "confirmed": True, "recorded_at": later(number)}
        for number in range(5)
    ]  # fmt: skip
    async with database.get_session() as session:
        await database.insert_rows(session, CandleGapRow, gaps)
    assert await pruner_of(database, settings_of(candle_gaps_max=2)).prune() == {"candle_gaps": 3}


async def write_signals(database: Database, days: int) -> None:
    """Write three signals a day: one ordered, one refused, one that nobody has decided yet."""
    signals, decisions, orders = [], [], []
    for day in range(days):
        moment = START + timedelta(days=day)
        for outcome in ("ordered", "refused", "waiting"):
            name = f"{outcome}-{day}"
            signals.append(
                {"id": name, "strategy": "rsi", "symbol": BTC, "timeframe": "1m", "side": "BUY", "price": ONE,
                 "quantity": ONE, "reason": "", "created_at": moment, "mode": "paper"}
            )  # fmt: skip
            if outcome != "waiting":
                decisions.append({"signal_id": name, "outcome": outcome, "reason": "", "as_of": moment})
        orders.append(
            {"id": f"order-{day}", "signal_id": f"ordered-{day}", "symbol": BTC, "side": "BUY", "type": "MARKET",
             "price": ONE, "quantity": ONE, "status": "PENDING", "created_at": moment, "as_of": moment}
        )  # fmt: skip
    watermark = {"name": "executor/watermark", "value": str(to_milliseconds(START + timedelta(days=days)))}
    async with database.get_session() as session:
        await database.insert_rows(session, SignalRow, signals)
        await database.insert_rows(session, OrderRow, orders)
        await database.insert_rows(session, DecisionRow, decisions)
        await database.insert_rows(session, CursorRow, [watermark])


async def test_old_signals_without_an_order_go_with_their_decisions_and_no_others(database: Database) -> None:
    await write_signals(database, 10)
    assert await pruner_of(database, settings_of(decision_retention_days=3)).prune() == {"decisions": 7}
    assert await database.count_rows(SignalRow) == 23
    assert await database.count_rows(DecisionRow) == 13
    assert await database.count_rows(OrderRow) == 10


async def test_by_default_nothing_of_the_record_goes(database: Database) -> None:
    await write_signals(database, 10)
    assert await pruner_of(database, settings_of()).prune() == {}


@pytest.mark.parametrize("days", [1, 2])
async def test_old_snapshots_are_thinned_to_midnights(database: Database, days: int) -> None:
    rows = [
        {"id": f"paper:{number}", "total_value": ONE, "realized_pnl": ONE, "unrealized_pnl": ONE, "cash": ONE,
         "snapshot_at": later(60 * number)}
        for number in range(24 * 4)
    ]  # fmt: skip
    end = {"name": "portfolio/watermark", "value": str(to_milliseconds(later(24 * 60 * 4)))}
    async with database.get_session() as session:
        await database.insert_rows(session, PortfolioSnapshotRow, rows)
        await database.insert_rows(session, CursorRow, [end])
    gone = await pruner_of(database, settings_of(snapshot_retention_days=days)).prune()
    assert gone == {"portfolio_snapshots": 23 * (4 - days)}
    assert await database.count_rows(PortfolioSnapshotRow) == 24 * days + (4 - days)


async def test_it_looks_again_every_minute_until_it_is_stopped(sqlite_url: str) -> None:
    database, clock, stop = Database(sqlite_url), ManualClock(), asyncio.Event()
    task = asyncio.create_task(pruner_of(database, settings_of(candle_revisions_max=1), clock).run(stop))
    await until(lambda: clock.sleeper_count > 0)
    await write_revisions(database, 5)
    await clock.advance(PRUNE_EVERY_SECONDS)
    await until(lambda: clock.sleeper_count > 0)
    assert await database.count_rows(CandleRevisionRow) == 1
    stop.set()
    await task
    await database.close()


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await SystemClock().sleep(0.001)

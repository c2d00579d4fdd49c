"""The durable portfolio: behind the executor, snapshots and the day's summary out, over restarts and faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import delete, update

from shared.broker_memory import MemoryBroker
from shared.clock import ManualClock
from shared.db import Database
from shared.errors import DatabaseUnavailable
from shared.events import OrderEvent
from shared.models import Order, OrderSide, OrderStatus, to_milliseconds
from shared.notifier import NotifierLimits, TelegramNotifier
from shared.sa_models import (
    AccountRow,
    ControlRow,
    CursorRow,
    DeadLetterRow,
    LedgerRow,
    PortfolioSnapshotRow,
    StrategyPositionRow,
    TradeRow,
)
from shared.testing.bot_api import FakeBotApi
from shared.testing.builders import BTC, START, candle, signal
from shared.testing.waiting import until, until_done

from .conftest import BuildPortfolio, Trade, lively, rows_of, run_dry

D = Decimal
MINUTE = timedelta(minutes=1)
DAY = 1440


@pytest.fixture
async def api() -> AsyncIterator[FakeBotApi]:
    async with FakeBotApi() as server:
        yield server


@pytest.fixture
async def notifier(api: FakeBotApi) -> AsyncIterator[TelegramNotifier]:
    limits = NotifierLimits(message_gap_seconds=0, base_delay_seconds=0.001, close_seconds_max=5)
    notifier = TelegramNotifier(api.token, "42", base_url=api.url, limits=limits)
    notifier.start()
    yield notifier
    await notifier.close()


async def snapshots_of(database: Database) -> list[tuple[Any, ...]]:
    rows = await rows_of(database, PortfolioSnapshotRow, "snapshot_at")
    return [(row.id, row.snapshot_at, row.total_value, row.realized_pnl, row.unrealized_pnl, row.cash) for row in rows]


async def test_snapshots_follow_the_executor_and_agree_with_its_account(
    database: Database, trade: Trade, portfolio_of: BuildPortfolio, bus: MemoryBroker
) -> None:
    await trade(*lively(range(40)))

    loop = portfolio_of()
    await run_dry(loop)

    snapshots = await snapshots_of(database)
    account = (await rows_of(database, AccountRow))[0]
    realized = sum((row.realized_pnl for row in await rows_of(database, StrategyPositionRow)), D(0))
    assert [moment for _, moment, *_ in snapshots] == [START + n * MINUTE for n in range(1, 41)]
    assert snapshots[-1][2] == account.equity
    assert snapshots[-1][3] == realized
    assert snapshots[-1][5] == account.cash
    assert len({value for _, _, value, *_ in snapshots}) > 10
    assert await database.read_cursors("portfolio/watermark") == {
        "portfolio/watermark": str(to_milliseconds(candle(39).close_time))
    }
    assert await database.pending_outbox("orders", 10) == []
    bell = (await bus.read("watermarks", count=1000))[-1].event
    assert bell is not None
    assert (bell.data.service, bell.as_of) == ("portfolio-manager", candle(39).close_time)


async def test_restarts_and_small_pages_give_the_snapshots_of_one_run(
    database: Database, trade: Trade, portfolio_of: BuildPortfolio
) -> None:
    await trade(*lively(range(60)))
    await run_dry(portfolio_of(interval=3 * MINUTE))
    expected = await snapshots_of(database)
    async with database.get_session() as session:
        await session.execute(delete(PortfolioSnapshotRow))
        await session.execute(delete(CursorRow).where(CursorRow.name.startswith("portfolio/")))

    while await portfolio_of(interval=3 * MINUTE, batch_rows_max=7).step():
        pass

    assert await snapshots_of(database) == expected
    assert len(expected) == 20


async def test_a_failed_commit_is_repeated_and_leaves_nothing(
    database: Database, trade: Trade, portfolio_of: BuildPortfolio, monkeypatch: pytest.MonkeyPatch
) -> None:
    await trade(*lively(range(30)))
    loop = portfolio_of(batch_rows_max=10)
    await loop.step()
    before = await snapshots_of(database)

    async def fail(*_: Any) -> None:
        raise DatabaseUnavailable("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(database, "write_cursors", fail)
        with pytest.raises(DatabaseUnavailable):
            await loop.step()
    assert await snapshots_of(database) == before

    await run_dry(loop)

    account = (await rows_of(database, AccountRow))[0]
    snapshots = await snapshots_of(database)
    assert [moment for _, moment, *_ in snapshots] == [START + n * MINUTE for n in range(1, 31)]
    assert snapshots[-1][2] == account.equity


async def test_the_day_is_summed_up_once_at_midnight_also_over_restarts(
    database: Database,
    trade: Trade,
    portfolio_of: BuildPortfolio,
    api: FakeBotApi,
    notifier: TelegramNotifier,
) -> None:
    hour = timedelta(hours=1)
    first = DAY - 4
    await trade([candle(n) for n in range(first, DAY - 2)], [signal("BUY", first)])
    await run_dry(portfolio_of(notifier=notifier, interval=hour))
    await trade([candle(DAY - 2, 100), candle(DAY - 1, 100, 150), candle(DAY, 150, 90)])
    await run_dry(portfolio_of(notifier=notifier, interval=hour))
    await trade([candle(DAY + 1, 90), candle(2 * DAY - 1, 90, 70), candle(2 * DAY, 70)])
    await run_dry(portfolio_of(notifier=notifier, interval=hour))
    await run_dry(portfolio_of(notifier=notifier, interval=hour))
    await notifier.send("that is all")

    messages = await api.wait_for_messages(3)

    texts = [message.text for message in messages]
    worth = {moment: value.normalize() for _, moment, value, *_ in await snapshots_of(database)}
    first_end, second_end = worth[START + DAY * MINUTE], worth[START + 2 * DAY * MINUTE]
    assert len(texts) == 3
    assert f"Total value: {first_end:f}" in texts[0]
    assert f"Day PnL: {first_end - 10_000:+f}" in texts[0]
    assert "BTC/USDT" in texts[0]
    assert f"Total value: {second_end:f}" in texts[1]
    assert f"Day PnL: {second_end - first_end:+f}" in texts[1]
    assert second_end < 10_000 < first_end


async def test_a_ledger_that_does_not_add_up_halts_trading_and_is_told(
    database: Database,
    trade: Trade,
    portfolio_of: BuildPortfolio,
    api: FakeBotApi,
    notifier: TelegramNotifier,
    registry: CollectorRegistry,
) -> None:
    await trade(*lively(range(20)))
    async with database.get_session() as session:
        forged = update(LedgerRow).where(LedgerRow.leg == "fee").values(delta=D(-7))
        await session.execute(forged.execution_options(synchronize_session=False))

    loop = portfolio_of(notifier=notifier)
    await loop.load()

    control = (await rows_of(database, ControlRow))[0]
    message = (await api.wait_for_messages(1))[0]
    assert (control.account, control.state, control.set_by, control.seq) == ("paper", "HALT", "portfolio-manager", 1)
    assert control.reason.startswith("ledger_mismatch: ledger ")
    assert "ledger mismatch" in message.text
    labels = {"service": "portfolio-manager", "error_type": "LedgerMismatch"}
    assert registry.get_sample_value("trading_errors_total", labels) == 1


async def test_a_halt_counts_on_from_what_was_ordered_before_and_replaces_no_halt(
    database: Database, trade: Trade, portfolio_of: BuildPortfolio
) -> None:
    await trade(*lively(range(20)))
    row = {"account": "paper", "state": "ACTIVE", "reason": "ok", "set_by": "Eve", "seq": 6, "set_at": START}
    async with database.get_session() as session:
        await database.insert_rows(session, ControlRow, [row])
        await session.execute(delete(LedgerRow).where(LedgerRow.leg == "fee"))

    await portfolio_of().load()
    await portfolio_of().load()

    control = (await rows_of(database, ControlRow))[0]
    assert (control.state, control.seq, control.set_by) == ("HALT", 7, "portfolio-manager")


async def test_a_halted_executor_opens_nothing_more(
    database: Database, trade: Trade, portfolio_of: BuildPortfolio
) -> None:
    await trade(*lively(range(20)))
    async with database.get_session() as session:
        await session.execute(delete(LedgerRow).where(LedgerRow.leg == "fee"))
    await portfolio_of().load()
    before = len([row for row in await rows_of(database, TradeRow) if row.side == "BUY"])

    await trade(*lively(range(20, 60)))

    assert len([row for row in await rows_of(database, TradeRow) if row.side == "BUY"]) == before


async def test_a_clean_start_halts_nothing(database: Database, trade: Trade, portfolio_of: BuildPortfolio) -> None:
    await trade(*lively(range(20)))

    loop = portfolio_of()
    await loop.load()

    assert loop.verification is not None
    assert loop.verification.is_clean
    assert await rows_of(database, ControlRow) == []


async def test_a_portfolio_that_starts_first_waits_for_the_account(
    database: Database, trade: Trade, portfolio_of: BuildPortfolio
) -> None:
    loop = portfolio_of()
    assert not await loop.step()

    await trade([candle(0), candle(1)])
    await run_dry(loop)

    assert (await snapshots_of(database))[-1][2] == 10_000


async def test_forged_orders_on_the_bus_change_nothing_and_rubbish_is_put_aside(
    database: Database, trade: Trade, portfolio_of: BuildPortfolio, bus: MemoryBroker
) -> None:
    await trade([candle(0)])
    forged = Order(symbol=BTC, side=OrderSide.BUY, price=D(1), quantity=D(900), status=OrderStatus.FILLED)
    await bus.publish("orders", OrderEvent(data=forged))
    await bus.publish("orders", b"\xff\x00 rubbish")
    clock, stop = ManualClock(), asyncio.Event()
    loop = portfolio_of(clock=clock)
    task = asyncio.create_task(loop.run(stop))

    async def all_is_read() -> bool:
        return not await bus.lag("portfolio-manager", "orders") and bool(await rows_of(database, DeadLetterRow))

    await until(all_is_read, clock=clock)
    stop.set()
    await until_done(task, clock)
    letters = await rows_of(database, DeadLetterRow)
    assert [(row.stream, row.consumer) for row in letters] == [("orders", "portfolio-manager")]
    assert loop.tracker.positions == []
    assert loop.check()[0]


async def test_what_the_portfolio_is_worth_is_measured(
    database: Database, trade: Trade, portfolio_of: BuildPortfolio, registry: CollectorRegistry
) -> None:
    await trade(*lively(range(30)))
    loop = portfolio_of()
    await run_dry(loop)

    totals = loop.tracker.totals()
    service = {"service": "portfolio-manager"}
    for kind, amount in (("realized", totals.realized_pnl), ("unrealized", totals.unrealized_pnl)):
        assert registry.get_sample_value("trading_pnl_quote", {**service, "kind": kind}) == float(amount)
    assert registry.get_sample_value("trading_lag_seconds", {**service, "stream": "orders"}) == 0

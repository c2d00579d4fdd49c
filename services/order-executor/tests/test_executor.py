"""`OrderExecutor.execute` on its own: no loop, no key, no network."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from order_executor.executor import OrderExecutor
from order_executor.risk_manager import RiskManager
from shared.broker_memory import MemoryBroker
from shared.db import Database
from shared.errors import ConfigError, DatabaseUnavailable
from shared.events import correlation_of
from shared.models import InstanceKey, OrderSide, OrderStatus, Signal
from shared.sa_models import AccountRow, ControlRow, DecisionRow, OrderRow, SignalRow, StrategyPositionRow
from shared.testing.builders import BTC, ETH, START, signal

from .conftest import rows_of

D = Decimal


def plain(**changes: Any) -> Signal:
    """Return a signal as a person writes one: without id, times and hashes."""
    words = {"strategy": "rsi", "symbol": BTC, "side": OrderSide.BUY, "price": D(50_000), "quantity": D("0.01")}
    return Signal(**{**words, **changes})


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    database = Database(sqlite_url)
    yield database
    await database.close()


@pytest.fixture
def executor(database: Database, bus: MemoryBroker) -> OrderExecutor:
    return OrderExecutor(None, RiskManager(), bus, database, None, dry_run=True)


async def test_a_signal_becomes_a_pending_order_that_is_stored_and_published(
    executor: OrderExecutor, database: Database, bus: MemoryBroker
) -> None:
    wanted = plain()

    order = await executor.execute(wanted)

    assert order is not None
    assert (order.status, order.side, order.symbol) == (OrderStatus.PENDING, OrderSide.BUY, BTC)
    assert (order.signal_id, order.quantity, order.price) == (wanted.id, D("0.01"), D(50_000))
    assert order.filled_at is None
    stored = (await rows_of(database, OrderRow))[0]
    assert (stored.id, stored.status, stored.signal_id) == (order.id, "PENDING", wanted.id)
    assert [row.id for row in await rows_of(database, SignalRow)] == [wanted.id]
    events = [message.event for message in await bus.read("orders")]
    assert [event.data.id for event in events if event] == [order.id]
    assert [event.correlation_id for event in events if event] == [correlation_of(wanted)]


async def test_the_same_signal_twice_makes_one_order(executor: OrderExecutor, database: Database) -> None:
    wanted = plain()

    first, second = await executor.execute(wanted), await executor.execute(wanted)

    assert first is not None
    assert second is None
    assert len(await rows_of(database, OrderRow)) == 1
    assert len(await rows_of(database, DecisionRow)) == 1


async def test_the_same_signal_makes_one_order_also_after_a_restart(
    executor: OrderExecutor, database: Database, bus: MemoryBroker
) -> None:
    wanted = plain()
    await executor.execute(wanted)

    again = await OrderExecutor(None, RiskManager(), bus, database).execute(wanted)

    assert again is None
    assert len(await rows_of(database, OrderRow)) == 1


async def test_a_restart_serves_the_instances_of_before(
    executor: OrderExecutor, database: Database, bus: MemoryBroker
) -> None:
    await executor.execute(plain())
    restarted = OrderExecutor(None, RiskManager(), bus, database)

    second = await restarted.execute(plain(strategy="macd", symbol=ETH, price=D(3000)))

    assert second is not None
    decisions = await rows_of(database, DecisionRow)
    assert {row.outcome for row in decisions} == {"ordered"}


async def test_a_second_entry_is_ignored(executor: OrderExecutor, database: Database) -> None:
    await executor.execute(plain())

    assert await executor.execute(plain()) is None

    reasons = {(row.outcome, row.reason) for row in await rows_of(database, DecisionRow)}
    assert reasons == {("ordered", ""), ("ignored", "already_in")}


async def test_a_sell_of_nothing_is_ignored(executor: OrderExecutor, database: Database) -> None:
    assert await executor.execute(plain(side=OrderSide.SELL)) is None

    decision = (await rows_of(database, DecisionRow))[0]
    assert (decision.outcome, decision.reason, decision.order_id) == ("ignored", "nothing_held", None)


async def test_an_order_above_the_position_limit_is_refused_and_the_refusal_stored(
    executor: OrderExecutor, database: Database
) -> None:
    assert await executor.execute(plain(quantity=D("0.03"))) is None

    decision = (await rows_of(database, DecisionRow))[0]
    assert (decision.outcome, decision.reason) == ("refused", "position_size")
    assert "1500" in decision.detail
    assert await rows_of(database, OrderRow) == []


async def test_the_risk_managers_own_limits_are_used(database: Database, bus: MemoryBroker) -> None:
    generous = OrderExecutor(None, RiskManager(1, 0, 0), bus, database)

    assert await generous.execute(plain(quantity=D("0.15"))) is not None


async def test_the_risk_managers_stop_is_armed(executor: OrderExecutor) -> None:
    await executor.execute(plain())

    account = executor.book.accounts[InstanceKey("rsi", BTC, "1m")]
    assert account.rules.stop_loss_pct == 5


async def test_an_expired_signal_is_refused(executor: OrderExecutor, database: Database) -> None:
    late = plain(created_at=START, expires_at=START.replace(year=2023))

    assert await executor.execute(late) is None

    assert (await rows_of(database, DecisionRow))[0].reason == "expired"


@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": D(0)},
        {"quantity": D(-1)},
        {"price": D(-5)},
        {"timeframe": "7m"},
        {"symbol": "BTCUSDT"},
        {"symbol": "BTC/EUR"},
    ],
    ids=str,
)
async def test_a_signal_that_cannot_be_read_is_refused_and_stored(
    executor: OrderExecutor, database: Database, changes: dict[str, Any]
) -> None:
    assert await executor.execute(plain(**changes)) is None
    assert await executor.execute(plain()) is not None

    decisions = await rows_of(database, DecisionRow, "as_of")
    first = decisions[0]
    assert (first.outcome, first.reason) == ("refused", "invalid_signal")
    assert first.detail


@pytest.mark.parametrize("changes", [{"price": D("NaN")}, {"quantity": D("Infinity")}, {"price": D("1e30")}], ids=str)
async def test_a_number_that_no_table_holds_is_refused_and_harms_nothing(
    executor: OrderExecutor, database: Database, changes: dict[str, Any]
) -> None:
    assert await executor.execute(plain(**changes)) is None

    assert await rows_of(database, SignalRow) == []
    assert await executor.execute(plain()) is not None


async def test_a_side_in_plain_words_is_understood(executor: OrderExecutor) -> None:
    order = await executor.execute(plain(side="BUY"))

    assert order is not None
    assert order.side is OrderSide.BUY


async def test_a_halt_in_the_control_table_stops_the_next_order(executor: OrderExecutor, database: Database) -> None:
    await executor.execute(plain(symbol=ETH, price=D(3000)))
    async with database.get_session() as session:
        halt = {"account": "paper", "state": "HALT", "reason": "me", "set_by": "a person", "seq": 1, "set_at": START}
        await database.insert_rows(session, ControlRow, [halt])

    assert await executor.execute(plain()) is None

    assert [row.reason for row in await rows_of(database, DecisionRow) if row.outcome == "refused"] == ["halted"]


async def test_without_a_bus_the_order_is_stored_all_the_same(
    executor: OrderExecutor, database: Database, bus: MemoryBroker
) -> None:
    bus.is_available = False

    assert await executor.execute(plain()) is not None

    assert len(await rows_of(database, OrderRow)) == 1
    assert len(await database.pending_outbox("orders", 10)) == 1


async def test_a_failed_transaction_leaves_nothing_and_can_be_repeated(
    executor: OrderExecutor, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = plain()
    with monkeypatch.context() as patch:

        async def fail(*_: object) -> None:
            raise DatabaseUnavailable("cut off")

        patch.setattr(database, "append_outbox", fail)
        with pytest.raises(DatabaseUnavailable):
            await executor.execute(wanted)
    assert await rows_of(database, SignalRow) == []

    order = await executor.execute(wanted)

    assert order is not None
    assert len(executor.book.accounts[wanted.instance].working) == 1


async def test_many_signals_at_once_are_decided_one_after_the_other(
    executor: OrderExecutor, database: Database
) -> None:
    orders = await asyncio.gather(
        *(executor.execute(signal("BUY", 0, instance=InstanceKey(f"s{n}", BTC, "1m"))) for n in range(8))
    )

    assert sum(order is not None for order in orders) == 8
    assert len(await rows_of(database, StrategyPositionRow)) == 8


async def test_the_account_opens_with_the_paper_balance(executor: OrderExecutor, database: Database) -> None:
    await executor.execute(plain())

    account = (await rows_of(database, AccountRow))[0]
    assert (account.cash, account.initial_balance, account.mode) == (D(10_000), D(10_000), "paper")


async def test_no_socket_is_opened(database: Database, bus: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)

    assert await OrderExecutor(None, RiskManager(), bus, database, None, dry_run=True).execute(plain()) is not None


def test_an_executor_that_is_not_dry_is_refused(database: Database, bus: MemoryBroker) -> None:
    with pytest.raises(ConfigError, match="dry_run"):
        OrderExecutor(None, RiskManager(), bus, database, None, dry_run=False)


async def test_a_signals_money_is_stored_with_eighteen_decimals(executor: OrderExecutor, database: Database) -> None:
    long = msgspec.structs.replace(plain(), price=D(100) / D(3))

    order = await executor.execute(long)

    assert order is not None
    assert order.price == D("33.333333333333333333")
    assert (await rows_of(database, SignalRow))[0].price == D("33.333333333333333333")

"""A batch is one transaction whose writes travel together: all of them or none, and only while the lease is held."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from shared.clock import SystemClock
from shared.db import Conflict, Database
from shared.db_chain import Guard, Write, chained, in_parts
from shared.db_orders import order_row
from shared.db_postgres import PostgresConnection
from shared.db_session import fetch, session_of
from shared.errors import DatabaseError, LeaseLost
from shared.lease import FencedDatabase, Lease
from shared.models import Order, OrderSide, OrderStatus, OrderType
from shared.sa_models import OrderRow, SignalRow
from shared.testing.builders import START, signal

BUY = signal("BUY", 0, "65000.5")
ORDER = Order(
    id="o1",
    signal_id=BUY.id,
    symbol="BTC/USDT",
    side=OrderSide.BUY,
    type=OrderType.MARKET,
    price=Decimal("65000.5"),
    quantity=Decimal("0.01"),
    status=OrderStatus.PENDING,
    created_at=START,
)


def signal_row() -> dict[str, Any]:
    return {name: getattr(BUY, name) for name in BUY.__struct_fields__}


async def test_what_refers_to_another_row_of_the_batch_finds_it(database: Database) -> None:
    async with database.batch() as session:
        await database.write_rows(session, SignalRow, [signal_row()], conflict=Conflict.IGNORED)
        await database.write_rows(session, OrderRow, [order_row(ORDER)])
        await database.write_cursors(session, {"mine": 1})
    assert (await database.read_cursors("mine"), await database.count_rows(OrderRow)) == ({"mine": "1"}, 1)


async def test_a_batch_that_breaks_a_rule_writes_nothing_at_all(database: Database) -> None:
    async def write() -> None:
        async with database.batch() as session:
            await database.write_cursors(session, {"broken": 1})
            await database.write_rows(
                session, OrderRow, [order_row(msgspec.structs.replace(ORDER, signal_id="nobody"))]
            )

    with pytest.raises(DatabaseError, match="a rule of the tables was broken"):
        await write()
    assert await database.read_cursors("broken") == {}


async def test_a_batch_that_is_given_up_writes_nothing(database: Database) -> None:
    async def give_up() -> None:
        async with database.batch() as session:
            await database.write_cursors(session, {"given up": 1})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await give_up()
    async with database.batch() as session:
        await database.write_cursors(session, {"next": 1})
    assert not {"given up"} & set(await database.read_cursors(""))


async def test_a_question_within_a_batch_sees_what_it_wrote_before(database: Database) -> None:
    async with database.batch() as session:
        await database.write_cursors(session, {"seen": 1})
        assert await database.read_cursors("seen", session) == {"seen": "1"}
        await database.write_cursors(session, {"seen": 2})
        await database.write_cursors(session, {"seen": 3})
    assert await database.read_cursors("seen") == {"seen": "3"}


async def test_messages_are_appended_and_others_acknowledged_in_one_batch(database: Database) -> None:
    def message(topic: str, key: str) -> dict[str, Any]:
        return {"topic": topic, "key": key, "payload": "{}", "as_of": START}

    async with database.batch() as session:
        await database.append_outbox(session, [message("signals", "a"), message("signals", "b")])
    async with database.batch() as session:
        await database.append_outbox(session, [message("orders", "c")])
        await database.write_acks(session, "signals", ["a"])
    first = (await database.pending_outbox("signals", 9))[0]
    async with database.batch() as session:
        await database.write_sent(session, [first.id])
    (left,) = await database.pending_outbox("signals", 9)
    assert (left.key, left.sent_at is not None) == ("b", True)
    assert [each.key for each in await database.pending_outbox("orders", 9)] == ["c"]


@pytest.fixture
async def pair(database_url: str) -> AsyncIterator[list[FencedDatabase]]:
    databases = [FencedDatabase(database_url), FencedDatabase(database_url)]
    yield databases
    for each in databases:
        await each.close()


def lease_of(database: FencedDatabase, seconds: float) -> Lease:
    log = structlog.stdlib.get_logger("lease")
    return Lease(database, ("batcher",), seconds=seconds, clock=SystemClock(), log=log)


async def test_a_batch_of_one_who_lost_the_lease_writes_nothing(pair: list[FencedDatabase]) -> None:
    old, new = pair
    first, second = lease_of(old, 0.05), lease_of(new, 600)
    await first.take()
    async with old.batch() as session:
        await old.write_cursors(session, {"lease": "held"})
    assert await second.wait_for(asyncio.Event())
    with pytest.raises(LeaseLost, match="batcher was taken by another process"):
        async with old.batch() as session:
            await old.write_cursors(session, {"lease": "lost"})

    async def write_and_ask() -> None:
        async with old.batch() as session:
            await old.write_cursors(session, {"lease": "lost"})
            await old.read_cursors("lease", session)  # begins a transaction in the middle

    with pytest.raises(LeaseLost):
        await write_and_ask()
    assert await new.read_cursors("lease") == {"lease": "held"}
    await second.release()


async def test_who_takes_the_lease_while_a_batch_is_on_its_way_comes_first_or_second_but_never_between(
    make_postgres_url: Any,
) -> None:
    url = make_postgres_url()
    old, new = FencedDatabase(url), FencedDatabase(url)
    first = lease_of(old, 600)
    await first.take()
    raw = await asyncpg.connect(url)
    taking = raw.transaction()
    await taking.start()
    await raw.execute("SELECT epoch FROM lease FOR UPDATE")  # as Lease.take() does, and not committed yet
    await raw.execute("UPDATE lease SET epoch = epoch + 1 WHERE name = 'batcher'")

    async def write() -> None:
        async with old.batch() as session:
            await old.write_cursors(session, {"between": 1})

    writing = asyncio.create_task(write())
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    async with new.look() as session:
        while (await fetch(session, waits))[0][0] == 0:  # each question lets the writer go on
            assert not writing.done()
    await taking.commit()
    with pytest.raises(LeaseLost):
        await writing
    assert await new.read_cursors("between") == {}
    await raw.close()
    await old.close()
    await new.close()


async def test_a_batch_is_one_transaction_of_one_statement(make_postgres_url: Any) -> None:
    database = Database(make_postgres_url())
    async with database.batch() as session:
        await database.write_rows(session, SignalRow, [signal_row()])
        await database.write_rows(session, OrderRow, [order_row(ORDER)])
        driver = session_of(session).driver
        assert isinstance(driver, PostgresConnection)
        assert not driver.has_begun
    async with database.look() as session:
        rows = await fetch(session, "SELECT xmin::text FROM signals UNION SELECT xmin::text FROM orders")
    assert len(rows) == 1
    await database.close()


async def test_sqlalchemy_without_a_transaction_is_a_mistake(make_postgres_url: Any) -> None:
    database = Database(make_postgres_url())
    async with database.look() as session:
        with pytest.raises(AssertionError, match="needs a transaction"):
            await session.scalar(text("SELECT 1"))
    await database.close()


# --- the statement ------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from("abc")))
def test_parts_keep_the_order_and_change_nothing_twice(targets: list[str]) -> None:
    writes = [Write(str(number), (), target) for number, target in enumerate(targets)]
    parts = in_parts(writes)
    assert list(itertools.chain(*parts)) == writes
    assert all(len({write.target for write in part}) == len(part) for part in parts)


def test_places_of_parameters_are_counted_on_from_statement_to_statement() -> None:
    writes = [Write("UPDATE a SET x = $1 WHERE y = $2", (1, 2), "a"), Write("DELETE FROM b WHERE z = $1", (3,), "b")]
    statement, parameters = chained(writes, Guard("SELECT $1", (True,), ValueError))
    assert parameters == [True, 1, 2, 3]
    assert "x = $2 WHERE y = $3" in statement
    assert "z = $4" in statement

"""What every service may expect of the database, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.db import Database
from shared.errors import ConfigError, DatabaseError, DatabaseUnavailable, UnknownOrder
from shared.models import Order, OrderSide, OrderStatus, OrderType
from shared.sa_models import CandleRow, CursorRow, OrderRow, OutboxRow, PositionRow, SignalRow, TradeRow
from shared.testing.builders import START, candle, signal

MINUTE = timedelta(minutes=1)
BUY = signal("BUY", 0, "65000.5")


def order(identity: str = "o1", signal_id: str | None = None, status: OrderStatus = OrderStatus.PENDING) -> Order:
    return Order(
        id=identity,
        signal_id=signal_id,
        symbol="BTC/USDT",
        side=OrderSide.BUY,
        type=OrderType.MARKET,
        price=Decimal("65000.5"),
        quantity=Decimal("0.01"),
        status=status,
        created_at=START,
    )


async def status_of(database: Database, identity: str = "o1") -> OrderRow:
    async with database.read() as session:
        return (await session.execute(select(OrderRow).where(OrderRow.id == identity))).scalar_one()


# --- signals and orders ------------------------------------------------------------------------------------------


async def test_a_signal_is_stored_once(database: Database) -> None:
    assert await database.insert_signal(BUY) is True
    assert await database.insert_signal(BUY) is False
    async with database.read() as session:
        row = (await session.execute(select(SignalRow))).scalar_one()
    assert (row.side, row.price, row.created_at, row.mode) == ("BUY", Decimal("65000.5"), START + MINUTE, "paper")


async def test_an_order_goes_through_its_life(database: Database) -> None:
    await database.insert_signal(BUY)
    assert await database.insert_order(order(signal_id=BUY.id)) is True
    assert await database.insert_order(order(signal_id=BUY.id)) is False
    assert await database.update_order_status("o1", OrderStatus.PARTIAL) is True
    assert await database.update_order_status("o1", "FILLED", filled_at=START + MINUTE) is True
    row = await status_of(database)
    assert (row.status, row.filled_at, row.as_of, row.account) == ("FILLED", START + MINUTE, START, "paper")


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        (OrderStatus.PENDING, OrderStatus.UNKNOWN, True),
        (OrderStatus.UNKNOWN, OrderStatus.PENDING, True),
        (OrderStatus.FILLED, OrderStatus.FILLED, True),
        (OrderStatus.PARTIAL, OrderStatus.PENDING, False),
        (OrderStatus.FILLED, OrderStatus.PENDING, False),
        (OrderStatus.FILLED, OrderStatus.CANCELED, False),
        (OrderStatus.REJECTED, OrderStatus.FILLED, False),
    ],
)
async def test_a_status_never_moves_backwards(
    database: Database, before: OrderStatus, after: OrderStatus, moved: bool
) -> None:
    await database.insert_order(order(status=before))
    assert await database.update_order_status("o1", after) is moved
    assert (await status_of(database)).status == (after if moved else before)


async def test_what_is_part_filled_is_never_pending_again_by_way_of_unknown(database: Database) -> None:
    part = msgspec.structs.replace(order(status=OrderStatus.UNKNOWN), filled_quantity=Decimal("0.005"))
    await database.insert_order(part)
    assert await database.update_order_status("o1", OrderStatus.PENDING) is False


async def test_a_backward_move_leaves_the_fill_time_alone(database: Database) -> None:
    await database.insert_order(order(status=OrderStatus.FILLED))
    await database.update_order_status("o1", OrderStatus.PENDING, filled_at=START)
    assert (await status_of(database)).filled_at is None


async def test_an_unknown_order_is_an_error(database: Database) -> None:
    with pytest.raises(UnknownOrder, match="nobody"):
        await database.update_order_status("nobody", OrderStatus.FILLED)


async def test_an_order_of_a_signal_that_does_not_exist_is_refused(database: Database) -> None:
    with pytest.raises(DatabaseError, match="rule of the tables"):
        await database.insert_order(order(signal_id="never stored"))
    assert await database.count_rows(OrderRow) == 0


async def test_a_word_that_is_no_status_is_refused(database: Database) -> None:
    await database.insert_order(order())
    with pytest.raises(ValueError, match="DONE"):
        await database.update_order_status("o1", "DONE")
    with pytest.raises(DatabaseError, match="rule of the tables"):
        async with database.get_session() as session:
            await session.execute(text("UPDATE orders SET status = 'DONE'"))


# --- transactions ------------------------------------------------------------------------------------------------


async def test_an_error_inside_a_session_undoes_all_of_it(database: Database) -> None:
    async def fail_half_way() -> None:
        async with database.get_session() as session:
            await database.upsert_candles([candle(0)], session)
            await database.write_cursors(session, {"collector/watermark": 1})
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        await fail_half_way()
    assert await database.count_rows(CandleRow) == 0
    assert await database.read_cursors() == {}


async def test_a_cancelled_writer_leaves_nothing_and_blocks_nobody(database: Database) -> None:
    inside = asyncio.Event()

    async def write_for_ever() -> None:
        async with database.get_session() as session:
            await database.upsert_candles([candle(0)], session)
            inside.set()
            await asyncio.Event().wait()

    writer = asyncio.create_task(write_for_ever())
    await inside.wait()
    writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writer
    assert (await database.upsert_candles([candle(1)])).inserted == 1
    assert await database.read_candles("BTC/USDT", "1m") == [candle(1)]


async def test_writers_cancelled_at_any_moment_leave_the_database_usable(database: Database) -> None:
    for step in range(30):
        writer = asyncio.create_task(database.upsert_candles([candle(step)]))
        for _ in range(step):
            await asyncio.sleep(0)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
    assert (await database.upsert_candles([candle(100)])).inserted == 1


async def test_two_writers_lose_no_update(database: Database, database_url: str) -> None:
    other = Database(database_url)
    async with database.get_session() as session:
        await database.write_cursors(session, {"counter": 0})

    async def count_up(owner: Database) -> None:
        async def one(session: AsyncSession) -> None:
            found = await owner.read_cursors("counter", session)
            await owner.write_cursors(session, {"counter": int(found["counter"]) + 1})

        for _ in range(15):
            await owner.run_transaction(one, attempts_max=100)

    await asyncio.gather(count_up(database), count_up(other), count_up(database))
    await other.close()
    assert await database.read_cursors("counter") == {"counter": "45"}


async def test_a_conflict_is_tried_a_bounded_number_of_times(database: Database) -> None:
    tries = 0

    async def always_in_the_way(session: AsyncSession) -> None:
        nonlocal tries
        tries += 1
        raise DatabaseUnavailable("another transaction came first")

    with pytest.raises(DatabaseUnavailable):
        await database.run_transaction(always_in_the_way, attempts_max=3)
    assert tries == 3


async def test_what_cannot_be_mended_by_repeating_is_not_repeated(database: Database) -> None:
    tries = 0

    async def broken(session: AsyncSession) -> None:
        nonlocal tries
        tries += 1
        await session.execute(text("SELECT * FROM no_such_table"))

    with pytest.raises(DatabaseError, match="trading db upgrade"):
        await database.run_transaction(broken)
    assert tries == 1


async def test_a_reader_sees_one_moment_while_the_writer_goes_on(database: Database) -> None:
    await database.upsert_candles([candle(0)])
    async with database.read() as session:
        assert len(await database.read_candles("BTC/USDT", "1m", session=session)) == 1
        await database.upsert_candles([candle(1)])
        assert len(await database.read_candles("BTC/USDT", "1m", session=session)) == 1
    assert len(await database.read_candles("BTC/USDT", "1m")) == 2


async def test_a_reader_does_not_wait_for_an_open_transaction(database: Database) -> None:
    async with database.get_session() as session:
        await database.upsert_candles([candle(0)], session)
        assert await database.get_candles("BTC/USDT", "1m") == []


@pytest.mark.parametrize("readonly", [True, False])
async def test_a_read_only_session_writes_nothing(database: Database, readonly: bool) -> None:
    session_of = database.get_session(readonly=True) if readonly else database.read()
    with pytest.raises(DatabaseError, match="read-only"):
        async with session_of as session:
            await session.execute(text("INSERT INTO cursors (name, value) VALUES ('a', 'b')"))
    assert await database.read_cursors() == {}


async def test_ping_answers(database: Database) -> None:
    assert await database.ping() is True


# --- cursors and outbox ------------------------------------------------------------------------------------------


async def test_cursors_are_read_by_their_beginning(database: Database) -> None:
    async with database.get_session() as session:
        await database.write_cursors(session, {"engine/watermark": 5, "engine/candles/A_B/1m": "7", "engine%": 1})
        await database.write_cursors(session, {"engine/watermark": 6})
        await database.write_cursors(session, {})
    assert await database.read_cursors("engine/") == {"engine/candles/A_B/1m": "7", "engine/watermark": "6"}
    assert await database.read_cursors("engine%") == {"engine%": "1"}


async def test_a_message_waits_until_it_is_acknowledged(database: Database) -> None:
    rows = [{"topic": "signals", "key": f"k{n}", "payload": f"p{n}", "as_of": START} for n in range(5)]
    async with database.get_session() as session:
        assert await database.append_outbox(session, rows) == 5
        assert await database.append_outbox(session, [{"topic": "orders", "key": "k0", "payload": "x"}]) == 1
    pending = await database.pending_outbox("signals", 3)
    assert [(each.key, each.payload, each.as_of, each.sent_at) for each in pending] == [
        (f"k{n}", f"p{n}", START, None) for n in range(3)
    ]
    assert [each.key for each in await database.pending_outbox("signals", 9, after_id=pending[-1].id)] == ["k3", "k4"]
    assert await database.mark_outbox_sent([each.id for each in pending]) == 3
    assert (await database.pending_outbox("signals", 1))[0].sent_at is not None
    async with database.get_session() as session:
        assert await database.ack_outbox(session, "signals", ["k0", "k1", "nobody"]) == 2
        assert await database.ack_outbox(session, "signals", ["k0"]) == 0
    assert [each.key for each in await database.pending_outbox("signals", 9)] == ["k2", "k3", "k4"]
    assert [each.key for each in await database.pending_outbox("orders", 9)] == ["k0"]


async def test_acknowledged_messages_are_pruned_and_ids_never_used_again(database: Database) -> None:
    row = {"topic": "signals", "key": "k", "payload": "p"}
    async with database.get_session() as session:
        await database.append_outbox(session, [{**row, "key": str(n)} for n in range(1200)])
        await database.ack_outbox(session, "signals", [str(n) for n in range(1100, 1200)])
        last = (await session.execute(select(func.max(OutboxRow.id)))).scalar_one()
    future = datetime(2999, 1, 1, tzinfo=UTC)
    assert await database.prune_outbox("signals", START) == 0
    assert await database.prune_outbox("signals", future, limit=30) == 30
    assert await database.prune_outbox("signals", future) == 70
    assert await database.count_rows(OutboxRow) == 1100
    async with database.get_session() as session:
        await database.append_outbox(session, [row])
        assert (await session.execute(select(func.max(OutboxRow.id)))).scalar_one() > last


# --- any rows ----------------------------------------------------------------------------------------------------


async def test_rows_are_inserted_and_known_ones_left_alone(database: Database) -> None:
    async with database.get_session() as session:
        assert await database.insert_rows(session, CursorRow, []) == 0
        assert await database.insert_rows(session, CursorRow, [{"name": "a", "value": "1"}]) == 1
        both = [{"name": "a", "value": "2"}, {"name": "b", "value": "2"}]
        assert await database.insert_rows(session, CursorRow, both, ignore_conflicts=True) == 1
    assert await database.read_cursors() == {"a": "1", "b": "2"}
    with pytest.raises(DatabaseError, match="rule of the tables"):
        async with database.get_session() as session:
            await database.insert_rows(session, CursorRow, both)


async def test_rows_with_one_key_are_overwritten_by_the_last(database: Database) -> None:
    async with database.get_session() as session:
        await database.upsert_rows(session, CursorRow, [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}])
        await database.upsert_rows(session, CursorRow, [{"name": "b", "value": "1"}, {"name": "a", "value": "3"}])
    assert await database.read_cursors() == {"a": "3", "b": "1"}


async def test_only_the_named_columns_are_overwritten(database: Database) -> None:
    first = {
        "symbol": "BTC/USDT",
        "quantity": Decimal(1),
        "avg_entry_price": Decimal(10),
        "current_price": Decimal(10),
        "updated_at": START,
    }
    async with database.get_session() as session:
        await database.upsert_rows(session, PositionRow, [first])
        second = {**first, "quantity": Decimal(9), "current_price": Decimal("11.5")}
        await database.upsert_rows(session, PositionRow, [second], ["current_price"])
    async with database.read() as session:
        row = (await session.execute(select(PositionRow))).scalar_one()
    assert (row.quantity, row.current_price) == (1, Decimal("11.5"))


async def test_many_columns_nulls_and_truths_survive_the_bulk_way(database: Database) -> None:
    rows = [
        {
            "id": f"o{n}",
            "signal_id": None,
            "symbol": "BTC/USDT",
            "side": OrderSide.SELL,
            "type": "MARKET",
            "price": Decimal(n),
            "quantity": Decimal("1E-18"),
            "status": OrderStatus.FILLED,
            "created_at": START,
            "filled_at": START if n % 2 else None,
            "avg_fill_price": Decimal("0.1") if n % 2 else None,
            "late": bool(n % 2),
            "as_of": START,
        }
        for n in range(300)
    ]
    async with database.get_session() as session:
        assert await database.insert_rows(session, OrderRow, rows) == 300
        fills = [
            {
                "id": f"t{n}",
                "order_id": f"o{n}",
                "symbol": "BTC/USDT",
                "side": "SELL",
                "price": Decimal(1),
                "quantity": Decimal(1),
                "fee": Decimal(0),
                "fee_asset": "USDT",
                "traded_at": START,
                "as_of": START,
                "sequence": 2**40 + n,
                "venue_trade_id": "same",
            }
            for n in range(3)
        ]
        assert await database.insert_rows(session, TradeRow, [*fills, fills[0]], ignore_conflicts=True) == 3
    row = await status_of(database, "o1")
    assert (row.late, row.filled_at, row.avg_fill_price, row.quantity) == (
        True,
        START,
        Decimal("0.1"),
        Decimal("1E-18"),
    )
    row = await status_of(database, "o2")
    assert (row.late, row.filled_at, row.avg_fill_price, row.purpose) == (False, None, None, "signal")


async def test_rows_of_one_call_share_their_columns(database: Database) -> None:
    with pytest.raises(AssertionError, match="share"):
        async with database.get_session() as session:
            await database.insert_rows(session, CursorRow, [{"name": "a", "value": "1"}, {"name": "b"}])
    with pytest.raises(AssertionError, match="no column colour"):
        async with database.get_session() as session:
            await database.insert_rows(session, CursorRow, [{"name": "a", "colour": "1"}])


# --- one mode a database -----------------------------------------------------------------------------------------


async def test_a_database_holds_one_mode(database: Database) -> None:
    await database.stamp_mode("paper", "USDT", build="0.1.0")
    await database.stamp_mode("paper", "USDT", build="0.2.0")
    with pytest.raises(ConfigError, match=r"holds mode 'paper'.*'live'"):
        await database.stamp_mode("live", "USDT")
    with pytest.raises(ConfigError, match=r"quote_asset 'USDT'.*'EUR'"):
        await database.stamp_mode("paper", "EUR")
    stamps = await database.stamps()
    assert (stamps["mode"], stamps["quote_asset"], stamps["build"]) == ("paper", "USDT", "0.1.0")

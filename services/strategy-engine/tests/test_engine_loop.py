"""The durable engine: stored candles in, signals, cursors and states out in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from shared.broker_memory import MemoryBroker
from shared.clock import ManualClock
from shared.db import Database
from shared.errors import DatabaseUnavailable
from shared.events import SignalEvent, candle_stream
from shared.models import Candle, InstanceKey, Signal, to_milliseconds
from shared.sa_models import DeadLetterRow, OutboxRow, SignalRow, StrategyStateRow
from shared.testing.builders import BTC, ETH, candle
from strategies.rsi_strategy import RsiStrategy

from .conftest import BuildLoop, Store, SwingStrategy, runner

ALPHA = InstanceKey("alpha", BTC, "1m")
BETA = InstanceKey("beta", BTC, "1m")
GAMMA = InstanceKey("alpha", ETH, "1m")
SLOW = InstanceKey("alpha", BTC, "5m")
RSI = InstanceKey("rsi", BTC, "1m")


def wave(count: int) -> list[Candle]:
    """Return candles that go up and down, so that every one but the first makes a signal."""
    return [candle(number, 100 + number % 3 + number % 7) for number in range(count)]


async def rows_of(database: Database, row: Any) -> list[Any]:
    async with database.read() as session:
        return list((await session.execute(select(row))).scalars())


async def signals_of(database: Database) -> list[tuple[str, str, str, str]]:
    rows = await rows_of(database, SignalRow)
    return sorted((row.created_at.isoformat(), row.strategy, row.symbol, row.side + " " + row.reason) for row in rows)


async def run_dry(loop: Any) -> None:
    while await loop.step():
        pass


async def test_one_step_stores_signals_messages_cursors_and_watermark(
    database: Database, store: Store, loop_of: BuildLoop, bus: MemoryBroker
) -> None:
    await store([candle(0, 100), candle(1, 101)])

    assert await loop_of([runner(ALPHA)]).step()

    signal = (await rows_of(database, SignalRow))[0]
    message = (await rows_of(database, OutboxRow))[0]
    assert (signal.strategy, signal.side, signal.price, signal.mode) == ("alpha", "BUY", Decimal(101), "paper")
    assert signal.created_at == candle(1).close_time
    assert signal.expires_at == candle(1).close_time + timedelta(minutes=5)
    assert (message.topic, message.key, message.as_of) == ("signals", signal.id, candle(1).close_time)
    assert SignalEvent.decode(message.payload).data.id == signal.id
    assert await database.read_cursors("engine/") == {
        "engine/candles/BTC/USDT/1m": str(to_milliseconds(candle(1).open_time)),
        "engine/watermark": str(to_milliseconds(candle(1).close_time)),
    }
    bell = (await bus.read("watermarks"))[0].event
    assert bell is not None
    assert (bell.data.service, bell.as_of) == ("strategy-engine", candle(1).close_time)


async def test_a_close_time_is_handled_symbol_by_symbol_then_by_strategy(
    database: Database, store: Store, loop_of: BuildLoop
) -> None:
    streams = [(ETH, "1m"), (BTC, "1m")]
    await store([candle(n, 100 + n, symbol=symbol) for n in range(2) for symbol, _ in streams])

    await loop_of([runner(GAMMA), runner(BETA), runner(ALPHA)]).step()

    keys = [row.key for row in await rows_of(database, OutboxRow)]
    by_id = {row.id: (row.symbol, row.strategy) for row in await rows_of(database, SignalRow)}
    assert [by_id[key] for key in keys] == [(BTC, "alpha"), (BTC, "beta"), (ETH, "alpha")]


@pytest.mark.parametrize("sizes", [[60], [7, 1, 20, 32]])
async def test_pages_and_restarts_give_the_signals_of_a_single_pass(
    database: Database, store: Store, loop_of: BuildLoop, sizes: list[int]
) -> None:
    candles = wave(60)
    single = [SwingStrategy(), RsiStrategy({"period": 3})]
    expected = [(each.open_time, strategy.on_candle(each)) for each in candles for strategy in single]

    start = 0
    for size in sizes:
        await store(candles[start : start + size])
        start += size
        await run_dry(loop_of([runner(ALPHA), runner(RSI, RsiStrategy({"period": 3}))], batch_rows_max=2))

    found = {(row.candle_open_time, row.side, row.reason) for row in await rows_of(database, SignalRow)}
    assert found == {(moment, signal.side, signal.reason) for moment, signal in expected if signal is not None}
    assert len(found) > 40
    states = {row.strategy: (row.state, row.candles_seen) for row in await rows_of(database, StrategyStateRow)}
    assert states == {"rsi": (single[1].snapshot(), 60)}


async def test_a_failing_commit_leaves_nothing_and_the_next_step_repeats_it(
    database: Database, store: Store, loop_of: BuildLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(wave(6))
    compiled = RsiStrategy({"period": 2})
    loop = loop_of([runner(ALPHA), runner(RSI, compiled)], batch_rows_max=3)
    await loop.step()
    stored = await signals_of(database)
    write = database.write_cursors

    async def fail(*_: Any) -> None:
        raise DatabaseUnavailable("cut off")

    monkeypatch.setattr(database, "write_cursors", fail)
    with pytest.raises(DatabaseUnavailable):
        await loop.step()
    assert await signals_of(database) == stored
    monkeypatch.setattr(database, "write_cursors", write)

    await run_dry(loop)

    reasons = [each[3] for each in await signals_of(database) if each[1] == "alpha"]
    assert [reason.split()[2] for reason in reasons] == ["2:", "3:", "4:", "5:", "6:"]
    assert compiled.candle_count == 6


async def test_a_checkpoint_is_taken_up_bit_for_bit_without_the_candles(
    database: Database, store: Store, loop_of: BuildLoop
) -> None:
    await store(wave(20))
    before, after = RsiStrategy({"period": 3}), RsiStrategy({"period": 3})
    await run_dry(loop_of([runner(RSI, before)]))

    restored = runner(RSI, after)
    await loop_of([restored]).load()

    assert after.snapshot() == before.snapshot()
    assert restored.candles_seen == 20


async def test_words_no_database_takes_are_made_storable(database: Database, store: Store, loop_of: BuildLoop) -> None:
    class Odd(SwingStrategy):
        def on_candle(self, candle: Candle) -> Signal | None:
            return self.buy(candle, "a\x00b \ud800 " + "x" * 9000)

    await store(wave(3))

    await run_dry(loop_of([runner(ALPHA, Odd())]))

    reason = (await rows_of(database, SignalRow))[0].reason
    assert reason.startswith("ab ? xxx")
    assert len(reason) == 500


async def test_what_cannot_be_read_on_the_bus_is_a_dead_letter_row_and_their_number_is_bounded(
    database: Database, loop_of: BuildLoop, bus: MemoryBroker, until_handled: Callable[..., Any]
) -> None:
    stream = candle_stream(BTC, "1m")
    for number in range(8):
        await bus.publish(stream, b"rubbish \x00 %d" % number)
    clock = ManualClock()

    await until_handled(loop_of([runner(ALPHA)], clock=clock, dead_letters_max=5), clock, bus, stream)

    rows = await rows_of(database, DeadLetterRow)
    assert len(rows) == 5
    assert {(row.stream, row.consumer) for row in rows} == {(stream, "strategy-engine")}
    assert all(row.reason.startswith("event: cannot be read") and "rubbish" in row.payload for row in rows)
    assert len(await bus.read_dead_letters()) == 8


async def test_a_late_live_candle_is_handled_when_it_comes(database: Database, loop_of: BuildLoop) -> None:
    clock = ManualClock()
    loop = loop_of([runner(ALPHA), runner(GAMMA)], clock=clock, is_deterministic=False)
    await database.upsert_candles([candle(0, 100), candle(0, 5, symbol=ETH)])
    await run_dry(loop)
    await database.upsert_candles([candle(1, 101)])
    await loop.step()
    await clock.advance(2.1)
    await run_dry(loop)
    watermark = await database.read_cursors("engine/watermark")

    await database.upsert_candles([candle(1, 6, symbol=ETH)])
    await run_dry(loop)

    assert {each[2] for each in await signals_of(database)} == {BTC, ETH}
    assert await database.read_cursors("engine/watermark") == watermark


class ChattyStrategy(SwingStrategy):
    def notices(self) -> list[str]:
        return [f"its filter muted {self.seen} candles"]


async def test_what_a_person_should_know_of_a_strategy_is_logged_once(store: Store, loop_of: BuildLoop) -> None:
    loop = loop_of([runner(ALPHA, ChattyStrategy())], batch_rows_max=1)
    await store([candle(0, 100), candle(1, 101), candle(1500, 100), candle(3000, 101)])
    with capture_logs() as records:
        await run_dry(loop)
    told = [(each["log_level"], each["instance"]) for each in records if each["event"] == "strategy.notice"]
    assert told == [("warning", str(ALPHA))]

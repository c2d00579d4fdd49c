"""What a strategy, a stream or the bus can do wrong, and how little of it the engine lets through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import select

from shared.broker_memory import MemoryBroker
from shared.clock import ManualClock
from shared.db import Database
from shared.errors import DatabaseUnavailable
from shared.events import CandleEvent, candle_stream
from shared.models import Candle, InstanceKey, OrderSide, Signal
from shared.sa_models import SignalRow
from shared.strategy import BaseStrategy
from shared.testing.builders import BTC, ETH, candle
from strategies.rsi_strategy import RsiStrategy

from .conftest import BuildLoop, Store, SwingStrategy, runner

pytestmark = pytest.mark.thorough

ALPHA = InstanceKey("alpha", BTC, "1m")
BETA = InstanceKey("beta", BTC, "1m")
GAMMA = InstanceKey("alpha", ETH, "1m")
SLOW = InstanceKey("alpha", BTC, "5m")
RSI = InstanceKey("rsi", BTC, "1m")


class Looping(SwingStrategy):
    """Never comes back from its second candle."""

    def on_candle(self, candle: Candle) -> Signal | None:
        super().on_candle(candle)
        while self.seen == 2:
            pass
        return self.buy(candle, "fine")


class Leaving(SwingStrategy):
    def on_candle(self, candle: Candle) -> Signal | None:  # noqa: ARG002
        raise SystemExit("goodbye")


class Raising(SwingStrategy):
    def on_candle(self, candle: Candle) -> Signal | None:  # noqa: ARG002
        raise KeyError("a mistake")


class Rubbish(SwingStrategy):
    """Returns whatever it was told to."""

    answer: Any = None

    def on_candle(self, candle: Candle) -> Signal | None:  # noqa: ARG002
        return self.answer  # type: ignore[no-any-return]


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


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    """Give a database on SQLite alone: what is told here does not depend on the server."""
    database = Database(sqlite_url)
    yield database
    await database.close()


async def test_without_candles_there_is_nothing_to_do(database: Database, loop_of: BuildLoop) -> None:
    assert not await loop_of([runner(ALPHA)]).step()


async def test_changed_parameters_start_from_the_stored_candles(
    database: Database, store: Store, loop_of: BuildLoop
) -> None:
    await store(wave(20))
    await run_dry(loop_of([runner(RSI, RsiStrategy({"period": 3}), config_hash="a")]))
    changed, fresh = RsiStrategy({"period": 5}), RsiStrategy({"period": 5})
    for each in wave(20):
        fresh.on_candle(each)

    loop = loop_of([runner(RSI, changed, config_hash="b")])
    await loop.load()

    assert changed.snapshot() == fresh.snapshot()


async def test_an_instance_that_joins_later_is_fed_the_past_in_silence(
    database: Database, store: Store, loop_of: BuildLoop
) -> None:
    await store(wave(10))
    await run_dry(loop_of([runner(ALPHA)]))
    joined = SwingStrategy()

    await run_dry(loop_of([runner(ALPHA), runner(BETA, joined)]))

    assert joined.seen == 10
    assert {each[1] for each in await signals_of(database)} == {"alpha"}


def told(**changes: Any) -> Signal:
    plain = {"strategy": "x", "symbol": BTC, "side": OrderSide.BUY, "price": Decimal(5), "quantity": Decimal(1)}
    return Signal(**{**plain, **changes})


@pytest.mark.parametrize(
    "answer",
    [
        "BUY",
        1,
        told(price=Decimal("NaN")),
        told(price=Decimal("1e30")),
        told(quantity=-1),
        told(quantity=0),
        told(side="HOLD"),
        told(symbol=ETH),
    ],
    ids=["text", "number", "no price", "huge price", "negative quantity", "no quantity", "no side", "other symbol"],
)
async def test_a_strategy_that_answers_rubbish_is_put_aside(
    database: Database, store: Store, loop_of: BuildLoop, answer: Any
) -> None:
    class Told(Rubbish):
        pass

    Told.answer = answer
    await store(wave(5))
    faulty = runner(BETA, Told())
    loop = loop_of([runner(ALPHA), faulty])

    await run_dry(loop)

    assert faulty.fault
    assert len(await signals_of(database)) == 4
    assert loop.notices() == [f"{BETA}: put aside, {faulty.fault}"]


@pytest.mark.parametrize("kind", [Looping, Leaving, Raising])
async def test_a_strategy_that_does_not_answer_is_put_aside(
    database: Database, store: Store, loop_of: BuildLoop, registry: CollectorRegistry, kind: type[BaseStrategy]
) -> None:
    await store(wave(5))
    faulty = runner(BETA, kind(), call_seconds_max=0.05)

    await run_dry(loop_of([runner(ALPHA), faulty]))

    assert faulty.fault
    assert {each[1] for each in await signals_of(database)} == {"alpha"}
    labels = {"service": "strategy-engine", "error_type": "StrategyFault"}
    assert registry.get_sample_value("trading_errors_total", labels) == 1


async def test_a_forged_candle_on_the_bus_is_not_traded(
    database: Database, store: Store, loop_of: BuildLoop, bus: MemoryBroker
) -> None:
    loop = loop_of([runner(ALPHA)])
    await store([candle(0, 100)])
    await run_dry(loop)
    await bus.publish(candle_stream(BTC, "1m"), CandleEvent(data=candle(1, 900)))

    await run_dry(loop)
    await store([candle(1, 99)])
    await run_dry(loop)

    assert [each[3] for each in await signals_of(database)] == ["SELL candle 2: 100 to 99"]


async def test_a_silent_bus_changes_nothing(
    database: Database, store: Store, loop_of: BuildLoop, bus: MemoryBroker
) -> None:
    await store(wave(5))
    bus.is_available = False

    await run_dry(loop_of([runner(ALPHA)]))

    assert len(await signals_of(database)) == 4


async def test_a_deterministic_feed_waits_for_ever_for_a_silent_stream(
    database: Database, store: Store, loop_of: BuildLoop
) -> None:
    clock = ManualClock()
    loop = loop_of([runner(ALPHA), runner(GAMMA)], clock=clock)
    await store([candle(0, 100), candle(0, 5, symbol=ETH)])
    await run_dry(loop)
    await database.upsert_candles([candle(1, 101)])  # no watermark: ETH may still come

    await clock.advance(3600)

    assert not await loop.step()


async def test_a_live_feed_waits_two_seconds_and_goes_on_without_a_silent_stream(
    database: Database, loop_of: BuildLoop
) -> None:
    clock = ManualClock()
    loop = loop_of([runner(ALPHA), runner(GAMMA)], clock=clock, is_deterministic=False)
    await database.upsert_candles([candle(0, 100), candle(0, 5, symbol=ETH)])
    assert await loop.step()
    await database.upsert_candles([candle(1, 101)])

    assert not await loop.step()
    await clock.advance(1.9)
    assert not await loop.step()
    await clock.advance(0.2)
    assert await loop.step()
    assert [each[3] for each in await signals_of(database)] == ["BUY candle 2: 100 to 101"]


async def test_a_live_close_time_waits_only_for_timeframes_that_close_at_it(
    database: Database, loop_of: BuildLoop
) -> None:
    loop = loop_of([runner(ALPHA), runner(SLOW)], is_deterministic=False)
    await database.upsert_candles([candle(0, 100)])

    assert await loop.step()


async def test_the_watermark_never_goes_back(database: Database, store: Store, loop_of: BuildLoop) -> None:
    loop = loop_of([runner(ALPHA)])
    await store(wave(5))
    await run_dry(loop)
    await store([candle(0)], watermark=candle(1).close_time)  # type: ignore[call-arg]

    assert not await loop.step()


async def test_handled_candles_and_signals_are_counted(
    database: Database, store: Store, loop_of: BuildLoop, registry: CollectorRegistry
) -> None:
    await store(wave(5))

    await run_dry(loop_of([runner(ALPHA)]))

    service = {"service": "strategy-engine"}
    counted = registry.get_sample_value("trading_events_processed_total", {**service, "event_type": "candle"})
    said = [
        registry.get_sample_value("trading_signals_total", {**service, "strategy": "alpha", "side": side}) or 0
        for side in ("BUY", "SELL")
    ]
    assert counted == 5
    assert sum(said) == 4
    assert registry.get_sample_value("trading_lag_seconds", {**service, "stream": "candles"}) == 0


async def test_a_lasting_run_gets_over_a_database_that_goes_away(
    database: Database,
    store: Store,
    loop_of: BuildLoop,
    bus: MemoryBroker,
    until_handled: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await store(wave(5))
    clock = ManualClock()
    failures = iter([DatabaseUnavailable("away"), DatabaseUnavailable("still away")])
    write = database.write_cursors

    async def flaky(*args: Any) -> None:
        for failure in failures:
            raise failure
        await write(*args)

    monkeypatch.setattr(database, "write_cursors", flaky)

    async def is_done() -> bool:
        return len(await signals_of(database)) == 4

    await until_handled(loop_of([runner(ALPHA)], clock=clock), clock, bus, is_done=is_done)

    assert [each[3].split()[2] for each in await signals_of(database)] == ["2:", "3:", "4:", "5:"]

"""Live orders fill at the first frame of the next candle: at once, once, and at the price the closed candle gives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from order_executor.loop import ExecutorLoop
from shared.broker_memory import MemoryBroker
from shared.clock import ManualClock
from shared.db import Database
from shared.events import CandleOpened, Event, opened_stream
from shared.models import Candle
from shared.sa_models import AccountRow, DecisionRow, OrderRow, PositionRow, StrategyPositionRow, TradeRow
from shared.testing.builders import BTC, candle, signal
from shared.testing.waiting import until, until_done

from .conftest import BuildLoop, Market, config_of, rows_of, run_dry

D = Decimal


async def tell_open(bus: MemoryBroker, one: Candle, price: str | None = None) -> None:
    text = price if price is not None else str(one.open)
    opened = CandleOpened(symbol=one.symbol, timeframe=one.timeframe, open_time=one.open_time, open=text)
    await bus.publish(opened_stream(one.symbol, one.timeframe), Event(data=opened, as_of=one.open_time))


@pytest.fixture
def live_loop(loop_of: BuildLoop) -> tuple[ExecutorLoop, ManualClock]:
    clock = ManualClock()
    return loop_of(config_of(is_deterministic=False), clock=clock), clock


async def listen(live: tuple[ExecutorLoop, ManualClock], is_done: Callable[[], Awaitable[bool]]) -> None:
    """Run the loop as it runs in service until `is_done`."""
    loop, clock = live
    stop = asyncio.Event()
    running = asyncio.create_task(loop.run(stop))
    await until(is_done, clock=clock)
    stop.set()
    await until_done(running, clock)


async def statuses(database: Database) -> list[str]:
    return [row.status for row in await rows_of(database, OrderRow, "created_at")]


async def test_an_order_is_booked_while_the_candle_of_its_fill_is_still_forming(
    database: Database, market: Market, live_loop: Any, bus: MemoryBroker
) -> None:
    await market([candle(0)], [signal("BUY", 0)])
    await run_dry(live_loop[0])
    assert await statuses(database) == ["PENDING"]
    await tell_open(bus, candle(1, 107))

    async def is_filled() -> bool:
        return await statuses(database) == ["FILLED"]

    await listen(live_loop, is_filled)
    (trade,) = await rows_of(database, TradeRow)
    assert (trade.price, trade.traded_at, trade.as_of) == (107, candle(1).open_time, candle(1).open_time)

    (account,), (position,) = await rows_of(database, AccountRow), await rows_of(database, PositionRow)
    assert account.equity == account.cash + position.quantity * position.current_price  # the fee has left it already

    await market([candle(1, 107, 109)])
    await run_dry(live_loop[0])
    assert len(await rows_of(database, TradeRow)) == 1
    assert (await rows_of(database, StrategyPositionRow))[0].quantity == 1


async def test_an_open_that_is_known_before_its_order_fills_it_as_soon_as_it_exists(
    database: Database, market: Market, live_loop: Any, bus: MemoryBroker
) -> None:
    await market([candle(0)])
    await run_dry(live_loop[0])
    await tell_open(bus, candle(1, 107))
    await market((), [signal("BUY", 0)], candle(0).close_time)

    async def is_filled() -> bool:
        return await statuses(database) == ["FILLED"]

    await listen(live_loop, is_filled)
    assert [row.price for row in await rows_of(database, TradeRow)] == [107]


async def test_an_open_beyond_a_hole_fills_nothing_before_the_candles_between_are_there(
    database: Database, market: Market, live_loop: Any, bus: MemoryBroker
) -> None:
    await market([candle(0)], [signal("BUY", 0)])
    await run_dry(live_loop[0])
    await tell_open(bus, candle(3, 130))

    async def is_heard() -> bool:
        return await bus.lag("order-executor", opened_stream(BTC, "1m")) == 0

    await listen(live_loop, is_heard)
    assert await statuses(database) == ["PENDING"]
    await market([candle(1, 107)])
    await run_dry(live_loop[0])
    assert [row.price for row in await rows_of(database, TradeRow)] == [107]


@pytest.mark.parametrize("price", ["NaN", "-1", "abc", "Infinity", "0"])
async def test_an_open_without_a_price_fills_nothing(
    database: Database, market: Market, live_loop: Any, bus: MemoryBroker, price: str
) -> None:
    await market([candle(0)], [signal("BUY", 0)])
    await run_dry(live_loop[0])
    await tell_open(bus, candle(1), price)

    async def is_heard() -> bool:
        return await bus.lag("order-executor", opened_stream(BTC, "1m")) == 0

    await listen(live_loop, is_heard)
    assert await statuses(database) == ["PENDING"]
    assert len(await rows_of(database, DecisionRow)) <= 1

"""The engine on the bus alone: candles in, signals out, no database."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from shared.broker_memory import MemoryBroker
from shared.errors import BrokerError
from shared.events import CandleEvent, EventType, OrderEvent, candle_stream
from shared.models import Candle, Order, OrderSide, Signal
from shared.strategy import BaseStrategy, StrategyParams
from shared.testing.builders import BTC, ETH, candle
from strategy_engine.engine import StrategyEngine

from .conftest import SwingStrategy

STREAM = candle_stream(BTC, "1m")


class Eager(BaseStrategy):
    """Speaks at every candle, from the third on as far as the gate is concerned."""

    class Params(StrategyParams):
        """With one parameter of its own."""

        level: int = 1

    @property
    def warmup_period(self) -> int:
        return 3

    def on_candle(self, candle: Candle) -> Signal | None:
        return self.buy(candle, f"level {self.params.level}")  # type: ignore[attr-defined]


class Poisoned(BaseStrategy):
    """Raises at its third candle."""

    count = 0

    @property
    def warmup_period(self) -> int:
        return 1

    def on_candle(self, candle: Candle) -> Signal | None:
        self.count += 1
        if self.count == 3:
            raise ZeroDivisionError("three")
        return self.sell(candle, "fine")


async def publish(bus: MemoryBroker, *candles: Candle) -> None:
    for each in candles:
        await bus.publish(candle_stream(each.symbol, each.timeframe), CandleEvent(data=each))


async def signals_of(bus: MemoryBroker) -> list[Signal]:
    return [message.event.data for message in await bus.read("signals", "0", count=1000) if message.event]


async def test_candles_of_the_bus_become_signals_on_the_bus(bus: MemoryBroker) -> None:
    await publish(bus, candle(0, 100), candle(1, 101), candle(2, 99))

    last_id = await StrategyEngine(bus, [SwingStrategy()]).process_once(STREAM, "0")

    signals = await signals_of(bus)
    assert [(each.side, each.price) for each in signals] == [(OrderSide.BUY, Decimal(101)), (OrderSide.SELL, 99)]
    assert signals[0].symbol == BTC
    assert signals[0].timeframe == "1m"
    assert signals[0].created_at == candle(1).close_time
    assert signals[0].expires_at is not None
    assert last_id == (await bus.read(STREAM, "0", count=10))[-1].id


async def test_nothing_new_gives_back_the_place_it_was_given(bus: MemoryBroker) -> None:
    assert await StrategyEngine(bus, [SwingStrategy()]).process_once(STREAM, "7-0") == "7-0"


async def test_a_second_call_goes_on_where_the_first_stopped(bus: MemoryBroker) -> None:
    engine = StrategyEngine(bus, [SwingStrategy()])
    await publish(bus, candle(0, 100))
    last_id = await engine.process_once(STREAM, "0")
    await publish(bus, candle(1, 101))

    await engine.process_once(STREAM, last_id)

    assert [each.side for each in await signals_of(bus)] == [OrderSide.BUY]


async def test_signals_before_the_warm_up_is_over_are_dropped(bus: MemoryBroker) -> None:
    await publish(bus, *(candle(number) for number in range(4)))

    await StrategyEngine(bus, [Eager()]).process_once(STREAM, "0")

    assert [each.candle_open_time for each in await signals_of(bus)] == [candle(2).open_time, candle(3).open_time]


async def test_two_symbols_share_no_state(bus: MemoryBroker) -> None:
    engine = StrategyEngine(bus, [SwingStrategy()])
    await publish(bus, candle(0, 100), candle(0, 5, symbol=ETH), candle(1, 101), candle(1, 6, symbol=ETH))

    await engine.process_once(STREAM, "0")
    await engine.process_once(candle_stream(ETH, "1m"), "0")

    reasons = {each.symbol: each.reason for each in await signals_of(bus)}
    assert reasons == {BTC: "candle 2: 100 to 101", ETH: "candle 2: 5 to 6"}


async def test_the_given_strategy_is_a_template_that_is_never_fed(bus: MemoryBroker) -> None:
    template = SwingStrategy()
    await publish(bus, candle(0, 100), candle(1, 101))

    await StrategyEngine(bus, [template]).process_once(STREAM, "0")

    assert template.seen == 0


async def test_a_symbol_with_parameters_of_its_own_gets_them(bus: MemoryBroker) -> None:
    template = Eager({"level": 4})
    template.given_params, template.symbol_params = {"level": 4}, {ETH: {"level": 9}}
    engine = StrategyEngine(bus, [template])
    await publish(bus, *(candle(number) for number in range(3)), *(candle(n, symbol=ETH) for n in range(3)))

    await engine.process_once(STREAM, "0")
    await engine.process_once(candle_stream(ETH, "1m"), "0")

    assert [each.reason for each in await signals_of(bus)] == ["level 4", "level 9"]


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        b"[]",
        b'{"version": 99, "type": "candle"}',
        b'{"version": 1, "type": "horoscope", "id": "1", "data": {}}',
        OrderEvent(data=Order(symbol=BTC, side=OrderSide.BUY, price=Decimal(1), quantity=Decimal(1))).encode(),
    ],
)
async def test_rubbish_is_a_dead_letter_and_the_rest_goes_on(bus: MemoryBroker, payload: bytes) -> None:
    await publish(bus, candle(0, 100))
    await bus.publish(STREAM, payload)
    await publish(bus, candle(1, 101))

    await StrategyEngine(bus, [SwingStrategy()]).process_once(STREAM, "0")

    assert [each.side for each in await signals_of(bus)] == [OrderSide.BUY]
    letters = await bus.read_dead_letters()
    assert [(letter.stream, letter.payload) for letter in letters] == [(STREAM, payload)]
    assert letters[0].reason


async def test_a_candle_of_no_known_timeframe_is_a_dead_letter(bus: MemoryBroker) -> None:
    document: dict[str, Any] = CandleEvent(data=candle(0)).to_dict()
    document["data"]["timeframe"] = "7m"
    await bus.publish(STREAM, msgspec.json.encode(document))

    await StrategyEngine(bus, [SwingStrategy()]).process_once(STREAM, "0")

    assert "7m" in (await bus.read_dead_letters())[0].reason


async def test_a_repeated_late_or_revised_candle_fires_nothing_again(bus: MemoryBroker) -> None:
    await publish(bus, candle(0, 100), candle(1, 101), candle(1, 101), candle(1, 90), candle(0, 120), candle(2, 102))

    await StrategyEngine(bus, [SwingStrategy()]).process_once(STREAM, "0")

    assert [each.reason for each in await signals_of(bus)] == ["candle 2: 100 to 101", "candle 3: 101 to 102"]


async def test_a_non_finite_candle_stops_nobody(bus: MemoryBroker) -> None:
    broken = msgspec.structs.replace(candle(1), close=Decimal("NaN"))
    await publish(bus, candle(0, 100), broken, candle(2, 101))

    await StrategyEngine(bus, [SwingStrategy(), Eager()]).process_once(STREAM, "0")

    assert "eager" in {each.strategy for each in await signals_of(bus)}


async def test_a_strategy_that_raises_is_silent_and_the_others_go_on(bus: MemoryBroker) -> None:
    engine = StrategyEngine(bus, [Poisoned(), SwingStrategy()])
    await publish(bus, *(candle(number, 100 + number) for number in range(5)))

    await engine.process_once(STREAM, "0")

    said = [(each.strategy, each.candle_open_time) for each in await signals_of(bus)]
    assert [moment for name, moment in said if name == "poisoned"] == [candle(0).open_time, candle(1).open_time]
    assert len([name for name, _ in said if name == "swing"]) == 4
    assert [bool(runner.fault) for runner in engine.runners] == [True, False]


async def test_signals_of_one_candle_come_in_the_order_of_their_names(bus: MemoryBroker) -> None:
    await publish(bus, *(candle(number, 100 + number) for number in range(3)))

    await StrategyEngine(bus, [SwingStrategy(), Eager()]).process_once(STREAM, "0")

    last = [each.strategy for each in await signals_of(bus) if each.candle_open_time == candle(2).open_time]
    assert last == ["eager", "swing"]


async def test_a_signal_that_the_bus_did_not_take_is_sent_the_next_time(bus: MemoryBroker) -> None:
    engine = StrategyEngine(bus, [SwingStrategy()])
    await publish(bus, candle(0, 100), candle(1, 101))
    reads = bus.read

    async def read_then_go_away(*args: Any, **kwargs: Any) -> Any:
        messages = await reads(*args, **kwargs)
        bus.is_available = False
        return messages

    bus.read = read_then_go_away  # type: ignore[method-assign]
    with pytest.raises(BrokerError):
        await engine.process_once(STREAM, "0")
    bus.is_available = True
    bus.read = reads  # type: ignore[method-assign]

    await engine.process_once(STREAM, "0")

    assert [each.side for each in await signals_of(bus)] == [OrderSide.BUY]


async def test_a_signals_event_bears_the_signals_own_id_and_its_candles_correlation(bus: MemoryBroker) -> None:
    await publish(bus, candle(0, 100))
    await bus.publish(STREAM, CandleEvent(data=candle(1, 101), correlation_id="from the candle"))

    await StrategyEngine(bus, [SwingStrategy()]).process_once(STREAM, "0")

    event = (await bus.read("signals", "0"))[0].event
    assert event is not None
    assert event.type is EventType.SIGNAL
    assert event.id == event.data.id
    assert event.correlation_id == "from the candle"
    assert event.as_of == candle(1).close_time

"""Buses under test: brokers on them, and what a stranger or an accident can do to them."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from redis.asyncio import Redis

from shared.broker import Broker, Message, RedisBroker
from shared.broker_memory import MemoryBroker
from shared.embedded_bus import EmbeddedBus
from shared.events import CandleEvent
from shared.models import Candle

STREAM = "candles.BTC_USDT.1m"
START = datetime(2024, 1, 1, tzinfo=UTC)


class Bus:
    """A bus under test: brokers on it, and what a stranger or an accident can do to it."""

    def __init__(self, url: str | None, stack: AsyncExitStack) -> None:
        self.url = url
        self._stack = stack
        self._memory = MemoryBroker(dead_letters_max=5)

    def broker(self, stream_length_max: int = 1000) -> Broker:
        """Return a broker of a process that has just started."""
        if self.url is None:
            self._memory.stream_length_max = stream_length_max
            self._memory.reconnect()
            return self._memory
        fresh = RedisBroker(self.url, stream_length_max=stream_length_max, dead_letters_max=5)
        self._stack.push_async_callback(fresh.close)
        return fresh

    async def inject(self, stream: str, *fields: bytes) -> None:
        """Append an entry that no broker of ours would write."""
        if self.url is None:
            self._memory.append(stream, fields)
            return
        async with Redis.from_url(self.url) as client:
            await client.execute_command("XADD", stream, "*", *fields)  # type: ignore[no-untyped-call]

    async def wipe(self) -> None:
        """Lose everything, groups included."""
        if self.url is None:
            self._memory.wipe()
            return
        async with Redis.from_url(self.url) as client:
            await client.flushall()


class OwnBus(Bus):
    """A bus whose server a test may kill and reconfigure."""

    def __init__(self, server: EmbeddedBus, stack: AsyncExitStack) -> None:
        super().__init__(server.url, stack)
        self.server = server
        self.server_url = server.url

    def kill(self) -> int:
        """Kill the server and return the pid it had."""
        pid = self.server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return pid


def candle_event(minute: int = 0, symbol: str = "BTC/USDT") -> CandleEvent:
    """Return the event of a flat candle, `minute` minutes after `START`."""
    price = Decimal("65000.12")
    moment = START + timedelta(minutes=minute)
    candle = Candle(
        symbol=symbol, timeframe="1m", open_time=moment, open=price, high=price, low=price, close=price, volume=price
    )
    return CandleEvent(data=candle)


async def publish_minutes(broker: Broker, minutes: Sequence[int], stream: str = STREAM) -> None:
    """Publish one candle for each of `minutes`."""
    await broker.publish_many([(stream, candle_event(minute)) for minute in minutes])


def minutes_of(messages: Sequence[Message]) -> list[int]:
    """Return the minutes of candles as they arrived; every message must be readable."""
    events = [message.event for message in messages]
    assert all(event is not None for event in events)
    return [int((event.data.open_time - START) / timedelta(minutes=1)) for event in events if event is not None]

"""`BinanceWebSocket` by itself: closed candles of one timeframe, into any function, until stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from data_collector.binance_ws import BinanceWebSocket
from paper_exchange.server import ExchangeOptions
from paper_exchange.testing import exchange_of, simulated_file
from shared.errors import ConfigError
from shared.models import Candle
from shared.testing.waiting import until

AT_SPEED = ExchangeOptions(speed=6000.0, wait=True)


@pytest.mark.parametrize("waits", [True, False])
async def test_every_closed_candle_reaches_the_callback_once(waits: bool) -> None:
    files = [simulated_file(symbol, rows=120) for symbol in ("BTC/USDT", "ETH/USDT")]
    async with exchange_of(*files, options=AT_SPEED, history_candles=60) as exchange:
        seen: list[Candle] = []

        async def wait_and_take(candle: Candle) -> None:
            await asyncio.sleep(0)
            seen.append(candle)

        socket = BinanceWebSocket(
            ["BTC/USDT", "ethusdt"],
            "1m",
            wait_and_take if waits else seen.append,
            rest_url=exchange.urls.rest,
            stream_url=exchange.urls.stream,
        )
        running = asyncio.create_task(socket.start())
        await exchange.over()
        await until(lambda: {each.symbol for each in seen} == {"BTC/USDT", "ETH/USDT"} and len(seen) >= 110)
        await socket.stop()
        await running
    assert len({(each.symbol, each.open_time) for each in seen}) == len(seen)


async def test_an_unknown_symbol_and_a_failing_callback_end_it_with_their_error() -> None:
    async with exchange_of(simulated_file(rows=120), options=AT_SPEED, history_candles=60) as exchange:
        urls: Any = {"rest_url": exchange.urls.rest, "stream_url": exchange.urls.stream}
        with pytest.raises(ConfigError, match="did you mean BTC/USDT"):
            await BinanceWebSocket(["BTC/USDX"], "1m", print, **urls).start()

        def refuse(_: Candle) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await BinanceWebSocket(["BTC/USDT"], "1m", refuse, **urls).start()

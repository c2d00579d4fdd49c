"""Closed candles of one timeframe straight from Binance's streams, for programs that want nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Sequence

import structlog
from structlog.stdlib import BoundLogger

from data_collector.feeds.binance.connection import StreamRules
from data_collector.feeds.binance.feed import BinanceFeed, BinanceSource
from data_collector.feeds.port import FeedBatch, ResumePoint, StreamKey
from shared.clock import Clock, SystemClock
from shared.config import Settings
from shared.models import Candle

REST_URL = str(Settings.model_fields["binance_rest_url"].default)
STREAM_URL = str(Settings.model_fields["binance_stream_url"].default)


class BinanceWebSocket:
    """Calls `on_candle` for every closed candle as the sockets bring it, with reconnects, until stopped.

    What a broken connection missed is not mended here: that is the collector's back-fill. `on_candle` may be a
    coroutine function; the sockets never wait for it, candles queue up to a bound instead.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        timeframe: str,
        on_candle: Callable[[Candle], Awaitable[object] | object],
        *,
        rest_url: str = REST_URL,
        stream_url: str = STREAM_URL,
        rules: StreamRules | None = None,
        clock: Clock | None = None,
        log: BoundLogger | None = None,
    ) -> None:
        streams = tuple(StreamKey(symbol, timeframe) for symbol in symbols)
        source = BinanceSource(streams, rest_url, stream_url, stream_rules=rules or StreamRules())
        self._feed = BinanceFeed(source, clock or SystemClock(), log or structlog.stdlib.get_logger("binance"))
        self._on_candle = on_candle
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Run until `stop`, or until `on_candle` raises; an unknown symbol is a `ConfigError`."""
        running = self._running = asyncio.create_task(self._run(), name="binance candles")
        try:
            await asyncio.wait({running})
            if not running.cancelled():
                running.result()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Close the connections; `start` returns."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await running
        await self._feed.close()

    async def _run(self) -> None:
        batches = self._feed.batches(ResumePoint())
        try:
            async for batch in batches:
                await self._hand_out(batch)
        finally:
            close = getattr(batches, "aclose", None)
            if close is not None:
                await close()

    async def _hand_out(self, batch: FeedBatch) -> None:
        for candle in batch.candles:
            outcome = self._on_candle(candle)
            if inspect.isawaitable(outcome):
                await outcome

"""Binance's candles as a feed: what happens comes from streams, what has happened from REST."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from structlog.stdlib import BoundLogger

from data_collector.feeds.binance.connection import StreamRules
from data_collector.feeds.binance.frames import KlineFrame
from data_collector.feeds.binance.streams import BinanceStreams, StreamHandlers, StreamPorts
from data_collector.feeds.intake import INTAKE_CANDLES_MAX, LiveIntake
from data_collector.feeds.lifecycle import Lifecycle, Reach
from data_collector.feeds.port import FeedBatch, MalformedCandle, ResumePoint, StreamKey
from data_collector.feeds.venue_rows import candle_of_row
from shared.binance_rest import KLINES_MAX, BinanceRest, CallPolicy, KlineRow
from shared.clock import Clock
from shared.errors import ConfigError, MalformedMessage, TradingError
from shared.metrics import ServiceMetrics
from shared.models import TIMEFRAME_SECONDS, Candle, from_milliseconds, to_milliseconds
from shared.resilience import Backoff
from shared.venue_markets import Market
from shared.venue_symbols import binance_markets

NEWEST_ROWS = 3  # a forming one, and one in case the newest is not shown yet
CLOCK_SECONDS = 600.0  # how often the venue's clock is compared with ours
CLOCK_OFFSET_TOLD = timedelta(seconds=1)
MARGIN_MS = 1000  # frames that close a candle were seen up to 266 ms after its end


@dataclass(frozen=True, slots=True)
class BinanceSource:
    """Where Binance is and what is read from it."""

    streams: tuple[StreamKey, ...]
    rest_url: str
    stream_url: str
    call_policy: CallPolicy = field(default_factory=CallPolicy)
    stream_rules: StreamRules = field(default_factory=StreamRules)
    intake_candles_max: int = INTAKE_CANDLES_MAX
    batch_candles_max: int = 500


class BinanceFeed:
    """Closed candles of Binance Spot, and the first frame of each new one; public data, no key.

    A candle is closed when its frame says so. One that REST returns is closed when a later one of its stream is
    known, or when it is the last and the venue's own clock has passed its end by a margin: the trades of a candle's
    last moment are counted a little after it.
    """

    name = "binance"
    deterministic = False

    def __init__(
        self, source: BinanceSource, clock: Clock, log: BoundLogger, metrics: ServiceMetrics | None = None
    ) -> None:
        if not source.streams:
            raise ConfigError("symbols: the binance feed needs at least one symbol and timeframe")
        self._source = source
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._rest = BinanceRest(source.rest_url, clock=clock, policy=source.call_policy, metrics=metrics)
        self._intake = LiveIntake(clock, candles_max=source.intake_candles_max)
        self._markets: dict[str, Market] = {}
        self._symbols: dict[str, str] = {}  # the venue's id -> our symbol
        self._backoff = Backoff(source.call_policy.base_delay_seconds, source.call_policy.delay_seconds_max)
        self._life = Lifecycle(self.name, Reach(self._reach, self._wait_after), self._intake, metrics)
        self._sockets: BinanceStreams | None = None
        self._trouble = "not connected yet"
        self._opened_ms: dict[StreamKey, int] = {}  # the newest candle that a frame has shown
        self._closed: dict[StreamKey, Candle] = {}  # the newest that a frame has closed

    @property
    def identity(self) -> str:
        """Return what must not change between two runs on one state: whose candles these are."""
        return f"binance {urlsplit(self._source.rest_url).hostname or self._source.rest_url}"

    @property
    def rest(self) -> BinanceRest:
        """Return the REST side, for whoever watches its weight."""
        return self._rest

    def streams(self) -> Sequence[StreamKey]:
        """Return every stream served, sorted."""
        return sorted(self._source.streams)

    @property
    def clock_offset(self) -> timedelta:
        """Return the venue's clock less ours, as last measured."""
        return self._rest.clock_offset

    def troubles(self) -> Sequence[str]:
        """Return what keeps candles from coming now; nothing when all is well."""
        found = [self._rest.trouble or self._trouble] if self._trouble else []
        return found + (self._sockets.troubles() if self._sockets is not None else [])

    async def history(self, symbol: str, timeframe: str, since: datetime, until: datetime) -> Sequence[Candle]:
        """Return the closed candles with since <= open time < until, ordered, one page of them."""
        await self._life.until_ready()
        since_ms, until_ms = to_milliseconds(since), to_milliseconds(until)
        if since_ms >= until_ms:
            return []
        # The candle at `until` is asked for too: that it exists shows that the one before it has closed.
        rows = await self._rest.klines(self._markets[symbol].market_id, timeframe, since_ms, until_ms, KLINES_MAX)
        stream = StreamKey(symbol, timeframe)
        return [candle_of_row(stream, row) for row in self._closed_rows(stream, rows) if since_ms <= row[0] < until_ms]

    async def newest(self, symbol: str, timeframe: str) -> datetime | None:
        """Return the open time of the newest closed candle that the venue has, None when it has none."""
        await self._life.until_ready()
        rows = await self._rest.newest_klines(self._markets[symbol].market_id, timeframe, NEWEST_ROWS)
        closed = self._closed_rows(StreamKey(symbol, timeframe), rows)
        return from_milliseconds(closed[-1][0]) if closed else None

    def batches(self, resume: ResumePoint) -> AsyncIterator[FeedBatch]:  # noqa: ARG002 - a socket cannot resume
        """Yield what the sockets bring, for ever; what they missed comes from `history`."""
        return self._life.batches(self._work, self._source.batch_candles_max)

    def _work(self) -> list[Coroutine[Any, Any, None]]:
        ids = {stream: self._markets[stream.symbol].market_id for stream in self.streams()}
        handlers = StreamHandlers(self._on_kline, self._on_malformed, self._intake.note_reconnect)
        ports = StreamPorts(self._clock, self._log, self._rest.now, self._metrics)
        self._sockets = BinanceStreams(self._source.stream_url, ids, handlers, ports, self._source.stream_rules)
        self._trouble = ""
        return [self._sockets.run(), self._follow_clock()]

    async def close(self) -> None:
        """Close the REST connections; the sockets end with the batches."""
        await self._life.close()
        await self._rest.close()

    async def _reach(self) -> None:
        """Ask for the clock and the markets."""
        await self._measure_clock()
        self._markets = await binance_markets(self._rest, sorted({stream.symbol for stream in self._source.streams}))
        for market in self._markets.values():
            self._symbols[market.market_id] = market.symbol
            if not market.is_trading:
                self._log.warning("market.not_trading", symbol=market.symbol)

    async def _wait_after(self, error: TradingError) -> None:
        wait = self._backoff.next_seconds(error)
        self._log.warning("feed.waits", error=str(error), retry_seconds=round(wait, 3))
        await self._clock.sleep(wait)

    async def _follow_clock(self) -> None:
        while True:
            await self._clock.sleep(CLOCK_SECONDS)
            try:
                await self._measure_clock()
            except TradingError as error:
                self._log.warning("clock.not_measured", error=str(error))

    async def _measure_clock(self) -> None:
        offset = await self._rest.measure_clock()
        if abs(offset) > CLOCK_OFFSET_TOLD:
            self._log.warning("clock.off", venue_ahead_seconds=round(offset.total_seconds(), 3))

    def _closed_rows(self, stream: StreamKey, rows: Sequence[KlineRow]) -> list[KlineRow]:
        """Return the rows that are over, oldest first."""
        ordered, step_ms = sorted(rows), TIMEFRAME_SECONDS[stream.timeframe] * 1000
        return [row for place, row in enumerate(ordered) if self._is_closed(stream, ordered, place, step_ms)]

    def _is_closed(self, stream: StreamKey, rows: Sequence[KlineRow], place: int, step_ms: int) -> bool:
        open_ms = rows[place][0]
        if place + 1 < len(rows) or open_ms < self._opened_ms.get(stream, -1):
            return True
        return open_ms + step_ms + MARGIN_MS <= self._rest.now().timestamp() * 1000

    def _on_kline(self, frame: KlineFrame) -> None:
        symbol = self._symbols.get(frame.market_id)
        if symbol is None:
            return
        stream = StreamKey(symbol, frame.interval)
        if frame.open_ms > self._opened_ms.get(stream, -1):
            self._opened_ms[stream] = frame.open_ms
            if not frame.is_closed:
                self._intake.offer_open(stream, frame.open_ms, frame.open)
        if frame.is_closed:
            self._on_closed(stream, frame)

    def _on_closed(self, stream: StreamKey, frame: KlineFrame) -> None:
        candle = Candle(
            symbol=stream.symbol,
            timeframe=stream.timeframe,
            open_time=from_milliseconds(frame.open_ms),
            open=frame.open,
            high=frame.high,
            low=frame.low,
            close=frame.close,
            volume=frame.volume,
        )
        known = self._closed.get(stream)
        if candle == known:
            return  # two connections overlap, or the venue repeats itself
        if known is None or candle.open_time > known.open_time:
            self._closed[stream] = candle
        self._intake.offer(candle)

    def _on_malformed(self, text: str, error: MalformedMessage) -> None:
        self._intake.offer_malformed(MalformedCandle("binance stream", text[:500], f"unreadable: {error}"))

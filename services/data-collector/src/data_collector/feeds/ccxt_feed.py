"""Any exchange that ccxt knows, by asking: closed candles of REST history, over and over."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from structlog.stdlib import BoundLogger

from data_collector.feeds.intake import LiveIntake
from data_collector.feeds.lifecycle import Lifecycle, Reach
from data_collector.feeds.port import FeedBatch, ResumePoint, StreamKey
from data_collector.feeds.venue_rows import candle_of_row, number_of
from shared.ccxt_exchange import CcxtExchange
from shared.clock import Clock
from shared.errors import ConfigError, TradingError
from shared.metrics import ServiceMetrics
from shared.models import TIMEFRAME_SECONDS, Candle, from_milliseconds, to_milliseconds
from shared.resilience import Backoff
from shared.venue_markets import Market

ROWS_MAX = 500
NEWEST_ROWS = 2
BATCH_CANDLES_MAX = 500
CLOSE_WAIT_SECONDS = 1.0  # after a candle's end, until the exchange is asked for it
AGAIN_SECONDS = 2.0  # while the exchange does not show a candle that has closed
AGAIN_MAX = 15  # then the next close is waited for: a market without a trade may have no candle
RETRY_SECONDS = 1.0
RETRY_SECONDS_MAX = 60.0
CLOCK_POLLS = 100


@dataclass(frozen=True, slots=True)
class PollRules:
    """When the exchange is asked: after each close, or every `poll_seconds` when that is set."""

    poll_seconds: float = 0.0
    close_wait_seconds: float = CLOSE_WAIT_SECONDS
    again_seconds: float = AGAIN_SECONDS
    again_max: int = AGAIN_MAX


class CcxtFeed:
    """Closed candles of one exchange through ccxt, which knows over a hundred of them.

    The newest row of an answer may still be forming: a row is closed when a later one has come, or when the
    exchange's clock has passed its end.
    """

    name = "ccxt"
    deterministic = False

    def __init__(
        self,
        streams: Iterable[StreamKey],
        exchange: CcxtExchange,
        clock: Clock,
        log: BoundLogger,
        rules: PollRules | None = None,
        metrics: ServiceMetrics | None = None,
    ) -> None:
        self._streams = sorted(streams)
        self._exchange = exchange
        self._clock = clock
        self._log = log
        self._rules = rules or PollRules()
        self._metrics = metrics
        if metrics is not None:
            exchange.tell_breaker(metrics.breaker)
        self._intake = LiveIntake(clock)
        self._markets: Mapping[str, Market] = {}
        backoff = Backoff(RETRY_SECONDS, RETRY_SECONDS_MAX)
        reach = Reach(self._reach, lambda error: self._wait_after("", error, backoff))
        self._life = Lifecycle(self.name, reach, self._intake, metrics)
        self._troubles: dict[str, str] = {"": "not connected yet"}
        self._last_open_ms: dict[StreamKey, int] = {}
        self._forming_ms: dict[StreamKey, int] = {}

    @classmethod
    def open(
        cls,
        streams: Iterable[StreamKey],
        exchange: CcxtExchange,
        clock: Clock,
        log: BoundLogger,
        metrics: ServiceMetrics | None = None,
    ) -> CcxtFeed:
        """Return the feed of an exchange, which must have every timeframe; nothing is asked yet."""
        wanted = sorted(streams)
        lacking = sorted({each.timeframe for each in wanted} - exchange.timeframes)
        if lacking:
            known = ", ".join(sorted(exchange.timeframes, key=lambda each: TIMEFRAME_SECONDS.get(each, math.inf)))
            raise ConfigError(f"timeframes: {exchange.name} has no {', '.join(lacking)}; it has {known}")
        return cls(wanted, exchange, clock, log, metrics=metrics)

    @property
    def identity(self) -> str:
        """Return what must not change between two runs on one state."""
        return f"ccxt:{self._exchange.name}"

    @property
    def clock_offset(self) -> timedelta:
        """Return the exchange's clock less ours, as last measured."""
        return self._exchange.offset

    def streams(self) -> Sequence[StreamKey]:
        """Return every stream served, sorted."""
        return self._streams

    def troubles(self) -> Sequence[str]:
        """Return what keeps candles from coming now."""
        return [f"{self._exchange.name} {where}: {text}".replace(" :", ":") for where, text in self._troubles.items()]

    async def history(self, symbol: str, timeframe: str, since: datetime, until: datetime) -> Sequence[Candle]:
        """Return the closed candles with since <= open time < until, ordered, one page of them."""
        await self._life.until_ready()
        since_ms, until_ms = to_milliseconds(since), to_milliseconds(until)
        if since_ms >= until_ms:
            return []
        stream = StreamKey(symbol, timeframe)
        step_ms = TIMEFRAME_SECONDS[timeframe] * 1000
        wanted = min(ROWS_MAX, (until_ms - since_ms) // step_ms + 2)
        rows, _ = await self._closed_rows(stream, since_ms, wanted)
        if rows:  # the next poll goes on from here
            self._last_open_ms[stream] = max(int(rows[-1][0]), self._last_open_ms.get(stream, 0))
        return [candle_of_row(stream, row) for row in rows if since_ms <= row[0] < until_ms]

    async def newest(self, symbol: str, timeframe: str) -> datetime | None:
        """Return the open time of the newest closed candle that the exchange has, None when it has none."""
        await self._life.until_ready()
        rows, _ = await self._closed_rows(StreamKey(symbol, timeframe), None, NEWEST_ROWS)
        return from_milliseconds(int(rows[-1][0])) if rows else None

    def batches(self, resume: ResumePoint) -> AsyncIterator[FeedBatch]:
        """Yield what each poll brings, for ever."""
        return self._life.batches(lambda: self._work(resume), BATCH_CANDLES_MAX)

    def _work(self, resume: ResumePoint) -> list[Coroutine[Any, Any, None]]:
        for stream, moment in resume.open_times.items():
            self._last_open_ms[stream] = to_milliseconds(moment)
        return [self._poll_forever(stream) for stream in self._streams]

    async def close(self) -> None:
        """Close the connections."""
        await self._life.close()
        await self._exchange.close()

    async def _reach(self) -> None:
        """Ask for the clock and the markets."""
        await self._exchange.measure_clock()
        self._markets = await self._exchange.markets(sorted({each.symbol for each in self._streams}))
        self._troubles.clear()

    async def _poll_forever(self, stream: StreamKey) -> None:
        backoff = Backoff(RETRY_SECONDS, RETRY_SECONDS_MAX)
        again = polls = 0
        while True:
            try:
                found = await self._poll(stream)
                polls += 1
                if polls % CLOCK_POLLS == 0:
                    await self._exchange.measure_clock()
            except TradingError as error:
                await self._wait_after(str(stream), error, backoff)
                continue
            backoff.reset()
            self._troubles.pop(str(stream), None)
            again = 0 if found else again + 1
            await self._clock.sleep(self._pause_seconds(stream, again))

    async def _poll(self, stream: StreamKey) -> bool:
        """Ask for what came after the last candle seen; return whether there was any."""
        last_ms = self._last_open_ms.get(stream)
        step_ms = TIMEFRAME_SECONDS[stream.timeframe] * 1000
        since_ms = last_ms + step_ms if last_ms is not None else None
        rows, forming = await self._closed_rows(stream, since_ms, ROWS_MAX if last_ms is not None else NEWEST_ROWS)
        fresh = [row for row in rows if last_ms is None or row[0] > last_ms]
        for row in fresh:
            self._intake.offer(candle_of_row(stream, row))
        if fresh:
            self._last_open_ms[stream] = int(fresh[-1][0])
        if forming is not None and forming[0] > self._forming_ms.get(stream, -1):
            self._forming_ms[stream] = int(forming[0])
            self._intake.offer_open(stream, int(forming[0]), number_of(forming[1]))
        return bool(fresh)

    async def _closed_rows(
        self, stream: StreamKey, since_ms: int | None, limit: int
    ) -> tuple[list[list[Any]], list[Any] | None]:
        """Return the closed rows from `since_ms` on (None: the newest), and the forming one."""
        market = self._markets[stream.symbol]
        answer = await self._exchange.candles(market.symbol, stream.timeframe, since_ms, limit)
        rows = sorted((row for row in answer if len(row) >= 6 and isinstance(row[0], int)), key=lambda row: row[0])
        if not rows or rows[-1][0] + TIMEFRAME_SECONDS[stream.timeframe] * 1000 <= self._now_ms():
            return rows, None
        return rows[:-1], rows[-1]

    def _pause_seconds(self, stream: StreamKey, again: int) -> float:
        rules = self._rules
        if rules.poll_seconds:
            return rules.poll_seconds
        step, now = TIMEFRAME_SECONDS[stream.timeframe], self._now_ms() / 1000
        until_close = step - now % step + rules.close_wait_seconds
        last_ms = self._last_open_ms.get(stream)
        is_behind = last_ms is not None and last_ms / 1000 + 2 * step <= now
        return min(rules.again_seconds, until_close) if is_behind and again <= rules.again_max else until_close

    def _now_ms(self) -> int:
        return to_milliseconds(self._exchange.now().astimezone(UTC))

    async def _wait_after(self, where: str, error: TradingError, backoff: Backoff) -> None:
        wait = backoff.next_seconds(error)
        if self._metrics is not None:
            self._metrics.error(error)
            self._metrics.retry(self._exchange.outside.name)
        self._troubles[where] = f"{error}; next try in {wait:.1f} s"
        self._log.warning("feed.waits", stream=where, error=str(error), retry_seconds=round(wait, 3))
        await self._clock.sleep(wait)

"""Makes a live feed contiguous: history at the start and after a reconnect, holes mended before newer candles."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from structlog.stdlib import BoundLogger

from data_collector.feeds.port import CandleGap, FeedBatch, LiveFeed, MalformedCandle, ResumePoint, StreamKey
from data_collector.gaps import find_gaps
from data_collector.validation import malformed, own_fault
from shared.clock import Clock
from shared.errors import TradingError
from shared.models import TIMEFRAME_DELTA, Candle

QUEUE_BATCHES_MAX = 64
HISTORY_PAGES_MAX = 1_000
CONFIRMATIONS = 2  # how often a venue must say "nothing there" before a hole is a fact
COMPARED_MAX = 500  # candles compared with the venue's history at once: one page, as cheap as a single candle
LOOKS_MAX = 3  # at a history that does not show yet what its stream has closed
SPOILED_MAX = 100

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class BackfillRules:
    """Bounds of the back-fill: how much history a first start loads, when a venue is asked again.

    `history_needed` says of a stream and the market's time how many candles its readers need, where that is more.
    `loading` are the streams whose history has never been loaded to its end. Every `compare_seconds` (0: never), and
    after each reconnect, what the streams brought since is compared with the venue's history.
    """

    history_candles: int = 500
    history_needed: Callable[[StreamKey, datetime], int] = lambda _stream, _now: 0
    loading: frozenset[StreamKey] = frozenset()
    compare_seconds: float = 0.0
    confirm_seconds: float = 1.0
    retry_seconds: float = 1.0
    retry_seconds_max: float = 30.0
    held_candles_max: int = 1_000
    batch_candles_max: int = 500

    def candles_of(self, stream: StreamKey, market_now: datetime) -> int:
        """Return how many candles before the market's time a stream begins with."""
        return max(self.history_candles, self.history_needed(stream, market_now))


@dataclass(slots=True)
class _Stream:
    last: datetime | None
    held: deque[Candle]
    is_loading: bool = False
    first: datetime | None = None  # of this run; older ones were compared by the run that stored them
    compared_until: datetime | None = None
    wanted_until: datetime | None = None
    spoiled: deque[datetime] = field(default_factory=lambda: deque(maxlen=SPOILED_MAX))  # came, and was malformed
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _End:
    """The feed has nothing more, or failed."""

    error: Exception | None = None


class ContiguousFeed:
    """Wraps a live feed: what leaves has no hole that the venue could fill.

    A candle that is ahead of its stream by more than one step is held (a bounded number of them; older ones come
    back with the history) while `history` is asked; other streams go on. Two answers that show the candle after a
    hole and nothing in it confirm the hole. An error is asked again, with growing pauses, for ever.
    A candle that cannot be true is a hole like any other, but one that only a good candle mends: it is never confirmed.
    """

    def __init__(self, feed: LiveFeed, clock: Clock, log: BoundLogger, rules: BackfillRules | None = None) -> None:
        self._feed = feed
        self._clock = clock
        self._log = log
        self._rules = rules or BackfillRules()
        self._streams: dict[StreamKey, _Stream] = {}
        self._queue: asyncio.Queue[FeedBatch | _End] = asyncio.Queue(QUEUE_BATCHES_MAX)

    async def batches(self, resume: ResumePoint) -> AsyncIterator[FeedBatch]:
        """Yield contiguous batches after `resume`; ends with the feed, raises what the feed raises."""
        for stream in self._feed.streams():
            held: deque[Candle] = deque(maxlen=self._rules.held_candles_max)
            last = resume.open_times.get(stream)
            self._streams[stream] = _Stream(last, held, stream in self._rules.loading, first=last)
        pump = asyncio.create_task(self._pump(resume), name=f"feed {self._feed.name}")
        audit = asyncio.create_task(self._compare_now_and_then(), name="compare with history")
        try:
            while not isinstance(item := await self._queue.get(), _End):
                yield item
            if item.error is not None:
                raise item.error
        finally:
            tasks = [pump, audit, *(state.task for state in self._streams.values() if state.task is not None)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, resume: ResumePoint) -> None:
        try:
            self._want_history()
            async for batch in self._feed.batches(resume):
                if batch.reconnected:
                    self._want_history()
                await self._forward(batch)
            while mending := [state.task for state in self._streams.values() if state.task is not None]:
                await asyncio.wait(mending)
            await self._queue.put(_End())
        except Exception as error:  # noqa: BLE001 - the task's boundary: the reader raises it
            await self._queue.put(_End(error))

    async def _forward(self, batch: FeedBatch) -> None:
        spoiled: list[MalformedCandle] = []
        ready: list[Candle] = []
        for candle in batch.candles:
            fault = own_fault(candle)
            if fault is not None:
                spoiled.append(malformed(candle, fault))
                self._replace(candle)
            elif self._admit(candle):
                ready.append(candle)
        bad = (*batch.malformed, *spoiled)
        if ready or batch.opened or bad or batch.confirmed_gaps:
            await self._queue.put(
                FeedBatch(tuple(ready), None, batch.opened, batch.confirmed_gaps, bad, batch.reconnected)
            )

    def _replace(self, candle: Candle) -> None:
        """Ask the venue's history for a candle that came malformed."""
        stream = StreamKey(candle.symbol, candle.timeframe)
        state = self._streams.get(stream)
        if state is not None:
            state.spoiled.append(candle.open_time)
            state.wanted_until = self._venue_now()
            self._start(stream, state)

    def _admit(self, candle: Candle) -> bool:
        stream = StreamKey(candle.symbol, candle.timeframe)
        state = self._streams.get(stream)
        if state is None:
            return True  # unknown streams are the validation's business
        if state.task is None and (
            state.last is None or candle.open_time - state.last == TIMEFRAME_DELTA[stream.timeframe]
        ):
            state.first = state.first or candle.open_time
            state.last = candle.open_time
            return True
        if state.last is not None and candle.open_time <= state.last:
            # A duplicate, a late one or a revision: stored as such, but the venue's history has the last word.
            before = candle.open_time - TIMEFRAME_DELTA[stream.timeframe]
            state.compared_until = min(state.compared_until or before, before)
            state.wanted_until = self._venue_now()
            self._start(stream, state)
            return True
        state.held.append(candle)
        self._start(stream, state)
        return False

    def _venue_now(self) -> datetime:
        return self._clock.now() + self._feed.clock_offset

    def _want_history(self) -> None:
        now = self._venue_now()
        for stream, state in self._streams.items():
            state.wanted_until = now
            self._start(stream, state)

    async def _compare_now_and_then(self) -> None:
        while self._rules.compare_seconds > 0:
            await self._clock.sleep(self._rules.compare_seconds)
            self._want_history()

    def _start(self, stream: StreamKey, state: _Stream) -> None:
        if state.task is None:
            state.task = asyncio.create_task(self._mend(stream, state), name=f"back-fill {stream}")

    async def _mend(self, stream: StreamKey, state: _Stream) -> None:
        """Bring a stream up to what is held and wanted; newer candles are held until this ends."""
        try:
            looks = 0
            while state.held or state.wanted_until is not None:
                is_comparison = state.wanted_until is not None
                await self._mend_once(stream, state)
                if is_comparison and looks < LOOKS_MAX and _is_behind(state):
                    looks += 1
                    await self._clock.sleep(self._rules.confirm_seconds)
                    state.wanted_until = self._venue_now()
        except Exception as error:  # noqa: BLE001 - the task's boundary: the reader raises it
            await self._queue.put(_End(error))
        finally:
            state.task = None

    async def _mend_once(self, stream: StreamKey, state: _Stream) -> None:
        wanted, state.wanted_until = state.wanted_until, None
        asked: Counter[tuple[datetime, datetime]] = Counter()
        pause = self._rules.confirm_seconds
        while True:
            fetched = await self._fetch_until_answered(stream, state, wanted)
            again = tuple(candle for candle in fetched if state.last is not None and candle.open_time <= state.last)
            ordered = _merge(fetched, state.held, state.last)
            gaps = find_gaps(stream, state.last, ordered)
            shown = max((candle.open_time for candle in fetched), default=_EPOCH)
            if fetched:
                state.compared_until = max(state.compared_until or shown, shown)
            asked.update((gap.start_time, gap.end_time) for gap in gaps if gap.end_time <= shown)
            doubted = [gap.start_time for gap in gaps if asked[gap.start_time, gap.end_time] < CONFIRMATIONS]
            if not doubted:
                state.held.clear()
            if again:
                await self._queue.put(FeedBatch(candles=again))  # the same as stored, or a revision
            await self._release(state, [each for each in ordered if each.open_time < min(doubted, default=_END)], gaps)
            if not doubted:
                break
            await self._clock.sleep(pause)
            pause = min(2 * pause, self._rules.retry_seconds_max)
        if state.is_loading:
            await self._queue.put(FeedBatch(history_ends={stream: state.last}))
            state.is_loading = False

    async def _release(self, state: _Stream, candles: Sequence[Candle], gaps: Sequence[CandleGap]) -> None:
        """Send candles on; a hole between them in which nothing came malformed is a fact."""
        facts = [gap for gap in gaps if not any(gap.start_time <= each < gap.end_time for each in state.spoiled)]
        size = self._rules.batch_candles_max
        for start in range(0, len(candles), size):
            part = candles[start : start + size]
            state.first = state.first or part[0].open_time
            state.last = part[-1].open_time
            inside = tuple(gap for gap in facts if part[0].open_time <= gap.end_time <= part[-1].open_time)
            await self._queue.put(FeedBatch(candles=tuple(part), confirmed_gaps=inside))

    async def _fetch_until_answered(self, stream: StreamKey, state: _Stream, wanted: datetime | None) -> list[Candle]:
        pause = self._rules.retry_seconds
        while True:
            try:
                since, until = await self._span(stream, state, wanted)
                return await self._fetch(stream, since, until)
            except TradingError as error:
                self._log.warning("backfill.failed", stream=str(stream), error=str(error), retry_seconds=pause)
            await self._clock.sleep(pause)
            pause = min(2 * pause, self._rules.retry_seconds_max)

    async def _span(self, stream: StreamKey, state: _Stream, wanted: datetime | None) -> tuple[datetime, datetime]:
        """Return what to ask the venue for: from the last candle, or by default from the bounded past.

        The past counts from the venue's newest candle, not from the clock: a market may have halted, or lie behind.

        Held candles are asked for too: a venue whose answer lacks what its stream has closed is behind, and says
        nothing about holes. The first candle asked for is the first that was not compared yet.
        """
        step = TIMEFRAME_DELTA[stream.timeframe]
        held = [candle.open_time + step for candle in state.held]
        ends = held if wanted is None else [*held, wanted - (wanted - _EPOCH) % step]
        until = max(ends)
        if state.last is not None:
            return self._compare_from(state, state.last, step), until
        newest = await self._feed.newest(stream.symbol, stream.timeframe)
        market_now = until if newest is None else min(until, newest + step)
        count = self._rules.candles_of(stream, market_now)
        start = market_now - count * step if count else until
        return min([*(each - step for each in held), start]), until

    def _compare_from(self, state: _Stream, last: datetime, step: timedelta) -> datetime:
        """Return the first candle that was not compared with the history, none from before this run."""
        first = last if state.first is None else min(state.first, last)
        if state.compared_until is not None:
            first = max(first, min(state.compared_until, last) + step)
        return max(first, last - (COMPARED_MAX - 1) * step)

    async def _fetch(self, stream: StreamKey, since: datetime, until: datetime) -> list[Candle]:
        rows: list[Candle] = []
        for _ in range(HISTORY_PAGES_MAX):
            if since >= until:
                break
            page = await self._feed.history(stream.symbol, stream.timeframe, since, until)
            if not page:
                break
            rows.extend(page)
            since = page[-1].open_time + TIMEFRAME_DELTA[stream.timeframe]
        return rows


def _is_behind(state: _Stream) -> bool:
    return state.last is not None and (state.compared_until is None or state.compared_until < state.last)


def _merge(fetched: Sequence[Candle], held: Iterable[Candle], last: datetime | None) -> list[Candle]:
    # what the venue's history says counts more than what its stream once said
    by_time = {candle.open_time: candle for candle in held} | {candle.open_time: candle for candle in fetched}
    return [by_time[moment] for moment in sorted(by_time) if last is None or moment > last]

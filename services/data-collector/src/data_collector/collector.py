"""The shell: batches of a feed, checked, stored in one transaction each, announced after the commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import delete
from structlog.stdlib import BoundLogger

from data_collector.ahead import FeedAhead
from data_collector.backfill import BackfillRules, ContiguousFeed
from data_collector.batches import close_batches, next_or_stop
from data_collector.config import CollectorConfig
from data_collector.feeds.port import Feed, FeedBatch, LiveFeed, ResumePoint, StreamKey
from data_collector.gaps import GapTracker, judge_gaps
from data_collector.liveness import LiveWatch
from data_collector.storage import CandleStorage, StoreBatch
from data_collector.validation import QUARANTINE_REASONS, UNIT_FACTOR_MAX, CandleValidator, ValidationRules
from shared.broker import Broker
from shared.clock import Clock
from shared.db import CandleWrite, Database
from shared.errors import BrokerError, ConfigError, DatabaseError
from shared.events import CandleOpened
from shared.journal import note_candles
from shared.live_history import LOADING, live_from_cursor, live_from_value
from shared.metrics import ServiceMetrics
from shared.models import Candle, from_milliseconds, to_milliseconds
from shared.resilience import Backoff
from shared.sa_models import CursorRow

WATERMARK_CURSOR = "collector/watermark"
END_CURSOR = "collector/end"
FEED_CURSOR = "collector/feed"
CANDLES_CURSOR = "collector/candles"
RETRY_SECONDS_BASE = 0.25
RETRY_SECONDS_MAX = 2.0
BUSY_SECONDS_MAX = 60.0
STUCK_SECONDS_MAX = 300.0  # every call to the outside gives up long before
LIVE_JUMP_FACTOR_MAX = Decimal("1.5")


@dataclass(frozen=True, slots=True)
class CollectorPorts:
    """What a collector works with: the tables, the bus, the clock and where it reports."""

    database: Database
    broker: Broker
    clock: Clock
    metrics: ServiceMetrics
    log: BoundLogger
    on_stored: Callable[[datetime], None] = lambda _watermark: None


class Collector:
    """Runs one feed into the database and onto the bus until it ends or `stop` is set.

    A deterministic feed (replay, simulated) completes whole close times: the cursor `collector/watermark` says up to
    which one every stream is stored, and a missing candle is a fact. A live feed is made contiguous by the back-fill
    first; its cursors are `collector/candles/{symbol}/{timeframe}` alone.
    """

    def __init__(self, feed: Feed, storage: CandleStorage, config: CollectorConfig, ports: CollectorPorts) -> None:
        self._feed = feed
        self._storage = storage
        self._config = config
        self._database, self._clock, self._metrics, self._log = ports.database, ports.clock, ports.metrics, ports.log
        self._on_stored = ports.on_stored
        self._ahead = FeedAhead(
            ports.database,
            ports.broker,
            ports.clock,
            consumers=config.consumers,
            candles_max=config.feed_ahead_max,
        )
        self._live = feed if isinstance(feed, LiveFeed) else None
        self._loading: frozenset[StreamKey] = frozenset()
        self._watch = LiveWatch(self._live, ports.clock, ports.metrics) if self._live is not None else None
        factor = UNIT_FACTOR_MAX if self._live is None else LIVE_JUMP_FACTOR_MAX
        self._rules = ValidationRules(frozenset(feed.streams()), factor)
        self._validator = CandleValidator(self._rules)
        self._gaps = GapTracker({})
        self._busy_since: float | None = None
        self._tried_at: float | None = None
        self._is_bus_away = False
        self.watermark: datetime | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Collect until `stop`, or until a replay has sent its last candle."""
        resume = await self._insist(self._begin, stop)
        if resume is None:
            return
        batches = self._batches(resume)
        try:
            while (batch := await next_or_stop(batches, stop)) is not None:
                if not await self._take(batch, stop):
                    return
        finally:
            await close_batches(batches)
            await self._feed.close()
        if self._feed.deterministic and not stop.is_set():
            await self._insist(self._finish, stop)

    async def _take(self, batch: FeedBatch, stop: asyncio.Event) -> bool:
        """Check, store and announce one batch once there is room for it; False when `stop` came first."""
        if batch.watermark is not None and not await self._insist(
            lambda: self._ahead.wait_for_room(len(batch.candles), stop), stop
        ):
            return False
        self._busy_since = self._clock.monotonic()
        with self._metrics.processing():
            store = self._check(batch)
            written = await self._insist(lambda: self._storage.write(store), stop)
            if written is None:
                return False
            if batch.watermark is not None:
                self.watermark = batch.watermark
                self._on_stored(batch.watermark)
                self._ahead.record(store.candles)
            elif store.candles:
                self._note_newest(store.candles)
            await self._announce(written.new, batch.watermark, batch.opened)
        self._busy_since = None
        self._tell(store, written)
        return True

    def _note_newest(self, candles: Sequence[Candle]) -> None:
        """Note how far a live feed has come, for those who watch; nobody decides by it."""
        newest = max(candle.close_time for candle in candles)
        if self.watermark is None or newest > self.watermark:
            self.watermark = newest
            self._on_stored(newest)

    def _check(self, batch: FeedBatch) -> StoreBatch:
        watch = self._watch
        closed_before = watch.closed_before if watch is not None else None
        good, malformed = self._validator.split(batch.candles, closed_before)
        gaps, moved = self._gaps.advance(good)
        cursors: dict[str, str | int] = {cursor_of(stream): to_milliseconds(moved[stream]) for stream in moved}
        cursors |= {live_from_cursor(stream): live_from_value(last) for stream, last in batch.history_ends.items()}
        if batch.watermark is not None:
            cursors[WATERMARK_CURSOR] = to_milliseconds(batch.watermark)
        if watch is not None:
            watch.heard(moved)
        stated = judge_gaps(gaps, batch.confirmed_gaps) if watch is not None else tuple(gaps)
        return StoreBatch(good, (*batch.malformed, *malformed), stated, cursors)

    async def _announce(
        self, candles: Iterable[Candle], watermark: datetime | None = None, opened: Iterable[CandleOpened] = ()
    ) -> None:
        try:
            await self._storage.announce(candles, watermark, opened)
            self._is_bus_away = False
        except BrokerError as error:
            # The candles are stored: consumers read the table by their cursors, with or without a bell.
            self._metrics.error(error)
            if not self._is_bus_away:  # told once, not with every batch
                self._log.warning("collector.bus_away", error=str(error))
            self._is_bus_away = True

    def _tell(self, store: StoreBatch, written: CandleWrite) -> None:
        self._metrics.event("candle", len(written.new))
        note_candles(self._log, "candle.stored", written.new)
        self._metrics.queue("feed_ahead", self._ahead.candles, self._config.feed_ahead_max)
        for each in store.malformed:
            self._metrics.quarantined(each.reason.partition(":")[0])
            self._log.warning("candle.quarantined", stream=each.stream, reason=each.reason)
        for gap in store.gaps:
            self._metrics.gap(str(gap.stream))
            self._log.info(
                "candles.missing",
                stream=str(gap.stream),
                start=gap.start_time.isoformat(),
                candles=gap.candles_missing,
                confirmed=gap.confirmed,
            )
        if written.revised:
            self._log.warning("candles.revised", candles=written.revised)

    async def check(self) -> tuple[bool, str]:
        """Return whether batches get through and, of a live feed, whether every stream still speaks."""
        if self._busy_since is not None:
            busy = self._clock.monotonic() - self._busy_since
            if busy > BUSY_SECONDS_MAX:
                return False, f"a batch has been under way for {busy:.0f} s, at most {BUSY_SECONDS_MAX:.0f} s are usual"
        faults = self._watch.faults(self._gaps) if self._watch is not None else []
        if faults:
            return False, "; ".join(faults)
        return True, f"stored up to {self.watermark}" if self.watermark else "collecting"

    def check_turning(self) -> tuple[bool, str]:
        """Return False when one attempt to store has not come back for longer than anything may take."""
        still = 0.0 if self._tried_at is None else self._clock.monotonic() - self._tried_at
        return still <= STUCK_SECONDS_MAX, f"busy for {still:.1f} s, at most {STUCK_SECONDS_MAX:.0f} s allowed"

    async def _insist[T](self, work: Callable[[], Awaitable[T]], stop: asyncio.Event) -> T | None:
        """Run `work` until it succeeds: what is away is waited for; None when `stop` came first."""
        backoff = Backoff(RETRY_SECONDS_BASE, RETRY_SECONDS_MAX)
        while not stop.is_set():
            self._tried_at = self._clock.monotonic() if self._busy_since is not None else None
            try:
                return await work()
            except DatabaseError as error:
                if not error.retryable:
                    raise
                wait = backoff.next_seconds(error)
                self._metrics.error(error)
                self._metrics.retry("database")
                self._log.warning("collector.waits", error=str(error), retry_seconds=round(wait, 3))
            finally:
                self._tried_at = None
            await self._clock.sleep(wait)
        return None

    async def _begin(self) -> ResumePoint:
        """Read where the last run stopped, refuse another feed's state, ring every stream's bell once."""
        cursors = await self._database.read_cursors("collector/")
        await self._mark(cursors)
        streams = self._feed.streams()
        self._count_from_zero(streams)
        open_times = {
            stream: from_milliseconds(int(cursors[cursor_of(stream)]))
            for stream in streams
            if cursor_of(stream) in cursors
        }
        watermark = cursors.get(WATERMARK_CURSOR) if self._feed.deterministic else None
        self.watermark = None if watermark is None else from_milliseconds(int(watermark))
        newest = await self._storage.newest(streams)
        await self._announce(newest)  # what an earlier run stored and was killed before announcing
        self._validator = CandleValidator(
            self._rules, {StreamKey(candle.symbol, candle.timeframe): candle.close for candle in newest}
        )
        self._gaps = GapTracker(open_times)
        await self._ahead.load(streams, self.watermark)
        self._log.info("collector.starts", feed=self._feed.identity, streams=len(streams), after=str(self.watermark))
        return ResumePoint(self.watermark, open_times)

    def _count_from_zero(self, streams: Iterable[StreamKey]) -> None:
        """Make every count that an alarm looks at known before the first one."""
        for stream in streams:
            self._metrics.gap(str(stream), 0)
        for reason in QUARANTINE_REASONS:
            self._metrics.quarantined(reason, 0)

    async def _mark(self, cursors: Mapping[str, str]) -> None:
        """Stamp a new state with its feed; forget an earlier end, as this run may have more to send."""
        identity = self._feed.identity
        stored = cursors.get(FEED_CURSOR, identity)
        if stored != identity:
            raise ConfigError(
                f"feed: this state holds candles of feed {stored!r}, {identity!r} was asked for; "
                "give another --state, or move this one aside with `trading reset --paper`"
            )
        if self._live is not None:
            self._loading = frozenset(stream for stream in self._feed.streams() if _is_loading(stream, cursors))
        async with self._database.get_session() as session:
            started = {live_from_cursor(stream): LOADING for stream in self._loading}
            await self._database.write_cursors(session, {FEED_CURSOR: identity, **started})
            await session.execute(delete(CursorRow).where(CursorRow.name == END_CURSOR))

    async def _finish(self) -> None:
        """Note that a replay has sent its last candle; a second run without new candles ends at once."""
        last = self.watermark
        if last is None:
            return
        await self._storage.write(StoreBatch(cursors={END_CURSOR: to_milliseconds(last)}))
        await self._announce((), last)
        self._log.info("collector.ends", last=last.isoformat())

    def _batches(self, resume: ResumePoint) -> AsyncIterator[FeedBatch]:
        if self._live is None:
            return self._feed.batches(resume)
        rules = BackfillRules(
            history_candles=self._config.history_candles,
            history_needed=self._config.history_needed,
            loading=self._loading,
            compare_seconds=self._config.compare_seconds,
            batch_candles_max=self._config.batch_candles_max,
        )
        return ContiguousFeed(self._live, self._clock, self._log, rules).batches(resume)


def cursor_of(stream: StreamKey) -> str:
    """Return the name of a stream's cursor: the open time (ms) of its newest stored candle."""
    return f"{CANDLES_CURSOR}/{stream.symbol}/{stream.timeframe}"


def _is_loading(stream: StreamKey, cursors: Mapping[str, str]) -> bool:
    """Return whether a live stream's history is still to be loaded: never begun, or cut off by a kill."""
    mark = cursors.get(live_from_cursor(stream))
    return mark == str(LOADING) or (mark is None and cursor_of(stream) not in cursors)

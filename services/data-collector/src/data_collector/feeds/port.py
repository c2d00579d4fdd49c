"""What every feed offers: closed candles in batches, and what a hole held according to its source."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol, runtime_checkable

from shared.events import CandleOpened
from shared.models import Candle, to_milliseconds


class StreamKey(NamedTuple):
    """One stream of candles: a symbol in one timeframe."""

    symbol: str
    timeframe: str

    def __str__(self) -> str:
        """Return `SYMBOL timeframe`, as logs print it."""
        return f"{self.symbol} {self.timeframe}"


@dataclass(frozen=True, slots=True)
class CandleGap:
    """A hole in a stream: no candle opens in `start_time` (inclusive) to `end_time` (exclusive)."""

    stream: StreamKey
    start_time: datetime
    end_time: datetime
    candles_missing: int
    confirmed: bool = True


@dataclass(frozen=True, slots=True)
class MalformedCandle:
    """What a feed sent and nobody can read as a candle; `payload` is its text, cut to a bound."""

    stream: str
    payload: str
    reason: str


@dataclass(frozen=True, slots=True)
class FeedBatch:
    """What a feed hands over at once.

    `candles` are ordered by (close time, symbol, timeframe). `watermark` is the close time up to which every
    stream is complete: only deterministic feeds know it. `reconnected` says that the connection was made anew, so
    every stream is to be back-filled up to now. `history_ends` names the streams whose first load is complete with
    this batch, and its last open time (None: the venue had nothing).
    """

    candles: tuple[Candle, ...] = ()
    watermark: datetime | None = None
    opened: tuple[CandleOpened, ...] = ()
    confirmed_gaps: tuple[CandleGap, ...] = ()
    malformed: tuple[MalformedCandle, ...] = ()
    reconnected: bool = False
    history_ends: Mapping[StreamKey, datetime | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where the last run stopped: the close time wholly stored, and each stream's last open time."""

    watermark: datetime | None = None
    open_times: Mapping[StreamKey, datetime] = field(default_factory=dict)

    @property
    def watermark_ms(self) -> int | None:
        """Return the watermark in milliseconds, None before the first candle."""
        return None if self.watermark is None else to_milliseconds(self.watermark)


class Feed(Protocol):
    """A source of candles.

    `deterministic` feeds (replay, simulated) send whole close times, ordered, and a hole in them is a fact.
    Others (a venue's socket) send what arrives; `history` is what the source answers when asked again, so an
    empty answer about a past moment confirms a hole.
    """

    @property
    def name(self) -> str:
        """Return the feed's word in settings."""

    @property
    def deterministic(self) -> bool:
        """Return whether every batch completes its close times."""

    @property
    def identity(self) -> str:
        """Return what must not change between two runs on one state, e.g. `simulated seed=1`."""

    def streams(self) -> Sequence[StreamKey]:
        """Return every stream served, sorted."""

    async def history(self, symbol: str, timeframe: str, since: datetime, until: datetime) -> Sequence[Candle]:
        """Return the closed candles with `since <= open_time < until`, ordered, at most `history_rows_max`."""

    def batches(self, resume: ResumePoint) -> AsyncIterator[FeedBatch]:
        """Return the batches after `resume`; the iterator ends when the feed has nothing more."""

    async def close(self) -> None:
        """Release what the feed holds."""


@runtime_checkable
class LiveFeed(Feed, Protocol):
    """A feed with a venue behind it: candles come when they close, by a clock that is not ours."""

    @property
    def clock_offset(self) -> timedelta:
        """Return the venue's clock less ours, as last measured."""

    async def newest(self, symbol: str, timeframe: str) -> datetime | None:
        """Return the open time of the newest closed candle that the venue has, None when it has none."""

    def troubles(self) -> Sequence[str]:
        """Return what keeps candles from coming now, each as a line; nothing when all is well."""

"""Whether a live feed still speaks: what the feed says of itself, and which stream has brought nothing for long."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from data_collector.feeds.port import LiveFeed, StreamKey
from data_collector.gaps import GapTracker
from shared.clock import Clock
from shared.metrics import ServiceMetrics
from shared.models import TIMEFRAME_DELTA

CLOCK_SKEW = timedelta(seconds=2)  # how wrong we may be about the venue's clock before a candle seems unclosed


class LiveWatch:
    """Follows, by machine time, when each stream last brought a new candle: a market at speed has stamps of its own."""

    def __init__(self, feed: LiveFeed, clock: Clock, metrics: ServiceMetrics) -> None:
        self._feed, self._clock, self._metrics = feed, clock, metrics
        self._heard_at: dict[StreamKey, float] = {}

    @property
    def closed_before(self) -> datetime:
        """Return the venue's time, and a little more: a candle that closes later is not closed."""
        return self._clock.now() + self._feed.clock_offset + CLOCK_SKEW

    def heard(self, streams: Iterable[StreamKey]) -> None:
        """Note that streams have brought a candle newer than all before."""
        self._heard_at.update(dict.fromkeys(streams, self._clock.monotonic()))

    def faults(self, gaps: GapTracker) -> list[str]:
        """Return what is wrong with the feed now, each as a line; measure every stream's age on the way."""
        troubles = list(self._feed.troubles())
        now, venue_now = self._clock.monotonic(), self._clock.now() + self._feed.clock_offset
        silent: list[str] = []
        for stream in self._feed.streams():
            step = TIMEFRAME_DELTA[stream.timeframe]
            last, heard = gaps.last_open_time(stream), self._heard_at.get(stream)
            if last is not None:
                age, age_max = venue_now - (last + step), 2 * step + CLOCK_SKEW
                self._metrics.data_age(str(stream), age.total_seconds(), age_max.total_seconds())
            if heard is None or now - heard > (2 * step + CLOCK_SKEW).total_seconds():
                silent.append(str(stream))
        return [*troubles, f"no candle for two timeframes: {', '.join(silent)}"] if silent else troubles

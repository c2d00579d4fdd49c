"""How long a candle takes from its close or announcement to the committed orders it caused."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import itemgetter

from shared.clock import Clock
from shared.domain.effects import Effect, Placed
from shared.events import Event, Watermark

SAMPLES_MAX = 2_000
ANNOUNCED_MAX = 5_000


class OrderLatency:
    """Seconds until orders are committed; the newest samples are kept, each is observed.

    With a live feed the time runs from the order's candle's close. A replayed candle closed long ago: there it runs from
    the collector's announcement, heard over the bus or told directly; a close time inside a batch was not announced by
    itself and does not count.
    """

    def __init__(
        self, clock: Clock, observe: Callable[[float], object] = lambda _seconds: None, *, is_live: bool = False
    ) -> None:
        self._clock, self._observe, self._is_live = clock, observe, is_live
        self._announced: deque[tuple[datetime, datetime]] = deque(maxlen=ANNOUNCED_MAX)
        self._samples: deque[float] = deque(maxlen=SAMPLES_MAX)

    def announced(self, watermark: datetime, at: datetime | None = None) -> None:
        """Note that candles up to `watermark` were announced, now unless `at` is told."""
        if not self._announced or watermark > self._announced[-1][0]:
            self._announced.append((watermark, at or self._clock.now()))

    def hear(self, event: Event) -> None:
        """Take the time of an announcement from the collector's own word, where it says so."""
        if isinstance(event.data, Watermark) and event.data.announced_at is not None and event.as_of is not None:
            self.announced(event.as_of, event.data.announced_at)

    def committed(self, effects: Sequence[Effect]) -> None:
        """Note that the orders among `effects` are in the database now."""
        for effect in effects:
            if isinstance(effect, Placed):
                since = effect.order.created_at if self._is_live else self._announcement(effect.order.created_at)
                if since is not None:
                    seconds = max(0.0, (self._clock.now() - since).total_seconds())
                    self._samples.append(seconds)
                    self._observe(seconds)

    def _announcement(self, close_time: datetime) -> datetime | None:
        place = bisect.bisect_left(self._announced, close_time, key=itemgetter(0))
        found = self._announced[place] if place < len(self._announced) else None
        return found[1] if found is not None and found[0] == close_time else None

    def percentiles_ms(self) -> dict[str, float | None]:
        """Return the median and the 99th percentile of the samples kept, in milliseconds; None before the first."""
        if not self._samples:
            return {"p50": None, "p99": None}
        ordered = sorted(self._samples)
        return {name: round(1000 * _percentile(ordered, share), 3) for name, share in (("p50", 0.5), ("p99", 0.99))}


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Return a percentile of sorted numbers, linear between two neighbours."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)

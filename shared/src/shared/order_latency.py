"""How long a candle takes from its announcement to the committed orders it caused."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime

from shared.domain.effects import Effect, Placed

SAMPLES_MAX = 2_000
ANNOUNCED_MAX = 5_000


class OrderLatency:
    """Seconds from a close time's announcement to its orders' commit; the newest samples are kept, each is observed.

    A close time inside a batch (history, a replay at full speed) was not announced by itself and does not count.
    """

    def __init__(self, observe: Callable[[float], object] = lambda _seconds: None) -> None:
        self._observe = observe
        self._announced: deque[tuple[datetime, float]] = deque(maxlen=ANNOUNCED_MAX)
        self._samples: deque[float] = deque(maxlen=SAMPLES_MAX)

    def announced(self, watermark: datetime, at_seconds: float) -> None:
        """Note that candles up to `watermark` were announced at `at_seconds` of some clock."""
        if not self._announced or watermark > self._announced[-1][0]:
            self._announced.append((watermark, at_seconds))

    def committed(self, effects: Sequence[Effect], at_seconds: float) -> None:
        """Note that the orders among `effects` were in the database at `at_seconds` of the same clock."""
        for effect in effects:
            if isinstance(effect, Placed):
                place = bisect.bisect_left(self._announced, (effect.order.created_at, float("-inf")))
                if place < len(self._announced) and self._announced[place][0] == effect.order.created_at:
                    seconds = max(0.0, at_seconds - self._announced[place][1])
                    self._samples.append(seconds)
                    self._observe(seconds)

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

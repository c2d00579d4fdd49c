"""How long a candle takes from its announcement to the committed orders it caused."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from shared.clock import Clock
from shared.domain.effects import Effect, Placed

SAMPLES_MAX = 2_000
ANNOUNCED_MAX = 5_000


class LatencyProbe:
    """Machine time from a close time's announcement to its orders' commit; the newest samples are kept.

    A close time inside a batch (history, a replay at full speed) was not announced by itself and does not count.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._announced: deque[tuple[datetime, float]] = deque(maxlen=ANNOUNCED_MAX)
        self._samples_ms: deque[float] = deque(maxlen=SAMPLES_MAX)

    def announced(self, watermark: datetime) -> None:
        """Note that candles up to `watermark` are about to be announced."""
        self._announced.append((watermark, self._clock.monotonic()))

    def committed(self, effects: Sequence[Effect]) -> None:
        """Note that the orders among `effects` are in the database."""
        now = self._clock.monotonic()
        for effect in effects:
            if isinstance(effect, Placed):
                place = bisect.bisect_left(self._announced, (effect.order.created_at, 0.0))
                if place < len(self._announced) and self._announced[place][0] == effect.order.created_at:
                    self._samples_ms.append(1000 * (now - self._announced[place][1]))

    def percentiles(self) -> dict[str, float | None]:
        """Return the median and the 99th percentile in milliseconds; None before the first order."""
        if not self._samples_ms:
            return {"p50": None, "p99": None}
        p50, p99 = np.percentile(list(self._samples_ms), [50, 99])
        return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}

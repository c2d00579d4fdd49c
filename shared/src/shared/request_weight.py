"""How much a venue lets us ask: request weight in windows of the clock, and pauses that it orders."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from shared.clock import Clock

WINDOW_SECONDS = 60
PAUSE_SECONDS_MAX = 3 * 86_400.0  # the longest ban a venue speaks of


class WeightBudget:
    """Spends at most `share` of the weight that a venue allows in each minute of its own clock.

    What the venue says was used counts when it is more than our own sum: others may ask from the same address.
    """

    def __init__(self, clock: Clock, *, weight_max: int = 6000, share: float = 0.4) -> None:
        if not (0 < share <= 1 and weight_max >= 1):
            raise ValueError(f"a share of 0 to 1 of at least 1 is needed, was {share} of {weight_max}")
        self._clock = clock
        self._share = share
        self._weight_max = weight_max
        self._window = -1
        self._used = 0
        self._paused_until = -math.inf
        self.offset = timedelta(0)  # the venue's clock less ours

    @property
    def weight_max(self) -> int:
        """Return how much of a minute's weight may be spent here."""
        return max(1, int(self._weight_max * self._share))

    @property
    def used(self) -> int:
        """Return the weight used in this minute, as far as it is known."""
        self._turn()
        return self._used

    @property
    def pause_seconds(self) -> float:
        """Return how long nothing may be asked; 0 when no pause was ordered."""
        return max(0.0, self._paused_until - self._clock.monotonic())

    def allow(self, weight_max: int) -> None:
        """Take the venue's own limit of a minute."""
        self._weight_max = max(1, weight_max)

    async def take(self, weight: int) -> None:
        """Wait until `weight` may be spent, and spend it; a request above the whole budget waits for a fresh minute."""
        while True:
            self._turn()
            pause = self.pause_seconds
            if pause > 0:
                await self._clock.sleep(pause)
            elif self._used == 0 or self._used + weight <= self.weight_max:
                self._used += weight
                return
            else:
                await self._clock.sleep(self._seconds_left())

    def report(self, used: int) -> None:
        """Take the venue's word on what was used in this minute."""
        self._turn()
        self._used = max(self._used, used)

    def pause(self, seconds: float) -> None:
        """Ask nothing for `seconds`: the venue ordered it."""
        until = self._clock.monotonic() + min(max(seconds, 0.0), PAUSE_SECONDS_MAX)
        self._paused_until = max(self._paused_until, until)

    def _turn(self) -> None:
        window = int(self._venue_now().timestamp()) // WINDOW_SECONDS
        if window != self._window:
            self._window, self._used = window, 0

    def _seconds_left(self) -> float:
        return WINDOW_SECONDS - self._venue_now().timestamp() % WINDOW_SECONDS + 0.05

    def _venue_now(self) -> datetime:
        return self._clock.now() + self.offset

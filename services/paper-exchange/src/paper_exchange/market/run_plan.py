"""When a recorded candle happens: one shift of the stamps, chosen once, and a pace.

Server time is the wall clock and candles keep their timeframe's grid, so at a speed above one the market and the
clock cannot agree all the time: an hour of market passes in a minute. They agree at one moment:

- `end` (the default): the run's last candle closes at the wall clock. Until then the market lies behind it and
  catches up, as an exchange does that works off a backlog. No stamp is ever ahead of server time, so whoever asks
  for candles up to "now", takes a candle as closed once its close time has passed, or compares event times with the
  clock is right. REST leaves the forming candle out while its close time has already passed by the clock: such a
  row would be taken for a closed one. A simulated market goes on at the clock's own pace once it has caught up.
- `start`: the run's first candle opens at the wall clock and later ones lie ahead of it. For programs that refuse
  old candles and do not mind early ones.

At speed 1 the two are the same: the candle that forms is the clock's own. Stamps move by whole timeframes, so with
files a candle may be as much as one timeframe older than its moment. Below speed 1 `start` is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

type Alignment = Literal["end", "start"]
ALIGNMENTS: Final[tuple[Alignment, ...]] = ("end", "start")


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The shift of every stamp, and market time as a function of the milliseconds since the run began."""

    shift_ms: int
    begin_ms: float
    speed: float
    caught_up_ms: float | None = None

    def market_ms(self, elapsed_ms: float) -> float:
        """Return the market's time `elapsed_ms` of machine time after the beginning."""
        market = self.begin_ms + elapsed_ms * self.speed
        if self.caught_up_ms is None or market <= self.caught_up_ms:
            return market
        return self.caught_up_ms + elapsed_ms - (self.caught_up_ms - self.begin_ms) / self.speed

    def elapsed_ms(self, market_ms: float) -> float:
        """Return after how many milliseconds of machine time the market's time is `market_ms`."""
        if self.caught_up_ms is None or market_ms <= self.caught_up_ms:
            return (market_ms - self.begin_ms) / self.speed
        return (self.caught_up_ms - self.begin_ms) / self.speed + market_ms - self.caught_up_ms


@dataclass(frozen=True, slots=True)
class RunSpan:
    """The recorded stamps of a run: `first_ms` opens its first candle, `end_ms` closes its last.

    `grid_ms` is a length that every timeframe divides or equals; `endless` runs go on after `end_ms`.
    """

    first_ms: int
    end_ms: int
    grid_ms: int
    endless: bool = False


def plan_run(span: RunSpan, *, now_ms: int, speed: float, alignment: Alignment) -> RunPlan:
    """Return the plan of a run that begins at `now_ms` of the wall clock."""
    if speed > 1 and alignment == "end":
        return _catching_up(span, now_ms, speed)
    first_ms = now_ms - now_ms % span.grid_ms
    begin_ms = now_ms if speed == 1 else first_ms
    return RunPlan(_shift(span, first_ms), begin_ms, speed)


def _catching_up(span: RunSpan, now_ms: int, speed: float) -> RunPlan:
    length_ms = span.end_ms - span.first_ms
    if span.endless:
        until_ms = now_ms + length_ms / speed
        caught_up_ms = int(-(-until_ms // span.grid_ms)) * span.grid_ms
        begin_ms = caught_up_ms - (caught_up_ms - now_ms) * speed
        first_ms = int(begin_ms // span.grid_ms) * span.grid_ms
        return RunPlan(_shift(span, first_ms), begin_ms, speed, float(caught_up_ms))
    latest_ms = now_ms - length_ms * (1 - 1 / speed)
    first_ms = int((latest_ms - span.first_ms) // span.grid_ms) * span.grid_ms + span.first_ms
    return RunPlan(_shift(span, first_ms), first_ms, speed)


def _shift(span: RunSpan, first_ms: int) -> int:
    """Return the whole number of grid steps that brings the run's first candle to `first_ms`, or to just before."""
    return (first_ms - span.first_ms) // span.grid_ms * span.grid_ms

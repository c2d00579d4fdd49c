"""Bollinger bands: buy when the price comes back from below the lower band, sell when it comes back from above.

Source: after Bollinger, "Bollinger on Bollinger Bands", 2001.
"""

# ruff: noqa: ARG001 - a step takes every number of its candle

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from shared.models import OrderSide
from shared.strategy import HOLD, CompiledStrategy, Ring, StrategyParams, seldom

INSIDE, BELOW, ABOVE = 0, 1, 2  # a mark is the action of the return: from below BUY, from above SELL
PREVIOUS = 0
BAND_TOLERANCE = 1e-12
NEAR = 1.0 - 1e-6  # squares nearer to each other than this are compared by their roots
NEAR_PRICE = 1e-5  # and closes nearer to the mean
SUM_ERROR = 1e-7  # what the running sums may be off, as a part of the squares: far less than makes two figures near
ROUNDING = 2.0**-53
SQUARES_MIN = 1e-280  # below it a product may lose places
PERIOD_HUGE = 2**53  # more closes than any memory holds
MUTED_MIN = 100
MUTED_SHARE = 0.95


class BollingerParams(StrategyParams):
    """Parameters of the Bollinger strategy; `window` says whether the bands know this candle's close."""

    period: int = Field(default=20, ge=2)
    num_std: float = Field(default=2.0, gt=0)
    min_bandwidth: float = Field(default=0.02, ge=0)
    window: Literal["previous", "current"] = "previous"

    @model_validator(mode="after")
    def _can_fire(self) -> Self:
        period = min(self.period, PERIOD_HUGE)
        farthest = (period - 1) / period**0.5
        if self.window == "current" and self.num_std >= farthest * (1 - BAND_TOLERANCE):
            raise ValueError(
                f"num_std {self.num_std:g} with window current and period {self.period} can never fire: no close lies "
                f"more than {farthest:.4g} deviations from a mean it is part of; lower num_std or use window previous"
            )
        return self


def step(
    state: Any, params: Any, open_time: int, open: float, high: float, low: float, close: float, volume: float
) -> int:
    """Compare this close with the bands: outside marks, coming back inside unmarks and signals.

    The bands are not worked out: running sums of distances from a reference say on which side of them a close is,
    wherever it is farther from them than the sums can be wrong; else `judge` looks at the window itself.
    """
    place = state.place
    left = state.closes[place]
    state.closes[place] = close
    distance, gone = close - state.reference, left - state.reference
    total, squares, weight = state.total, state.squares, state.weight
    state.total = total + (distance - gone)
    state.squares = squares + (distance - gone) * (distance + gone)
    state.weight = weight + distance * distance
    if params.window != PREVIOUS:
        total, squares, weight = state.total, state.squares, state.weight
    mean = params.count * state.reference + total
    renew(state, params, close)
    if seldom(state.candle_count <= params.speechless):
        return HOLD
    apart = params.count * distance - total
    spread = apart * apart
    known = params.count * squares - total * total
    reach = params.factor * known
    limit = params.min_bandwidth * mean
    bound = limit * limit
    inside = spread < NEAR * reach
    outside = (reach < NEAR * spread) & (abs(apart) > NEAR_PRICE * mean)
    muted = 4.0 * reach < NEAR * bound
    is_sure = (known > params.distrust * weight + SQUARES_MIN) & (mean > 0.0)
    if seldom(not ((inside | outside) & (muted | (bound < NEAR * 4.0 * reach)) & is_sure)):
        return judge(state, params, place, left, close)
    mark = state.mark
    state.mark = int(outside) * (BELOW + int(apart > 0.0))
    state.muted += int(muted)
    state.left = left
    return int(mark * int(inside & (not muted)))


def renew(state: Any, params: Any, close: float) -> None:
    """Sum anew beside the running sums: after each `period` candles these sums are the window's, and take over."""
    distance = close - state.next_reference
    state.next_total += distance
    state.next_squares += distance * distance
    state.place += 1
    if seldom(state.place == params.period):
        state.place = 0
        state.reference = state.next_reference
        state.total = state.next_total
        state.squares = state.next_squares
        state.weight = state.next_squares
        state.next_reference = close
        state.next_total = 0.0
        state.next_squares = 0.0


def judge(state: Any, params: Any, place: int, left: float, close: float) -> int:
    """Return the action of a close against the bands themselves, and mark what it says."""
    state.left = left
    mean, squares = close, 0.0
    if state.weight != 0.0:  # else the price has stood still for longer than the window
        if params.window == PREVIOUS:
            state.closes[place] = left
        mean, squares = exact_window(state.closes, params.period)
        state.closes[place] = close
    width = params.num_std * (squares / (params.period - 1)) ** 0.5
    lower = mean - width
    upper = mean + width
    muted = (upper - lower) / mean < params.min_bandwidth
    below = lower - close > BAND_TOLERANCE * abs(lower)
    above = close - upper > BAND_TOLERANCE * abs(upper)
    mark = state.mark
    state.mark = BELOW if below else ABOVE if above else INSIDE
    state.muted += int(muted)
    return HOLD if muted or below or above else int(mark)


def exact_window(closes: Any, period: int) -> tuple[float, float]:
    """Return the mean of the first `period` closes and the sum of their squared distances from it.

    The distances from a first mean say what rounding took from it (Chan, Golub & LeVeque, 1983).
    """
    total = 0.0
    for place in range(period):
        total += closes[place] - closes[0]
    mean = closes[0] + total / period
    total, squares = 0.0, 0.0
    for place in range(period):
        distance = closes[place] - mean
        total += distance
        squares += distance * distance
    return mean + total / period, squares - total * (total / period)


class BollingerStrategy(CompiledStrategy):
    """Trades the return into the bands after a close outside them."""

    name = "bollinger"
    Params = BollingerParams
    params: BollingerParams
    step = staticmethod(step)

    @property
    def warmup_period(self) -> int:
        """Return the period."""
        return self.params.period

    def derived_params(self) -> Mapping[str, int | float]:
        """Return what the step multiplies by, and which part of `weight` the window's squares must be to be trusted.

        With `weight` the sum W of all squared distances since the sums were made anew, at most 2n of them, and u the
        rounding of one figure: n x squares - total^2 is off by less than 32 n^2 u W, the distance from the mean times n
        by less than 10 n u sqrt(n W), and n means by as much. `distrust` keeps each below SUM_ERROR.
        """
        count = float(self.params.period)
        factor = self.params.num_std * self.params.num_std * count / (count - 1.0)
        part = ROUNDING / SUM_ERROR
        from_squares = 32.0 * count**2 * part
        from_distance = 400.0 * (count * part) ** 2 * count * (1.0 / max(factor, SQUARES_MIN) + count)
        distrust = from_squares + from_distance
        speechless = self.params.period - (self.params.window == "current")
        return {"count": count, "factor": factor, "distrust": distrust, "speechless": speechless}

    def state_fields(self) -> Mapping[str, int | float | Ring]:
        """Return the window and the close that has left it, the sums over it, the mark and a counter."""
        sums = {"reference": 0.0, "total": 0.0, "squares": 0.0, "weight": 0.0}
        renewed = {f"next_{name}": 0.0 for name in ("reference", "total", "squares")}
        counts = {"mark": INSIDE, "muted": 0, "place": 0}
        return {**counts, "left": 0.0, **sums, **renewed, "closes": Ring(self.params.period)}

    def describe(self, state: Any, side: OrderSide) -> str:
        """Return the close, the band it came back through and the bandwidth."""
        closes, newest = state["closes"][: self.params.period], int(state["place"]) - 1
        close = float(closes[newest])
        if self.params.window == "previous":
            closes = closes.copy()
            closes[newest] = state["left"]
        mean = float(closes[0] + (closes - closes[0]).mean())
        width = self.params.num_std * float(closes.std(ddof=1))
        is_buy = side is OrderSide.BUY
        return (
            f"close {close:.8g} back inside the {'lower' if is_buy else 'upper'} band "
            f"{mean - width if is_buy else mean + width:.8g} (mean {mean:.8g}, bandwidth {2.0 * width / mean:.4f})"
        )

    def notices(self) -> list[str]:
        """Report a bandwidth filter that mutes nearly every candle."""
        state = self.state
        judged, muted = int(state["candle_count"]) - int(self._values["speechless"][0]), int(state["muted"])
        if judged < MUTED_MIN or muted <= MUTED_SHARE * judged:
            return []
        return [
            f"bollinger: min_bandwidth {self.params.min_bandwidth:g} muted {muted / judged:.1%} of {judged} candles; "
            "lower it for this symbol and timeframe"
        ]

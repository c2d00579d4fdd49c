"""Bollinger bands: buy when the price comes back from below the lower band, sell when it comes back from above.

Source: after Bollinger, "Bollinger on Bollinger Bands", 2001.
"""

# ruff: noqa: ARG001 - a step takes every number of its candle

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from shared.indicators import rolling_full, rolling_mean, rolling_push, rolling_room, rolling_squares
from shared.models import OrderSide
from shared.strategy import BUY, HOLD, SELL, CompiledStrategy, Ring, StrategyParams

INSIDE, BELOW, ABOVE = 0, 1, 2
PREVIOUS = 0
BAND_TOLERANCE = 1e-12
NEAR = 1.0 - 1e-6  # squares nearer to each other than this are compared by their roots
NEAR_PRICE = 1e-5  # and closes nearer to the mean
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
        farthest = (self.period - 1) / self.period**0.5
        if self.window == "current" and self.num_std >= farthest * (1 - BAND_TOLERANCE):
            raise ValueError(
                f"num_std {self.num_std:g} with window current and period {self.period} can never fire: no close lies "
                f"more than {farthest:.4g} deviations from a mean it is part of; lower num_std or use window previous"
            )
        return self


def step(
    state: Any, params: Any, open_time: int, open: float, high: float, low: float, close: float, volume: float
) -> int:
    """Compare this close with the bands: outside marks, coming back inside unmarks and signals."""
    if params.window != PREVIOUS:
        rolling_push(state.closes, params.period, close)
    if not rolling_full(state.closes):
        if params.window == PREVIOUS:
            rolling_push(state.closes, params.period, close)
        return HOLD
    mean = rolling_mean(state.closes, params.period)
    squares = rolling_squares(state.closes, params.period)
    if params.window == PREVIOUS:
        rolling_push(state.closes, params.period, close)
    freedom = params.period - 1
    distance = close - mean
    limit = params.min_bandwidth * mean
    spread = freedom * (distance * distance)
    bound = freedom * (limit * limit)
    reach = params.num_std * params.num_std * squares
    inside = spread < NEAR * reach
    outside = (reach < NEAR * spread) & (abs(distance) > NEAR_PRICE * abs(mean))
    muted = 4.0 * reach < NEAR * bound
    if not ((inside | outside) & (muted | (bound < NEAR * 4.0 * reach)) & (mean > 0.0)):
        return judge(state, params, mean, squares, close)
    mark = state.mark
    if (mark == INSIDE) | outside | muted:  # one jump for all: which of them holds is anybody's guess
        state.mark = int(outside) * (BELOW + int(distance > 0.0))
        state.judged += 1
        state.muted += int(muted)
        return HOLD
    return judge(state, params, mean, squares, close)


def judge(state: Any, params: Any, mean: float, squares: float, close: float) -> int:
    """Return the action of a close against the bands themselves, and mark what it says."""
    width = params.num_std * (squares / (params.period - 1)) ** 0.5
    lower = mean - width
    upper = mean + width
    muted = (upper - lower) / mean < params.min_bandwidth
    below = lower - close > BAND_TOLERANCE * abs(lower)
    above = close - upper > BAND_TOLERANCE * abs(upper)
    mark = state.mark
    state.mark = BELOW if below else ABOVE if above else INSIDE
    state.judged += 1
    state.muted += int(muted)
    if mark == INSIDE or muted or below or above:
        return HOLD
    state.close = close
    state.band = lower if mark == BELOW else upper
    state.mean = mean
    state.bandwidth = (upper - lower) / mean
    return BUY if mark == BELOW else SELL


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

    def state_fields(self) -> Mapping[str, int | float | Ring]:
        """Return the window, the mark, two counters and the numbers of the last signal."""
        numbers = {"close": 0.0, "band": 0.0, "mean": 0.0, "bandwidth": 0.0}
        return {"mark": INSIDE, "judged": 0, "muted": 0, **numbers, "closes": Ring(rolling_room(self.params.period))}

    def describe(self, state: Any, side: OrderSide) -> str:
        """Return the close, the band it came back through and the bandwidth."""
        band = "lower" if side is OrderSide.BUY else "upper"
        return (
            f"close {state['close']:.8g} back inside the {band} band {state['band']:.8g} "
            f"(mean {state['mean']:.8g}, bandwidth {state['bandwidth']:.4f})"
        )

    def notices(self) -> list[str]:
        """Report a bandwidth filter that mutes nearly every candle."""
        state = self.state
        judged, muted = int(state["judged"]), int(state["muted"])
        if judged < MUTED_MIN or muted <= MUTED_SHARE * judged:
            return []
        return [
            f"bollinger: min_bandwidth {self.params.min_bandwidth:g} muted {muted / judged:.1%} of {judged} candles; "
            "lower it for this symbol and timeframe"
        ]

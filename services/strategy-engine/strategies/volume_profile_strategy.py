"""Volume profile: buy the return into the value area from below, sell the return from above.

Source: after Steidlmayer & Hawkins, "Steidlmayer on Markets", 2003.
"""

# ruff: noqa: ARG001 - a step takes every number of its candle

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from shared.indicators import (
    profile_area,
    profile_fields,
    profile_is_central,
    profile_push,
    profile_renew,
    profile_side,
)
from shared.models import OrderSide
from shared.strategy import BUY, HOLD, SELL, CompiledStrategy, Ring, StrategyParams

INSIDE, BELOW, ABOVE = 0, 1, 2


class VolumeProfileParams(StrategyParams):
    """Parameters of the volume profile strategy."""

    lookback_period: int = Field(default=100, gt=0)
    num_bins: int = Field(default=50, gt=0)
    value_area_pct: float = Field(default=0.7, gt=0, le=1)


def side_of(state: Any, params: Any, close: float) -> int:
    """Return on which side of the value area of the candles before it a close lies; 0 inside."""
    if close < state.lowest:
        return -1
    if close > state.highest:
        return 1
    profile_renew(state, params.lookback_period, params.num_bins)
    if state.mark == INSIDE and profile_is_central(state, params.num_bins, params.value_area_pct, close):
        return 0
    return profile_side(state, params.num_bins, params.value_area_pct, close)


def judge(state: Any, params: Any, close: float) -> int:
    """Return the action of a close against the profile of the candles before it."""
    if not (state.highest > state.lowest and state.volume > 0.0):
        return HOLD
    side = side_of(state, params, close)
    if side != 0:
        state.mark = BELOW if side < 0 else ABOVE
        return HOLD
    mark = state.mark
    if mark == INSIDE:
        return HOLD
    if close > state.point_of_control if mark == BELOW else close < state.point_of_control:
        return HOLD
    profile_area(state, params.num_bins, params.value_area_pct)
    state.close = close
    state.mark = INSIDE
    return BUY if mark == BELOW else SELL


def step(
    state: Any, params: Any, open_time: int, open: float, high: float, low: float, close: float, volume: float
) -> int:
    """Judge this close by the candles before it, then put this candle in place of the oldest."""
    action = HOLD
    if state.candle_count > params.lookback_period:
        action = judge(state, params, close)
    profile_push(state, params.lookback_period, params.num_bins, (low, high, volume))
    return action


class VolumeProfileStrategy(CompiledStrategy):
    """Trades the return into the prices at which most of the volume changed hands."""

    name = "volume_profile"
    Params = VolumeProfileParams
    params: VolumeProfileParams
    step = staticmethod(step)

    @property
    def warmup_period(self) -> int:
        """Return the lookback period."""
        return self.params.lookback_period

    def state_fields(self) -> Mapping[str, int | float | Ring]:
        """Return the profile, the mark and the last close that signalled."""
        return {"mark": INSIDE, "close": 0.0, **profile_fields(self.params.lookback_period, self.params.num_bins)}

    def describe(self, state: Any, side: OrderSide) -> str:
        """Return the close, the value area and the point of control."""
        low, point, high = state["value_low"], state["point_of_control"], state["value_high"]
        way = "below" if side is OrderSide.BUY else "above"
        return (
            f"close {state['close']:.8g} back from {way} into the value area {low:.8g}..{high:.8g} "
            f"(point of control {point:.8g})"
        )

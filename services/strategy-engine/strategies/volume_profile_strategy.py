"""Volume profile: buy the return into the value area from below, sell the return from above.

Source: after Steidlmayer & Hawkins, "Steidlmayer on Markets", 2003.
"""

# ruff: noqa: ARG001 - a step takes every number of its candle

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from shared.indicators import profile_area, profile_fill, profile_range
from shared.models import OrderSide
from shared.strategy import BUY, HOLD, SELL, CompiledStrategy, Ring, StrategyParams

INSIDE, BELOW, ABOVE = 0, 1, 2
VALUE_LOW, POINT_OF_CONTROL, VALUE_HIGH = 3, 4, 5


class VolumeProfileParams(StrategyParams):
    """Parameters of the volume profile strategy."""

    lookback_period: int = Field(default=100, gt=0)
    num_bins: int = Field(default=50, gt=0)
    value_area_pct: float = Field(default=0.7, gt=0, le=1)


def judge(state: Any, params: Any, close: float) -> int:
    """Return the action of a close against the profile of the candles before it."""
    profile_range(state.lows, state.highs, state.volumes, params.lookback_period, state.profile)
    if not (state.profile[1] > state.profile[0] and state.profile[2] > 0.0):
        return HOLD
    profile_fill(
        state.lows, state.highs, state.volumes, params.lookback_period, state.bins, params.num_bins, state.profile
    )
    profile_area(state.bins, params.num_bins, params.value_area_pct, state.profile)
    state.close = close
    if close < state.profile[VALUE_LOW]:
        state.mark = BELOW
    elif close > state.profile[VALUE_HIGH]:
        state.mark = ABOVE
    elif state.mark == BELOW and close <= state.profile[POINT_OF_CONTROL]:
        state.mark = INSIDE
        return BUY
    elif state.mark == ABOVE and close >= state.profile[POINT_OF_CONTROL]:
        state.mark = INSIDE
        return SELL
    return HOLD


def step(
    state: Any, params: Any, open_time: int, open: float, high: float, low: float, close: float, volume: float
) -> int:
    """Judge this close by the candles before it, then put this candle in place of the oldest."""
    action = HOLD
    if state.candle_count > params.lookback_period:
        action = judge(state, params, close)
    state.lows[state.place] = low
    state.highs[state.place] = high
    state.volumes[state.place] = volume
    state.place += 1
    if state.place == params.lookback_period:
        state.place = 0
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
        """Return the candles looked back on, the mark, the profile and its bins."""
        candles = Ring(self.params.lookback_period)
        rings = {"lows": candles, "highs": candles, "volumes": candles, "bins": Ring(2 * self.params.num_bins + 1)}
        return {"place": 0, "mark": INSIDE, "close": 0.0, "profile": Ring(6), **rings}

    def describe(self, state: Any, side: OrderSide) -> str:
        """Return the close, the value area and the point of control."""
        low, point, high = (state["profile"][place] for place in (VALUE_LOW, POINT_OF_CONTROL, VALUE_HIGH))
        way = "below" if side is OrderSide.BUY else "above"
        return (
            f"close {state['close']:.8g} back from {way} into the value area {low:.8g}..{high:.8g} "
            f"(point of control {point:.8g})"
        )

"""Volume profile: buy the return into the value area from below, sell the return from above.

Source: after Steidlmayer & Hawkins, "Steidlmayer on Markets", 2003.
"""

# ruff: noqa: ARG001 - a step takes every number of its candle

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from shared.indicators import (
    CANDLE_NUMBERS,
    PROFILE_NUMBERS,
    profile_area,
    profile_change,
    profile_fill,
    profile_put,
    profile_range,
    profile_room,
    profile_side,
)
from shared.models import OrderSide
from shared.strategy import BUY, HOLD, SELL, CompiledStrategy, Ring, StrategyParams

INSIDE, BELOW, ABOVE = 0, 1, 2
VALUE_LOW, POINT_OF_CONTROL, VALUE_HIGH = 3, 4, 5
SEEN_MAX = 16.0  # what passed through the bins since they were summed, in volumes they hold: bounds their rounding


class VolumeProfileParams(StrategyParams):
    """Parameters of the volume profile strategy."""

    lookback_period: int = Field(default=100, gt=0)
    num_bins: int = Field(default=50, gt=0)
    value_area_pct: float = Field(default=0.7, gt=0, le=1)


def judge(state: Any, params: Any, close: float) -> int:
    """Return the action of a close against the profile of the candles before it."""
    lowest = state.profile[0]
    highest = state.profile[1]
    if not (highest > lowest and state.traded > 0):
        return HOLD
    if close < lowest:
        state.mark = BELOW
        return HOLD
    if close > highest:
        state.mark = ABOVE
        return HOLD
    if state.fresh == 0:
        profile_fill(state.candles, params.lookback_period, state.bins, params.num_bins, state.profile)
        state.fresh = params.lookback_period
        state.seen = state.profile[2]
    side = profile_side(state.bins, params.num_bins, params.value_area_pct, state.profile, close)
    if side != 0:
        state.mark = BELOW if side < 0 else ABOVE
        return HOLD
    mark = state.mark
    if mark == INSIDE:
        return HOLD
    point = state.profile[POINT_OF_CONTROL]
    if close > point if mark == BELOW else close < point:
        return HOLD
    profile_area(state.bins, params.num_bins, params.value_area_pct, state.profile)
    state.close = close
    state.mark = INSIDE
    return BUY if mark == BELOW else SELL


def keep_bins(state: Any, params: Any, low: float, high: float, volume: float) -> None:
    """Put this candle in place of the oldest in the bins as well, as long as the range stays and they are exact."""
    old = CANDLE_NUMBERS * state.place
    lowest = state.profile[0]
    highest = state.profile[1]
    if not (low >= lowest and high <= highest and state.candles[old] > lowest and state.candles[old + 1] < highest):
        state.fresh = 0
        profile_put(state.candles, state.place, low, high, volume)
        return
    profile_change(state.candles, state.place, -1.0, state.bins, params.num_bins, state.profile)
    profile_put(state.candles, state.place, low, high, volume)
    profile_change(state.candles, state.place, 1.0, state.bins, params.num_bins, state.profile)
    state.fresh -= 1
    state.seen += volume
    if state.seen > SEEN_MAX * state.profile[2]:
        state.fresh = 0


def step(
    state: Any, params: Any, open_time: int, open: float, high: float, low: float, close: float, volume: float
) -> int:
    """Judge this close by the candles before it, then put this candle in place of the oldest."""
    action = HOLD
    is_full = state.candle_count > params.lookback_period
    if is_full:
        action = judge(state, params, close)
    old = CANDLE_NUMBERS * state.place
    lowest = state.profile[0]
    highest = state.profile[1]
    is_lost = is_full and (
        (state.candles[old] == lowest and low > lowest) or (state.candles[old + 1] == highest and high < highest)
    )
    state.traded += int(volume > 0.0) - int(is_full and state.candles[old + 2] > 0.0)
    if state.fresh > 0:
        keep_bins(state, params, low, high, volume)
    else:
        profile_put(state.candles, state.place, low, high, volume)
    if is_lost:
        profile_range(state.candles, params.lookback_period, state.profile)
    else:
        state.profile[0] = low if state.candle_count == 1 else min(lowest, low)
        state.profile[1] = high if state.candle_count == 1 else max(highest, high)
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
        rings = {
            "candles": Ring(CANDLE_NUMBERS * self.params.lookback_period),
            "bins": Ring(profile_room(self.params.num_bins)),
            "profile": Ring(PROFILE_NUMBERS),
        }
        return {"place": 0, "mark": INSIDE, "traded": 0, "fresh": 0, "seen": 0.0, "close": 0.0, **rings}

    def describe(self, state: Any, side: OrderSide) -> str:
        """Return the close, the value area and the point of control."""
        low, point, high = (state["profile"][place] for place in (VALUE_LOW, POINT_OF_CONTROL, VALUE_HIGH))
        way = "below" if side is OrderSide.BUY else "above"
        return (
            f"close {state['close']:.8g} back from {way} into the value area {low:.8g}..{high:.8g} "
            f"(point of control {point:.8g})"
        )

"""Relative strength index: buy when it enters (or leaves) the oversold zone, sell at the overbought one.

Source: Wilder, "New Concepts in Technical Trading Systems", 1978.
"""

# ruff: noqa: ARG001 - a step takes every number of its candle

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from shared.indicators import rsi_value, wilder_update
from shared.models import OrderSide
from shared.strategy import BUY, HOLD, SELL, CompiledStrategy, History, StrategyParams, candles_to_forget

NEUTRAL, OVERSOLD, OVERBOUGHT = 0, 1, 2
ENTER = 0


class RsiParams(StrategyParams):
    """Parameters of the RSI strategy."""

    period: int = Field(default=14, gt=0)
    oversold: float = Field(default=30.0, ge=0, le=100)
    overbought: float = Field(default=70.0, ge=0, le=100)
    trigger: Literal["enter", "leave"] = "enter"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.oversold >= self.overbought:
            raise ValueError(f"oversold ({self.oversold:g}) must be below overbought ({self.overbought:g})")
        return self


def step(
    state: Any, params: Any, open_time: int, open: float, high: float, low: float, close: float, volume: float
) -> int:
    """Update both averages by this close, then compare the zone with the last one."""
    count = state.candle_count
    before = state.close
    state.close = close
    if count == 1:
        return HOLD
    change = close - before
    gain = max(change, 0.0)
    loss = max(-change, 0.0)
    if count <= params.period + 1:
        state.gain += gain
        state.loss += loss
        if count <= params.period:
            return HOLD
        state.gain /= params.period
        state.loss /= params.period
    else:
        state.gain = wilder_update(state.gain, gain, params.period)
        state.loss = wilder_update(state.loss, loss, params.period)
    state.rsi = rsi_value(state.gain, state.loss)
    zone = NEUTRAL
    if state.rsi < params.oversold:
        zone = OVERSOLD
    elif state.rsi > params.overbought:
        zone = OVERBOUGHT
    last = state.zone
    state.zone = zone
    if zone == last:
        return HOLD
    told = zone if params.trigger == ENTER else last
    if told == OVERSOLD:
        return BUY
    return SELL if told == OVERBOUGHT else HOLD


class RsiStrategy(CompiledStrategy):
    """Buys weakness and sells strength by Wilder's relative strength index."""

    name = "rsi"
    Params = RsiParams
    params: RsiParams
    step = staticmethod(step)

    @property
    def warmup_period(self) -> int:
        """Return the candle of the first RSI value."""
        return self.params.period + 1

    def history(self, now: datetime) -> History:  # noqa: ARG002
        """Return the candles after which Wilder's averages have forgotten their seed."""
        return History(candles=max(self.warmup_period, candles_to_forget(1 - 1 / self.params.period)))

    def state_fields(self) -> Mapping[str, int | float]:
        """Return last close, average gain and loss, the RSI and its zone."""
        return {"close": 0.0, "gain": 0.0, "loss": 0.0, "rsi": 50.0, "zone": NEUTRAL}

    def describe(self, state: Any, side: OrderSide) -> str:
        """Return the RSI against the level it crossed."""
        params = self.params
        level = params.oversold if side is OrderSide.BUY else params.overbought
        verb = "entered" if params.trigger == "enter" else "left"
        zone = "oversold" if side is OrderSide.BUY else "overbought"
        return f"RSI({params.period}) {state['rsi']:.2f} {verb} the {zone} zone at {level:g}"

"""Two exponential averages: buy when the short one crosses above the long one, sell when it crosses below."""

# ruff: noqa: ARG001 - a step takes every number of its candle

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import Field, model_validator

from shared.indicators import ema_alpha, ema_update
from shared.models import OrderSide
from shared.strategy import BUY, HOLD, SELL, CompiledStrategy, History, StrategyParams, candles_to_forget


class EmaCrossoverParams(StrategyParams):
    """Parameters of the EMA crossover strategy."""

    short_period: int = Field(default=9, gt=0)
    long_period: int = Field(default=21, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.short_period >= self.long_period:
            raise ValueError(f"short_period ({self.short_period}) must be below long_period ({self.long_period})")
        return self


def step(
    state: Any, params: Any, open_time: int, open: float, high: float, low: float, close: float, volume: float
) -> int:
    """Update both averages by this close; from candle long_period on, follow the sign of their difference."""
    if state.candle_count == 1:
        state.short = close
        state.long = close
    state.short = ema_update(state.short, close, params.short_alpha)
    state.long = ema_update(state.long, close, params.long_alpha)
    if state.candle_count < params.long_period or state.short == state.long:
        return HOLD
    sign = 1 if state.short > state.long else -1
    last = state.sign
    state.sign = sign
    if last in (0, sign):
        return HOLD
    return BUY if sign > 0 else SELL


class EmaCrossoverStrategy(CompiledStrategy):
    """Follows the trend by the crossing of two exponential averages."""

    name = "ema_crossover"
    Params = EmaCrossoverParams
    params: EmaCrossoverParams
    step = staticmethod(step)

    @property
    def warmup_period(self) -> int:
        """Return the long period."""
        return self.params.long_period

    def history(self, now: datetime) -> History:  # noqa: ARG002
        """Return the candles after which the long average has forgotten its seed."""
        return History(candles=max(self.warmup_period, candles_to_forget(1 - ema_alpha(self.params.long_period))))

    def state_fields(self) -> Mapping[str, int | float]:
        """Return both averages and the stored sign."""
        return {"short": 0.0, "long": 0.0, "sign": 0}

    def derived_params(self) -> Mapping[str, int | float]:
        """Return the weights of the newest close."""
        return {"short_alpha": ema_alpha(self.params.short_period), "long_alpha": ema_alpha(self.params.long_period)}

    def describe(self, state: Any, side: OrderSide) -> str:
        """Return both averages."""
        cross = "golden cross" if side is OrderSide.BUY else "death cross"
        relation = ">" if side is OrderSide.BUY else "<"
        params = self.params
        return (
            f"{cross}: EMA({params.short_period}) {state['short']:.8g} {relation} "
            f"EMA({params.long_period}) {state['long']:.8g}"
        )

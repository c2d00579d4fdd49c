"""MACD: buy when the histogram turns from below zero to above, sell when it turns back.

Source: Appel, "Technical Analysis: Power Tools for Active Investors", 2005.
"""

# ruff: noqa: ARG001 - a step takes every number of its candle

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import Field, model_validator

from shared.indicators import ema_alpha, ema_update
from shared.models import OrderSide
from shared.strategy import BUY, HOLD, SELL, CompiledStrategy, History, StrategyParams, candles_to_forget


class MacdParams(StrategyParams):
    """Parameters of the MACD strategy."""

    fast_period: int = Field(default=12, gt=0)
    slow_period: int = Field(default=26, gt=0)
    signal_period: int = Field(default=9, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.fast_period >= self.slow_period:
            raise ValueError(f"fast_period ({self.fast_period}) must be below slow_period ({self.slow_period})")
        return self


def step(
    state: Any, params: Any, open_time: int, open: float, high: float, low: float, close: float, volume: float
) -> int:
    """Update the three averages by this close and follow the sign of the histogram; zero keeps the last sign."""
    if state.candle_count == 1:
        state.fast = close
        state.slow = close
    state.fast = ema_update(state.fast, close, params.fast_alpha)
    state.slow = ema_update(state.slow, close, params.slow_alpha)
    line = state.fast - state.slow
    if state.candle_count == 1:
        state.signal = line
    state.signal = ema_update(state.signal, line, params.signal_alpha)
    state.histogram = line - state.signal
    last = state.sign
    if state.histogram > 0.0:
        state.sign = 1
    elif state.histogram < 0.0:
        state.sign = -1
    if state.candle_count < params.slow_period or last in (0, state.sign):
        return HOLD
    return BUY if state.sign > 0 else SELL


class MacdStrategy(CompiledStrategy):
    """Follows momentum by the sign of the MACD histogram."""

    name = "macd"
    Params = MacdParams
    params: MacdParams
    step = staticmethod(step)

    @property
    def warmup_period(self) -> int:
        """Return the slow period plus the signal period."""
        return self.params.slow_period + self.params.signal_period

    def history(self, now: datetime) -> History:  # noqa: ARG002
        """Return the candles after which the slow average and then the signal line have forgotten their seeds."""
        slow = candles_to_forget(1 - ema_alpha(self.params.slow_period))
        signal = candles_to_forget(1 - ema_alpha(self.params.signal_period))
        return History(candles=max(self.warmup_period, slow + signal))

    def state_fields(self) -> Mapping[str, int | float]:
        """Return the three averages, the histogram and its sign."""
        return {"fast": 0.0, "slow": 0.0, "signal": 0.0, "histogram": 0.0, "sign": 0}

    def derived_params(self) -> Mapping[str, int | float]:
        """Return the weights of the newest value."""
        params = self.params
        return {
            "fast_alpha": ema_alpha(params.fast_period),
            "slow_alpha": ema_alpha(params.slow_period),
            "signal_alpha": ema_alpha(params.signal_period),
        }

    def describe(self, state: Any, side: OrderSide) -> str:
        """Return the histogram, the line and the signal line."""
        line = state["fast"] - state["slow"]
        turn = "above" if side is OrderSide.BUY else "below"
        return (
            f"MACD histogram {state['histogram']:.6g} turned {turn} 0 (line {line:.6g}, signal {state['signal']:.6g})"
        )

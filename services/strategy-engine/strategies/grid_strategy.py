"""Grid: equal zones between two prices; buy on the way down, sell on the way up, one line at a time."""

# ruff: noqa: ARG001 - a step takes every number of its candle

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Self

from pydantic import Field, model_validator

from shared.models import OrderSide, from_milliseconds, to_decimal
from shared.strategy import BUY, HOLD, ROUND_TRIP_COST, SELL, CompiledStrategy, StrategyParams

NOWHERE = -1
DAY_MS = 86_400_000


class GridParams(StrategyParams):
    """Parameters of the grid strategy; prices in quote."""

    lower_price: float = Field(default=60000.0, gt=0)
    upper_price: float = Field(default=70000.0, gt=0)
    grid_count: int = Field(default=5, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.lower_price >= self.upper_price:
            raise ValueError(f"lower_price ({self.lower_price:g}) must be below upper_price ({self.upper_price:g})")
        return self


def step(
    state: Any, params: Any, open_time: int, open: float, high: float, low: float, close: float, volume: float
) -> int:
    """Find the close's zone; a move to another zone trades the line crossed last unless that line is dead."""
    if state.first_time < 0:
        state.first_time = open_time
    state.last_time = open_time
    if close < params.lower_price or close > params.upper_price:
        return HOLD
    state.held_time = open_time
    state.close = close
    width = (params.upper_price - params.lower_price) / params.grid_count
    zone = min(int((close - params.lower_price) / width), params.grid_count - 1)
    last = state.zone
    state.zone = zone
    if last in (NOWHERE, zone):
        return HOLD
    line = zone + 1 if zone < last else zone
    if line == state.line:
        return HOLD
    state.line = line
    return BUY if zone < last else SELL


class GridStrategy(CompiledStrategy):
    """Buys each line crossed on the way down and sells each line crossed on the way up, within a range."""

    name = "grid"
    Params = GridParams
    params: GridParams
    step = staticmethod(step)

    @property
    def warmup_period(self) -> int:
        """Return 2: the first candle only finds its zone."""
        return 2

    @property
    def max_entries_default(self) -> int:
        """Return one entry a zone."""
        return self.params.grid_count

    @property
    def stop_reference(self) -> Decimal:
        """Return the lower end of the range: a stop inside it would cut the grid itself."""
        return to_decimal(self.params.lower_price)

    def state_fields(self) -> Mapping[str, int | float]:
        """Return the zone, the line last traded, the last close inside and three times in milliseconds."""
        return {"zone": NOWHERE, "line": NOWHERE, "close": 0.0, "first_time": -1, "held_time": -1, "last_time": -1}

    def describe(self, state: Any, side: OrderSide) -> str:
        """Return the close and the line it crossed."""
        params = self.params
        line = int(state["line"])
        price = params.lower_price + line * (params.upper_price - params.lower_price) / params.grid_count
        way = "down" if side is OrderSide.BUY else "up"
        return f"close {state['close']:.8g} crossed line {line} of {params.grid_count} at {price:.8g} on the way {way}"

    def check_start(self, timeframe: str, round_trip_cost: Decimal | float = ROUND_TRIP_COST) -> list[str]:  # noqa: ARG002
        """Warn of a step between two lines that is below twice the cost of buying and selling once."""
        params = self.params
        width = (params.upper_price - params.lower_price) / params.grid_count
        cost = float(round_trip_cost) * params.upper_price
        if width >= 2 * cost:
            return []
        return [
            f"grid: a step of {width:.8g} ({width / params.upper_price:.3%} at the top) is below twice the round-trip "
            f"cost of {cost:.8g}; use fewer lines (grid_count) or a wider range"
        ]

    def notices(self) -> list[str]:
        """Report a range that has not held the price for a day."""
        state = self.state
        if state["first_time"] < 0:
            return []
        met = int(state["held_time"]) >= 0
        since = int(state["held_time"]) if met else int(state["first_time"])
        if int(state["last_time"]) - since < DAY_MS:
            return []
        params = self.params
        held = "has not held the price since" if met else "has never held the price; seen since"
        return [
            f"grid: the range {params.lower_price:g}..{params.upper_price:g} {held} "
            f"{from_milliseconds(since):%Y-%m-%d %H:%M} UTC; set lower_price and upper_price around the market"
        ]

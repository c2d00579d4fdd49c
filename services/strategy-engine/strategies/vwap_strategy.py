"""VWAP: buy when the price comes back from below the anchored average price, sell when it comes back from above."""

# ruff: noqa: ARG001 - a step takes every number of its candle

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field

from shared.indicators import anchor_period, deviation_side, typical_price
from shared.models import TIMEFRAME_SECONDS, OrderSide
from shared.strategy import (
    HOLD,
    ROUND_TRIP_COST,
    CompiledStrategy,
    History,
    PluginError,
    StrategyParams,
    seldom,
)

INSIDE, BELOW, ABOVE = 0, 1, 2  # a mark is the action of the return: from below BUY, from above SELL
ANCHOR_DAYS = {"day": 1, "week": 7, "month": 28, "none": None}  # days that every such period has at least
NONE_HISTORY_DAYS = 30
NO_PERIOD = -(2**62)
DAY_MS = 86_400_000


class VwapParams(StrategyParams):
    """Parameters of the VWAP strategy; `deviation_threshold` is a fraction of the average price."""

    deviation_threshold: float = Field(default=0.002, ge=0)
    anchor: Literal["day", "week", "month", "none"] = "day"
    min_candles: int = Field(default=30, ge=0)


def step(
    state: Any, params: Any, open_time: int, open: float, high: float, low: float, close: float, volume: float
) -> int:
    """Add this candle to its anchor period's sums; outside the threshold marks, coming back unmarks and signals."""
    if seldom((open_time >= state.day_end) | (open_time < state.day_end - DAY_MS)):
        begin_day(state, params, open_time)
    state.period_candles += 1
    state.money += typical_price(high, low, close) * volume
    state.volume += volume
    if seldom((state.period_candles <= params.min_candles) | (state.volume == 0.0)):
        return HOLD
    state.close = close
    side = deviation_side(close, state.money, state.volume, params.deviation_threshold)
    mark = state.mark
    state.mark = int(side < 0) * BELOW + int(side > 0) * ABOVE
    return int(mark * int(side == 0))


def begin_day(state: Any, params: Any, open_time: int) -> None:
    """Note the day of a candle, with which a period may begin."""
    state.day_end = (open_time // DAY_MS + 1) * DAY_MS
    period = anchor_period(open_time, params.anchor)
    if period != state.period:
        state.period = period
        state.period_candles = 0
        state.money = 0.0
        state.volume = 0.0
        state.mark = INSIDE


class VwapStrategy(CompiledStrategy):
    """Trades the return to the volume-weighted average price of the day, week or month."""

    name = "vwap"
    Params = VwapParams
    params: VwapParams
    step = staticmethod(step)

    @property
    def warmup_period(self) -> int:
        """Return 30 candles."""
        return 30

    def history(self, now: datetime) -> History:
        """Return all candles since the beginning of the anchor period in progress at `now`."""
        day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self.params.anchor == "none":
            since = now - timedelta(days=NONE_HISTORY_DAYS)
            note = f"anchor none: the last {NONE_HISTORY_DAYS} days stand for all of time"
            return History(candles=self.warmup_period, since=since, note=note)
        if self.params.anchor == "week":
            day -= timedelta(days=day.weekday())
        elif self.params.anchor == "month":
            day = day.replace(day=1)
        return History(candles=self.warmup_period, since=day)

    def state_fields(self) -> Mapping[str, int | float]:
        """Return the anchor period, the end of its day, its sums, the mark and the last close judged."""
        sums = {"period": NO_PERIOD, "day_end": NO_PERIOD, "period_candles": 0, "money": 0.0, "volume": 0.0}
        return {**sums, "mark": INSIDE, "close": 0.0}

    def describe(self, state: Any, side: OrderSide) -> str:
        """Return the close, the average price and the distance between them."""
        way = "below" if side is OrderSide.BUY else "above"
        average = state["money"] / state["volume"]
        deviation = (state["close"] - average) / average
        return (
            f"close {state['close']:.8g} back from {way} VWAP {average:.8g} "
            f"(deviation {deviation:+.4%}, threshold {self.params.deviation_threshold:.4%})"
        )

    def check_start(self, timeframe: str, round_trip_cost: Decimal | float = ROUND_TRIP_COST) -> list[str]:  # noqa: ARG002
        """Refuse an anchor that holds fewer than twice `min_candles` candles, naming the next longer."""
        held = {anchor: _candles_held(days, timeframe) for anchor, days in ANCHOR_DAYS.items()}
        wanted = 2 * self.params.min_candles
        anchor = self.params.anchor
        count = held[anchor]
        if count is None or count >= wanted:
            return []
        anchors = list(held)
        longer = anchors[anchors.index(anchor) + 1 :]
        too_short = [name for name in longer if (held[name] or wanted) < wanted]
        fits = next(name for name in longer if name not in too_short)
        also = "".join(f" ({name} holds {held[name]}, too few as well)" for name in too_short)
        raise PluginError(
            f"vwap: anchor {anchor} holds {count} candles of {timeframe}, fewer than 2 x min_candles ({wanted}); "
            f"use anchor {fits}{also}, a shorter timeframe or a smaller min_candles"
        )


def _candles_held(days: int | None, timeframe: str) -> int | None:
    return None if days is None else days * 86_400 // TIMEFRAME_SECONDS[timeframe]

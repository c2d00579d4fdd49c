"""Each strategy against its rules written out plainly, without the platform's indicators."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.models import Candle
from shared.strategy import CompiledStrategy
from shared.testing.reference import reference_path
from strategies.bollinger_strategy import BollingerStrategy
from strategies.ema_crossover_strategy import EmaCrossoverStrategy
from strategies.grid_strategy import GridStrategy
from strategies.macd_strategy import MacdStrategy
from strategies.rsi_strategy import RsiStrategy
from strategies.volume_profile_strategy import VolumeProfileStrategy
from strategies.vwap_strategy import VwapStrategy

pytestmark = pytest.mark.thorough

Rows = list["Row"]
Sides = list[str | None]


class Row(NamedTuple):
    time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float


def rsi_rule(
    rows: Rows, period: int = 14, oversold: float = 30, overbought: float = 70, trigger: str = "enter"
) -> Sides:
    changes = [after.close - before.close for before, after in pairwise(rows)]
    gains, losses = [max(change, 0.0) for change in changes], [max(-change, 0.0) for change in changes]
    sides: Sides = []
    zone = "neutral"
    gain = loss = 0.0
    for number in range(len(rows)):
        new = "neutral"
        if number == period:
            gain, loss = sum(gains[:period]) / period, sum(losses[:period]) / period
        elif number > period:
            gain = (gain * (period - 1) + gains[number - 1]) / period
            loss = (loss * (period - 1) + losses[number - 1]) / period
        if number >= period:
            value = 50.0 if gain == loss == 0 else 100.0 if loss == 0 else 100 * gain / (gain + loss)
            new = "oversold" if value < oversold else "overbought" if value > overbought else "neutral"
        told = new if trigger == "enter" else zone
        sides.append({"oversold": "BUY", "overbought": "SELL"}.get(told) if new != zone else None)
        zone = new
    return sides


def grid_rule(rows: Rows, lower_price: float, upper_price: float, grid_count: int) -> Sides:
    zone: int | None = None
    dead: int | None = None
    sides: Sides = []
    for row in rows:
        side = None
        if lower_price <= row.close <= upper_price:
            width = (upper_price - lower_price) / grid_count
            new = min(int((row.close - lower_price) / width), grid_count - 1)
            if zone is not None and new != zone:
                line = new + 1 if new < zone else new
                if line != dead:
                    side, dead = "BUY" if new < zone else "SELL", line
            zone = new
        sides.append(side)
    return sides


def averages(values: list[float], period: int) -> list[float]:
    found = [values[0]]
    for value in values[1:]:
        found.append(found[-1] + 2.0 / (period + 1.0) * (value - found[-1]))
    return found


def macd_rule(rows: Rows, fast_period: int = 12, slow_period: int = 26, signal_period: int = 9) -> Sides:
    closes = [row.close for row in rows]
    line = [a - b for a, b in zip(averages(closes, fast_period), averages(closes, slow_period), strict=True)]
    sides: Sides = []
    sign = 0
    for number, (value, smooth) in enumerate(zip(line, averages(line, signal_period), strict=True), start=1):
        new = (value > smooth) - (value < smooth) or sign
        turned = number >= slow_period and sign not in (0, new)
        sides.append(("BUY" if new > 0 else "SELL") if turned else None)
        sign = new
    return sides


def ema_crossover_rule(rows: Rows, short_period: int = 9, long_period: int = 21) -> Sides:
    closes = [row.close for row in rows]
    stored = 0
    sides: Sides = []
    pairs = zip(averages(closes, short_period), averages(closes, long_period), strict=True)
    for number, (short, long) in enumerate(pairs, start=1):
        side = None
        sign = (short > long) - (short < long)
        if number >= long_period and sign not in (0, stored):
            side = None if stored == 0 else "BUY" if sign > 0 else "SELL"
            stored = sign
        sides.append(side)
    return sides


def bollinger_rule(
    rows: Rows, period: int = 20, num_std: float = 2.0, min_bandwidth: float = 0.02, window: str = "previous"
) -> Sides:
    marked = None
    sides: Sides = []
    for number in range(len(rows)):
        closes = [row.close for row in rows[: number + (window == "current")]][-period:]
        close = rows[number].close
        side = None
        if len(closes) == period:
            mean = math.fsum(closes) / period
            deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in closes) / (period - 1))
            lower, upper = mean - num_std * deviation, mean + num_std * deviation
            at_lower, at_upper = abs(close - lower) <= 1e-12 * lower, abs(close - upper) <= 1e-12 * upper
            if close < lower and not at_lower:
                marked = "below"
            if close > upper and not at_upper:
                marked = "above"
            inside = (close >= lower or at_lower) and (close <= upper or at_upper)
            if inside and marked:
                side = "BUY" if marked == "below" else "SELL"
                marked = None
            if (upper - lower) / mean < min_bandwidth:
                side = None
        sides.append(side)
    return sides


def anchor_of(moment: datetime, anchor: str) -> Any:
    monday = moment.date() - timedelta(days=moment.weekday())
    return {"day": moment.date(), "week": monday, "month": (moment.year, moment.month), "none": None}[anchor]


def vwap_rule(rows: Rows, deviation_threshold: float = 0.002, anchor: str = "day", min_candles: int = 30) -> Sides:
    current: Any = "no period yet"
    sides: Sides = []
    count, money, volume, marked = 0, 0.0, 0.0, None
    for row in rows:
        side = None
        if anchor_of(row.time, anchor) != current:
            current = anchor_of(row.time, anchor)
            count, money, volume, marked = 0, 0.0, 0.0, None
        count += 1
        money += (row.high + row.low + row.close) / 3 * row.volume
        volume += row.volume
        if count > min_candles and volume != 0:
            distance = (row.close - money / volume) / (money / volume)
            if distance < -deviation_threshold:
                marked = "below"
            elif distance > deviation_threshold:
                marked = "above"
            elif marked:
                side = "BUY" if marked == "below" else "SELL"
                marked = None
        sides.append(side)
    return sides


def value_area(rows: Rows, num_bins: int, value_area_pct: float) -> tuple[float, float, float] | None:
    """Return value area low, point of control and value area high in exact arithmetic."""
    lowest, highest = Fraction(min(row.low for row in rows)), Fraction(max(row.high for row in rows))
    total = sum(Fraction(row.volume) for row in rows)
    if lowest == highest or total == 0:
        return None
    width = (highest - lowest) / num_bins
    bins = [Fraction(0)] * num_bins
    for row in rows:
        low, high, volume = Fraction(row.low), Fraction(row.high), Fraction(row.volume)
        if low == high:
            bins[min(int((low - lowest) / width), num_bins - 1)] += volume
            continue
        for place in range(int((low - lowest) / width), min(int((high - lowest) / width) + 1, num_bins)):
            overlap = min(high, lowest + (place + 1) * width) - max(low, lowest + place * width)
            bins[place] += volume * overlap / (high - low)
    fullest = max(bins)
    tied = [place for place in range(num_bins) if bins[place] >= fullest * (1 - Fraction(1, 10**9))]
    point = min(tied, key=lambda place: (abs(place - Fraction(num_bins - 1, 2)), place))
    first = last = point
    share = Fraction(str(value_area_pct))
    while sum(bins[first : last + 1]) < share * total:
        below = bins[first - 1] if first > 0 else Fraction(-1)
        above = bins[last + 1] if last < num_bins - 1 else Fraction(-1)
        first, last = (first - 1, last) if below >= above else (first, last + 1)
    return (
        float(lowest + first * width),
        float(lowest + (point + Fraction(1, 2)) * width),
        float(lowest + (last + 1) * width),
    )


def volume_profile_rule(
    rows: Rows, lookback_period: int = 100, num_bins: int = 50, value_area_pct: float = 0.7
) -> Sides:
    marked = None
    sides: Sides = []
    for number, row in enumerate(rows):
        side = None
        area = (
            value_area(rows[number - lookback_period : number], num_bins, value_area_pct)
            if number >= lookback_period
            else None
        )
        if area is not None:
            low, point, high = area
            if row.close < low:
                marked = "below"
            elif row.close > high:
                marked = "above"
            elif marked == "below" and row.close <= point:
                side, marked = "BUY", None
            elif marked == "above" and row.close >= point:
                side, marked = "SELL", None
        sides.append(side)
    return sides


class Case(NamedTuple):
    strategy: type[CompiledStrategy]
    rule: Callable[..., Sides]
    params: dict[str, Any]


CASES = [
    Case(RsiStrategy, rsi_rule, {}),
    Case(RsiStrategy, rsi_rule, {"period": 5, "oversold": 35, "overbought": 60, "trigger": "leave"}),
    Case(GridStrategy, grid_rule, {"lower_price": 45_000, "upper_price": 70_000, "grid_count": 60}),
    Case(MacdStrategy, macd_rule, {}),
    Case(MacdStrategy, macd_rule, {"fast_period": 3, "slow_period": 7, "signal_period": 4}),
    Case(BollingerStrategy, bollinger_rule, {"min_bandwidth": 0.005}),
    Case(BollingerStrategy, bollinger_rule, {"window": "current", "num_std": 1.5, "min_bandwidth": 0.0}),
    Case(EmaCrossoverStrategy, ema_crossover_rule, {}),
    Case(VwapStrategy, vwap_rule, {}),
    Case(VwapStrategy, vwap_rule, {"anchor": "week", "min_candles": 5, "deviation_threshold": 0.01}),
    Case(VwapStrategy, vwap_rule, {"anchor": "none", "deviation_threshold": 0.0005}),
    Case(VolumeProfileStrategy, volume_profile_rule, {"lookback_period": 30, "num_bins": 20}),
]


def case_id(case: Case) -> str:
    return "-".join([case.strategy.name, *(f"{key}={value}" for key, value in case.params.items())])


@cache
def crash_rows(count: int, skip: int = 1_500) -> Rows:
    path = reference_path("data/candles/binance-BTCUSDT-1m-2024crash.parquet")
    return [Row(*row) for row in pl.read_parquet(path).slice(skip, count).iter_rows()]


def candles_of(rows: Rows) -> Iterator[Candle]:
    for row in rows:
        numbers = dict(zip(("open", "high", "low", "close", "volume"), row[1:], strict=True))
        yield Candle(symbol="BTC/USDT", timeframe="1m", open_time=row.time, **numbers)


def sides_of(strategy: CompiledStrategy, rows: Rows) -> Sides:
    signals = [strategy.on_candle(candle) for candle in candles_of(rows)]
    return [None if signal is None else str(signal.side) for signal in signals]


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_strategy_follows_its_rule_on_real_candles(case: Case) -> None:
    rows = crash_rows(600 if case.strategy is VolumeProfileStrategy else 4_000)
    expected = case.rule(rows, **case.params)
    assert sides_of(case.strategy(case.params), rows) == expected
    assert {"BUY", "SELL"} <= set(expected)


@st.composite
def random_rows(draw: st.DrawFn) -> Rows:
    """Prices on a coarse lattice: ties, flat stretches, jumps and candles without volume are common."""
    moves = draw(st.lists(st.sampled_from([0, 0, 1, -1, 2, -2, 5, -5, 20, -20]), min_size=1, max_size=90))
    start = datetime(2024, 1, 31, 12, tzinfo=UTC)
    price, rows = 100, []
    for move in moves:
        before, price = price, max(price + move, 10)
        up, down = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        high, low = max(before, price) + up, min(before, price) - down
        if draw(st.booleans()):
            high = low = before = price
        volume = draw(st.integers(0, 4))
        step = timedelta(minutes=draw(st.sampled_from([1, 1, 1, 700])))
        start += step
        rows.append(Row(start, float(before), float(high), float(low), float(price), float(volume)))
    return rows


RANDOM_CASES = [
    Case(RsiStrategy, rsi_rule, {"period": 3}),
    Case(RsiStrategy, rsi_rule, {"period": 1, "trigger": "leave"}),
    Case(GridStrategy, grid_rule, {"lower_price": 60, "upper_price": 140, "grid_count": 8}),
    Case(MacdStrategy, macd_rule, {"fast_period": 2, "slow_period": 5, "signal_period": 3}),
    Case(EmaCrossoverStrategy, ema_crossover_rule, {"short_period": 2, "long_period": 5}),
    Case(BollingerStrategy, bollinger_rule, {"period": 4, "num_std": 1.1, "min_bandwidth": 0.01}),
    Case(BollingerStrategy, bollinger_rule, {"period": 5, "num_std": 1.2, "window": "current"}),
    Case(VwapStrategy, vwap_rule, {"min_candles": 2, "deviation_threshold": 0.01}),
    Case(VwapStrategy, vwap_rule, {"min_candles": 0, "anchor": "month"}),
    Case(VolumeProfileStrategy, volume_profile_rule, {"lookback_period": 4, "num_bins": 7, "value_area_pct": 0.6}),
    Case(VolumeProfileStrategy, volume_profile_rule, {"lookback_period": 9, "num_bins": 10}),
]


@pytest.mark.parametrize("case", RANDOM_CASES, ids=case_id)
@given(rows=random_rows())
@settings(max_examples=60, deadline=None)
def test_a_strategy_follows_its_rule_on_any_candles(case: Case, rows: Rows) -> None:
    assert sides_of(case.strategy(case.params), rows) == case.rule(rows, **case.params)


def test_the_line_last_traded_is_dead_until_another_is_traded() -> None:
    closes = [61, 59, 61, 59, 55, 59, 61, 81]
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows = [Row(start + timedelta(minutes=n), c, c, c, c, 1.0) for n, c in enumerate(map(float, closes))]
    strategy = GridStrategy({"lower_price": 40, "upper_price": 90, "grid_count": 5})
    assert sides_of(strategy, rows) == [None, "BUY", None, None, None, None, None, "SELL"]


def test_the_reason_says_the_numbers() -> None:
    rows = crash_rows(4_000)
    for case in CASES:
        strategy = case.strategy(case.params)
        reasons = [signal.reason for signal in map(strategy.on_candle, candles_of(rows)) if signal]
        assert reasons
        assert all(any(character.isdigit() for character in reason) for reason in reasons)
        assert not any("nan" in reason.lower() for reason in reasons)


def test_the_first_profile_is_made_once_the_lookback_is_full() -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    prices = [(110, 90, 100, 10), (110, 90, 100, 10), (110, 80, 80, 0), (92, 92, 92, 5)]
    rows = [Row(start + timedelta(minutes=n), h, h, l, c, v) for n, (h, l, c, v) in enumerate(prices)]  # noqa: E741
    strategy = VolumeProfileStrategy({"lookback_period": 2, "num_bins": 30})
    assert sides_of(strategy, rows) == [None, None, None, "BUY"]

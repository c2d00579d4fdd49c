"""Indicators against TA-Lib and against plain windows."""

from __future__ import annotations

from datetime import date, datetime
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import talib
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from shared import indicators
from shared.indicators import (
    anchor_period,
    profile_area,
    profile_fields,
    profile_is_central,
    profile_push,
    profile_renew,
    profile_side,
)
from shared.models import from_milliseconds, to_milliseconds
from shared.step_record import step_record
from shared.testing.examples import examples
from shared.testing.reference import reference_path

PRICES = st.lists(st.integers(1, 10**6), min_size=2, max_size=80)


@cache
def real_closes() -> np.ndarray:
    path = reference_path("data/candles/binance-BTCUSDT-1h.parquet")
    return pl.read_parquet(path, columns=["close"])["close"].to_numpy()


@pytest.mark.parametrize("period", [2, 14, 50])
def test_rsi_equals_ta_lib_from_its_first_value(period: int) -> None:
    closes = real_closes()
    ours, theirs = indicators.rsi(closes, period), talib.RSI(closes, period)
    assert np.isnan(ours[:period]).all()
    np.testing.assert_allclose(ours[period:], theirs[period:], rtol=0, atol=1e-9)


@pytest.mark.parametrize("period", [9, 21, 100])
def test_ema_equals_ta_lib_once_the_seed_is_forgotten(period: int) -> None:
    closes = real_closes()
    burn_in = 21 * period
    np.testing.assert_allclose(
        indicators.ema(closes, period)[burn_in:], talib.EMA(closes, period)[burn_in:], rtol=1e-12
    )


def test_macd_equals_ta_lib_once_the_seeds_are_forgotten() -> None:
    closes = real_closes()
    for ours, theirs in zip(indicators.macd(closes), talib.MACD(closes), strict=True):
        np.testing.assert_allclose(ours[800:], theirs[800:], rtol=0, atol=1e-7)


def test_bollinger_mean_and_bands_equal_ta_lib_for_its_kind_of_deviation() -> None:
    closes = real_closes()
    period = 20
    lower, middle, upper = indicators.bollinger_bands(closes, period, 2.0)
    their_upper, their_middle, _ = talib.BBANDS(closes, period, 2.0, 2.0)
    np.testing.assert_allclose(middle[period:], their_middle[period:], rtol=1e-10)
    population = ((period - 1) / period) ** 0.5
    np.testing.assert_allclose((upper - middle)[period:] * population, (their_upper - their_middle)[period:], rtol=2e-3)
    np.testing.assert_allclose(upper - middle, middle - lower, rtol=1e-9)


@pytest.mark.parametrize("period", [2, 3, 20, 333])
def test_rolling_statistics_stay_within_a_trillionth_of_the_exact_window(period: int) -> None:
    closes = real_closes()[:20_000]
    windows = sliding_window_view(closes, period).astype(np.longdouble)
    means, deviations = indicators.rolling_statistics(closes, period)
    np.testing.assert_allclose(means[period - 1 :], windows.mean(axis=1).astype(float), rtol=1e-12)
    exact = windows.std(axis=1, ddof=1).astype(float)
    np.testing.assert_allclose(deviations[period - 1 :], exact, rtol=1e-12, atol=0)


@given(
    moves=st.lists(st.sampled_from([0, 0, 1, -1, 10**6, 5 * 10**7]), min_size=3, max_size=60), period=st.integers(2, 9)
)
@settings(max_examples=examples(150), deadline=None)
def test_a_calm_window_after_a_storm_is_as_exact_as_any(moves: list[int], period: int) -> None:
    cents = [6_500_000 + move for move in moves]
    closes = [cent / 100 for cent in cents]
    _, deviations = indicators.rolling_statistics(closes, period)
    for end in range(period, len(closes) + 1):
        window = [Fraction(close) for close in closes[end - period : end]]
        mean = sum(window) / period
        exact = float(sum((value - mean) ** 2 for value in window) / (period - 1)) ** 0.5
        assert deviations[end - 1] == pytest.approx(exact, rel=1e-12, abs=0)


def test_equal_closes_have_no_deviation_at_all() -> None:
    closes = [0.1, 123.456, *[65_432.1] * 30]
    _, deviations = indicators.rolling_statistics(closes, 7)
    assert (deviations[8:] == 0.0).all()


@given(values=PRICES, period=st.integers(1, 12))
@settings(max_examples=examples(60), deadline=None)
def test_wilder_starts_with_the_mean_of_the_first_values(values: list[int], period: int) -> None:
    averages = indicators.wilder([float(value) for value in values], period)
    expected = float("nan")
    for place, value in enumerate(values):
        if place == period - 1:
            expected = sum(values[:period]) / period
        elif place >= period:
            expected = (expected * (period - 1) + value) / period
        assert averages[place] == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_rsi_is_fifty_without_change_and_a_hundred_without_a_loss() -> None:
    assert indicators.rsi([5.0] * 10, 3)[-1] == 50.0
    assert indicators.rsi([1.0, 2.0, 2.0, 3.0, 4.0], 3)[-1] == 100.0
    assert indicators.rsi([4.0, 3.0, 2.0, 1.0], 3)[-1] == 0.0


def test_vwap_starts_again_with_each_day() -> None:
    day = 86_400_000
    averages = indicators.vwap([0, 60_000, day, day + 60_000], [10.0, 20.0, 7.0, 9.0], [1.0, 3.0, 0.0, 2.0])
    assert averages[:2].tolist() == [10.0, 17.5]
    assert np.isnan(averages[2])
    assert averages[3] == 9.0


@given(moment=st.integers(0, 180 * 366 * 86_400_000).map(from_milliseconds))
def test_anchor_periods_follow_the_calendar(moment: datetime) -> None:
    now = to_milliseconds(moment)
    assert anchor_period(now, 0) == (moment.date() - date(1970, 1, 1)).days
    assert anchor_period(now, 1) == (moment.date() - date(1969, 12, 29)).days // 7  # a Monday
    assert anchor_period(now, 2) == moment.year * 12 + moment.month - 1
    assert anchor_period(now, 3) == 0


@given(
    candles=st.lists(
        st.tuples(st.integers(1, 60), st.integers(0, 20), st.integers(0, 9)).map(lambda c: (c[0], c[0] + c[1], c[2])),
        min_size=1,
        max_size=12,
    ),
    bin_count=st.integers(1, 15),
)
@settings(max_examples=examples(200), deadline=None)
def test_a_profile_spreads_each_candle_over_its_own_range(candles: list[tuple[int, int, int]], bin_count: int) -> None:
    lowest, highest = min(low for low, _, _ in candles), max(high for _, high, _ in candles)
    total = sum(volume for _, _, volume in candles)
    result = indicators.volume_profile(*map(list, zip(*candles, strict=True)), num_bins=bin_count)
    if highest == lowest or total == 0:
        assert result is None
        return
    assert result is not None
    bins = exact_bins(candles, bin_count)
    assert result[0] == pytest.approx([float(value) for value in bins], abs=1e-9 * total)
    assert sum(result[0]) == pytest.approx(total)
    assert lowest <= result[1] <= result[2] <= result[3] <= highest


def exact_bins(candles: list[tuple[int, int, int]], bin_count: int) -> list[Fraction]:
    lowest, highest = min(low for low, _, _ in candles), max(high for _, high, _ in candles)
    width = Fraction(highest - lowest, bin_count)
    bins = [Fraction(0)] * bin_count
    for low, high, volume in candles:
        for place in range(bin_count):
            start, end = lowest + place * width, lowest + (place + 1) * width
            if low == high:
                holds = start <= low < end or (place == bin_count - 1 and low == end)
                bins[place] += volume if holds else 0
            else:
                overlap = max(Fraction(0), min(Fraction(high), end) - max(Fraction(low), start))
                bins[place] += volume * overlap / (high - low)
    return bins


@pytest.mark.parametrize("call", [lambda: indicators.ema([1.0], 0), lambda: indicators.rolling_statistics([1.0], 1)])
def test_an_impossible_period_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="period must be >="):
        call()


@given(
    volumes=st.lists(st.integers(0, 6), min_size=2, max_size=12).filter(any),
    share=st.sampled_from([0.05, 0.5, 0.7, 1.0]),
    eighth=st.integers(0, 96),
)
@settings(max_examples=examples(300), deadline=None)
def test_a_price_lies_on_the_side_that_the_whole_value_area_says(volumes: list[int], share: float, eighth: int) -> None:
    bin_count = len(volumes)
    state = profile_of([(100.0 + place, 101.0 + place, float(each)) for place, each in enumerate(volumes)], bin_count)
    price = 100.0 + min(eighth / 8, bin_count)
    side = profile_side(state, bin_count, share, price)
    profile_area(state, bin_count, share)
    assert side == int(price > state.value_high) - int(price < state.value_low)
    assert not (profile_is_central(state, bin_count, share, price) and side != 0)


@given(
    candles=st.lists(
        st.tuples(st.integers(1, 400), st.sampled_from([0, 1, 2, 30, 90]), st.sampled_from([0, 1, 7, 10**12])).map(
            lambda c: (float(c[0]), float(c[0] + c[1]), float(c[2]))
        ),
        min_size=6,
        max_size=40,
    ),
    bin_count=st.integers(1, 15),
)
@example(candles=[(2.0, 2.0, 1e12), *[(1.0, 1.0, 0.0)] * 3, (2.0, 32.0, 1.0), (1.0, 1.0, 0.0)], bin_count=2)
@settings(max_examples=examples(100), deadline=None)
def test_a_profile_that_follows_its_candles_stays_that_of_the_last_ones(
    candles: list[tuple[float, float, float]], bin_count: int
) -> None:
    lookback = 5
    state = step_record(profile_fields(lookback, bin_count)).view(np.recarray)[0]
    for number, candle in enumerate(candles, start=1):
        profile_push(state, lookback, bin_count, candle)
        held = candles[max(0, number - lookback) : number]
        if number < lookback or min(held)[0] == max(high for _, high, _ in held) or not any(each[2] for each in held):
            continue
        profile_renew(state, lookback, bin_count)
        profile_side(state, bin_count, 0.7, held[0][0])
        exact = [float(volume) for volume in exact_bins([(int(a), int(b), int(c)) for a, b, c in held], bin_count)]
        # what ties are told by is 1e-9 of the fullest bin
        assert list(state.bins[:bin_count]) == pytest.approx(exact, abs=1e-11 * max(exact))


def profile_of(candles: list[tuple[float, float, float]], bin_count: int) -> Any:
    """Return the state of a profile of (low, high, volume)."""
    state = step_record(profile_fields(len(candles), bin_count)).view(np.recarray)[0]
    for candle in candles:
        profile_push(state, len(candles), bin_count, candle)
    profile_renew(state, len(candles), bin_count)
    return state


@given(
    close=st.floats(1e-8, 1e6),
    money=st.floats(1e-8, 1e12),
    volume=st.floats(1e-6, 1e9),
    threshold=st.floats(0.0, 0.5),
    is_at_border=st.booleans(),
)
def test_a_deviation_s_side_is_that_of_the_two_divisions(
    close: float, money: float, volume: float, threshold: float, is_at_border: bool
) -> None:
    average = money / volume
    close = average * (1.0 - threshold) if is_at_border else close
    deviation = (close - average) / average
    expected = -1 if deviation < -threshold else int(deviation > threshold)
    assert indicators.deviation_side(close, money, volume, threshold) == expected

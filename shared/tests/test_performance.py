"""Equity figures against empyrical and against numbers worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import empyrical
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.performance import (
    DAYS_A_YEAR,
    EquityCurve,
    annual_growth,
    daily_equity,
    drawdown_series,
    measure_drawdown,
    monthly_equity,
    sharpe_ratio,
    simple_returns,
    sortino_ratio,
)
from shared.testing.examples import examples

MONDAY = datetime(2024, 1, 1, tzinfo=UTC)


def curve(*marks: tuple[timedelta, float]) -> EquityCurve:
    return EquityCurve.from_marks((MONDAY + after, value) for after, value in marks)


def days(count: float) -> timedelta:
    return timedelta(days=count)


def test_a_close_at_midnight_belongs_to_the_day_that_ends_there() -> None:
    marks = curve((days(0.5), 101.0), (days(1), 102.0), (days(1.5), 103.0))
    assert daily_equity(marks, 100.0).tolist() == [100, 102, 103]


def test_a_day_without_a_mark_carries_the_day_before() -> None:
    marks = curve((days(1), 101.0), (days(3), 103.0))
    assert daily_equity(marks, 100.0).tolist() == [100, 101, 101, 103]


def test_marks_in_any_order_give_the_same_curve_and_the_last_of_an_instant_counts() -> None:
    marks = curve((days(2), 5.0), (days(1), 3.0), (days(2), 6.0))
    assert daily_equity(marks, 1.0).tolist() == [1, 3, 6]


def test_without_marks_there_is_only_day_zero() -> None:
    empty = curve()
    assert daily_equity(empty, 100.0).tolist() == [100]
    assert monthly_equity(empty, 100.0) == {}
    assert measure_drawdown(empty, 100.0) == (0.0, timedelta(0))


def test_a_month_starts_where_the_one_before_ended_and_an_empty_one_stands_still() -> None:
    marks = curve((days(31), 110.0), (days(100), 99.0))  # the midnight after 31 January; 10 April
    assert monthly_equity(marks, 100.0) == {
        "2024-01": (100, 110),
        "2024-02": (110, 110),
        "2024-03": (110, 110),
        "2024-04": (110, 99),
    }


def test_a_mark_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        curve((days(1), float("nan")))


def test_the_drawdown_lasts_from_the_last_time_at_the_peak_to_the_recovery() -> None:
    marks = curve(*((days(n), value) for n, value in enumerate([100, 120, 120, 90, 110, 120, 121], start=1)))
    fall = measure_drawdown(marks, 100.0)
    assert fall.depth == pytest.approx(0.25)
    assert fall.longest == days(3)  # day 3 (last 120) to day 6


def test_a_drawdown_that_never_recovers_lasts_to_the_end() -> None:
    fall = measure_drawdown(curve((days(1), 99.0), (days(4), 98.0)), 100.0)
    assert fall == (pytest.approx(0.02), days(3))


def test_the_longest_drawdown_may_be_another_than_the_deepest() -> None:
    values = [100, 50, 100, 99, 99, 99, 100]
    fall = measure_drawdown(curve(*((days(n), v) for n, v in enumerate(values, start=1))), 100.0)
    assert fall == (0.5, days(4))


def test_equity_that_begins_at_nothing_has_no_drawdown() -> None:
    with pytest.raises(ValueError, match="above 0"):
        drawdown_series(np.array([0.0, 1.0]))


def test_a_lost_account_earns_nothing_more() -> None:
    assert simple_returns(np.array([100.0, 0.0, 0.0])).tolist() == [-1.0, 0.0]


def test_constant_returns_have_no_ratio() -> None:
    steady = simple_returns(100 * 1.001 ** np.arange(40))
    assert sharpe_ratio(steady) is None
    assert sortino_ratio(steady) is None


def test_growth_by_hand() -> None:
    assert annual_growth(100, 110, 730) == pytest.approx(1.1**0.5 - 1)
    assert annual_growth(100, 0, 365) == -1
    assert annual_growth(100, 110, 0) is None
    assert annual_growth(1e-300, 1e300, 1) is None


daily_returns = st.lists(st.floats(-0.5, 0.5, allow_nan=False), min_size=30, max_size=120)


@settings(max_examples=examples(150), deadline=None)
@given(drawn=daily_returns, seed_money=st.floats(1.0, 1e6))
def test_the_ratios_are_those_of_empyrical(drawn: list[float], seed_money: float) -> None:
    values = seed_money * np.concatenate(([1.0], np.cumprod(1 + np.array(drawn))))
    returns = simple_returns(values)
    sharpe, sortino = sharpe_ratio(returns), sortino_ratio(returns)
    if sharpe is not None and np.ptp(returns) > 1e-9:
        assert sharpe == pytest.approx(empyrical.sharpe_ratio(returns, annualization=DAYS_A_YEAR), rel=1e-6)
    if sortino is not None and returns.min() < -1e-9:
        assert sortino == pytest.approx(empyrical.sortino_ratio(returns, annualization=DAYS_A_YEAR), rel=1e-6)
    growth = annual_growth(values[0], values[-1], len(returns))
    assert growth == pytest.approx(empyrical.cagr(returns, annualization=DAYS_A_YEAR), rel=1e-6, abs=1e-9)
    assert drawdown_series(values).max() == pytest.approx(-empyrical.max_drawdown(returns), rel=1e-6, abs=1e-9)


@settings(max_examples=examples(100), deadline=None)
@given(values=st.lists(st.floats(1.0, 1e6), min_size=1, max_size=60), extra=st.floats(1.0, 1e6))
def test_later_marks_never_change_an_earlier_drawdown(values: list[float], extra: float) -> None:
    before = drawdown_series(np.array(values))
    after = drawdown_series(np.array([*values, extra]))
    assert after[:-1].tolist() == before.tolist()
    assert ((before >= 0) & (before < 1)).all()

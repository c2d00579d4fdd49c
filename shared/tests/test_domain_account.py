from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.account import HOUR, MINUTE, AccountFigures, OrderRates, check_state, mark_account, opening_figures
from shared.domain.risk import ControlState, Limits

D = Decimal
NOON = datetime(2024, 3, 4, 12, tzinfo=UTC)
MIDNIGHT = datetime(2024, 3, 5, tzinfo=UTC)
LIMITS = Limits(daily_loss_pct_max=D(10), drawdown_pct_max=D(20))


def mark(figures: AccountFigures, *marks: tuple[datetime, int], limits: Limits | None = LIMITS) -> AccountFigures:
    for as_of, equity in marks:
        figures = mark_account(figures, as_of, D(equity), limits)
    return figures


OPENING = opening_figures(D(1000))


def test_the_first_day_is_measured_from_the_opening_balance() -> None:
    figures = mark(OPENING, (NOON, 950))
    assert (figures.day, figures.day_base, figures.day_pnl) == (date(2024, 3, 4), 1000, -50)
    assert figures.state is ControlState.ACTIVE


@pytest.mark.parametrize(
    ("marks", "base"),
    [
        ([(NOON, 1100), (MIDNIGHT, 1080), (MIDNIGHT + MINUTE, 1070)], 1080),
        ([(NOON, 1100), (MIDNIGHT + MINUTE, 1070)], 1100),  # nothing was marked at 00:00: what was carried into it
        ([(NOON, 1100), (MIDNIGHT - MINUTE, 1090), (MIDNIGHT + 5 * MINUTE, 1000)], 1090),
        ([(NOON, 1100), (MIDNIGHT + timedelta(days=3), 1000)], 1000),
    ],
)
def test_a_days_base_is_the_equity_at_midnight(marks: list[tuple[datetime, int]], base: int) -> None:
    assert mark(OPENING, *marks, limits=None).day_base == base


def test_a_days_loss_lets_only_reducing_orders_pass_until_the_next_day() -> None:
    figures = mark(OPENING, (NOON, 900))
    assert (figures.state, figures.state_reason) == (ControlState.REDUCE_ONLY, "daily_loss")
    figures = mark(figures, (NOON + MINUTE, 1000))
    assert figures.state is ControlState.REDUCE_ONLY  # a recovery within the day changes nothing
    figures = mark(figures, (MIDNIGHT - MINUTE, 1000))
    assert figures.state is ControlState.REDUCE_ONLY
    figures = mark(figures, (MIDNIGHT, 1000))
    assert (figures.state, figures.state_reason) == (ControlState.ACTIVE, "")


def test_a_drawdown_stays_until_a_person_resumes() -> None:
    figures = mark(OPENING, (NOON, 1200), (NOON + MINUTE, 1090), (MIDNIGHT, 960))
    assert (figures.state, figures.state_reason) == (ControlState.REDUCE_ONLY, "drawdown")
    figures = mark(figures, (MIDNIGHT + timedelta(days=1), 2000), (MIDNIGHT + timedelta(days=2), 3000))
    assert (figures.state, figures.state_reason) == (ControlState.REDUCE_ONLY, "drawdown")


def test_a_drawdown_outlives_the_days_loss_that_came_first() -> None:
    figures = mark(OPENING, (NOON, 890), (NOON + MINUTE, 800), (MIDNIGHT, 800))
    assert figures.state_reason == "drawdown"


def test_flows_are_not_the_days_pnl() -> None:
    paid_out = msgspec.structs.replace(mark(OPENING, (NOON, 1000)), day_flows=D(-500))
    figures = mark(paid_out, (NOON + MINUTE, 495), limits=msgspec.structs.replace(LIMITS, drawdown_pct_max=D(0)))
    assert figures.day_pnl == -5
    assert figures.state is ControlState.ACTIVE
    assert mark(figures, (MIDNIGHT, 495), limits=None).day_flows == 0


def test_without_limits_nothing_is_ever_reduced() -> None:
    assert mark(OPENING, (NOON, 1), limits=None).state is ControlState.ACTIVE


def test_a_late_mark_of_yesterday_does_not_bring_yesterday_back() -> None:
    figures = mark(OPENING, (NOON, 1000), (MIDNIGHT, 1050), (MIDNIGHT - MINUTE, 1040), (MIDNIGHT + MINUTE, 1060))
    assert (figures.day, figures.day_base) == (date(2024, 3, 5), 1050)


@pytest.mark.parametrize(
    ("control", "reason"),
    [
        (ControlState.ACTIVE, None),
        (ControlState.REDUCE_ONLY, "reduce_only"),
        (ControlState.HALT, "halted"),
        (ControlState.FLATTEN, "reduce_only"),
    ],
)
def test_the_kill_switch_refuses_new_risk_by_its_level(control: ControlState, reason: str | None) -> None:
    refusal = check_state(control, OPENING)
    assert (None if refusal is None else refusal.reason) == reason


@pytest.mark.parametrize("reason", ["daily_loss", "drawdown"])
def test_the_automatic_state_refuses_new_risk_by_its_cause(reason: str) -> None:
    figures = msgspec.structs.replace(OPENING, state=ControlState.REDUCE_ONLY, state_reason=reason)
    refusal = check_state(ControlState.ACTIVE, figures)
    assert refusal is not None
    assert refusal.reason == reason


ORDERS = st.lists(st.tuples(st.integers(0, 900), st.integers(1, 100)), max_size=40)


@settings(deadline=None)
@given(ORDERS)
def test_rates_count_what_lies_in_the_last_minute_and_hour(orders: list[tuple[int, int]]) -> None:
    rates, seen = OrderRates(), []
    now = NOON
    for seconds, notional in orders:
        now += timedelta(seconds=seconds)
        rates.record(now, D(notional))
        seen.append((now, notional))
        assert rates.last_minute(now) == sum(moment > now - MINUTE for moment, _ in seen)
        assert rates.last_hour_notional(now) == sum(worth for moment, worth in seen if moment > now - HOUR)


def test_rates_forget_without_being_asked() -> None:
    rates = OrderRates()
    for minute in range(500):
        rates.record(NOON + minute * MINUTE, D(1))
    assert rates.last_hour_notional(NOON + 499 * MINUTE) == 60
    assert rates.last_hour_notional(NOON + timedelta(days=1)) == 0

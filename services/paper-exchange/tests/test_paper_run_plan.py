"""When candles happen: the shift of the stamps and the pace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paper_exchange.market.run_plan import RunSpan, plan_run

pytestmark = pytest.mark.thorough

MINUTE = 60_000
NOW = 1_795_374_523_946
FIRST = 1_709_510_400_000


def span(candles: int, *, endless: bool = False, grid_ms: int = MINUTE) -> RunSpan:
    return RunSpan(FIRST, FIRST + candles * grid_ms, grid_ms, endless)


@given(
    candles=st.integers(1, 100_000),
    speed=st.floats(1.01, 10_000),
    now_ms=st.integers(10**12, 2 * 10**12),
    grid_ms=st.sampled_from([MINUTE, 300_000, 3_600_000, 86_400_000]),
)
def test_no_candle_is_ever_told_before_the_clock_says_its_close_and_the_last_meets_it(
    candles: int, speed: float, now_ms: int, grid_ms: int
) -> None:
    run = span(candles, grid_ms=grid_ms)
    plan = plan_run(run, now_ms=now_ms, speed=speed, alignment="end")
    assert plan.shift_ms % grid_ms == 0
    for close_ms in (run.first_ms + grid_ms, run.end_ms):
        told_ms = now_ms + plan.elapsed_ms(close_ms + plan.shift_ms)
        assert close_ms + plan.shift_ms <= told_ms + 1
    assert now_ms + plan.elapsed_ms(run.end_ms + plan.shift_ms) - (run.end_ms + plan.shift_ms) < grid_ms + 1


def test_at_the_clock_s_own_pace_the_forming_candle_is_the_clock_s_own() -> None:
    plan = plan_run(span(50), now_ms=NOW, speed=1, alignment="end")
    assert FIRST + plan.shift_ms == NOW - NOW % MINUTE
    assert plan.market_ms(0) == NOW
    assert plan.market_ms(90_000) == NOW + 90_000


def test_a_run_that_meets_the_clock_at_its_beginning_lies_ahead_of_it_later() -> None:
    plan = plan_run(span(50), now_ms=NOW, speed=60, alignment="start")
    assert FIRST + plan.shift_ms == NOW - NOW % MINUTE
    assert plan.elapsed_ms(FIRST + plan.shift_ms + MINUTE) == pytest.approx(1000)


def test_a_market_without_end_catches_up_and_goes_on_at_the_clock_s_pace() -> None:
    plan = plan_run(span(1440, endless=True), now_ms=NOW, speed=60, alignment="end")
    met = next(elapsed for elapsed in range(0, 10**8, 1000) if plan.market_ms(elapsed) >= NOW + elapsed - 1)
    assert 1_400_000 < met < 1_600_000  # a day at sixty times the pace takes 24 minutes
    assert plan.market_ms(met + 7_200_000) == pytest.approx(NOW + met + 7_200_000, abs=1)
    for elapsed in (0.0, 1e5, 1e6, 1e7):
        assert plan.elapsed_ms(plan.market_ms(elapsed)) == pytest.approx(elapsed, abs=1e-3)


def test_a_slow_run_never_lies_ahead() -> None:
    plan = plan_run(span(50), now_ms=NOW, speed=0.5, alignment="end")
    assert plan.market_ms(600_000) <= NOW + 600_000

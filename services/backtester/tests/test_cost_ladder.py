"""The cost ladder of a compiled run is three more runs; their figures are those of runs of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from backtester.ladder import rungs
from backtester.options import BacktestOptions
from backtester.result import BacktestResult
from backtester.run import BacktestRequest, run_backtest

pytestmark = pytest.mark.thorough

WAVE = [100 + 8 * math.sin(number / 7) + number / 50 for number in range(400)]
OPTIONS = BacktestOptions(fee=Decimal("0.004"), slippage_bps=Decimal(5), sizing="equity_fraction:0.9")  # type: ignore[arg-type]


@pytest.fixture
def run(write_csv: Callable[..., Path]) -> Callable[..., BacktestResult]:
    path = write_csv([round(close, 2) for close in WAVE])

    def run_with(options: BacktestOptions, engine: str = "auto") -> BacktestResult:
        return run_backtest(
            BacktestRequest(
                strategy="ema_crossover",
                data=str(path),
                symbol="BTC/USDT",
                timeframe="1m",
                options=options,
                engine=engine,
            )
        )

    return run_with


def test_each_rung_is_the_run_at_that_cost(run: Callable[..., BacktestResult]) -> None:
    steps = rungs(run(OPTIONS))
    assert [(step.factor, step.is_exact) for step in steps] == [(0, True), (1, True), (2, True), (3, True)]
    for step in steps:
        costs = {"fee": step.factor * OPTIONS.fee, "slippage_bps": step.factor * OPTIONS.slippage_bps}
        alone = run(replace(OPTIONS, **costs))
        assert step.final_balance == alone.final_balance
        assert float(step.paid) == pytest.approx(float(alone.fees_paid + alone.slippage_paid))


def test_the_event_engine_prices_the_same_trades_anew_and_says_so(run: Callable[..., BacktestResult]) -> None:
    result = run(OPTIONS, engine="event")
    steps = rungs(result)
    assert [step.is_exact for step in steps] == [False, True, False, False]
    cost = result.fees_paid + result.slippage_paid
    assert [step.final_balance for step in steps] == [result.final_balance - (n - 1) * cost for n in range(4)]


def test_costs_that_cannot_be_leave_their_rung_to_an_estimate(run: Callable[..., BacktestResult]) -> None:
    steps = rungs(run(replace(OPTIONS, fee=Decimal("0.4"))))
    assert [step.is_exact for step in steps] == [True, True, True, False]

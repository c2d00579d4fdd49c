"""Figures of random runs against empyrical, pandas, and a plain second opinion."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import empyrical
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtester.metrics import RunFacts, TradeRecord, compute_detailed_metrics

pytestmark = pytest.mark.thorough

START = datetime(2024, 11, 5, tzinfo=UTC)
STARTING = 10_000


def marked_days(days: int, seed: int) -> list[tuple[datetime, float]]:
    values = STARTING * np.cumprod(1 + np.random.default_rng(seed).normal(0.0004, 0.015, days))
    return [(START + timedelta(days=day + 1), float(value)) for day, value in enumerate(values)]


def daily_series(marks: list[tuple[datetime, float]]) -> pd.Series:
    """Return simple returns by the day that they belong to: a mark at midnight ends the day before."""
    values = pd.Series([STARTING, *(value for _, value in marks)])
    days = pd.DatetimeIndex([moment - timedelta(days=1) for moment, _ in marks])
    return pd.Series(values.pct_change().to_numpy()[1:], index=days)


@pytest.mark.parametrize("days", [30, 61, 400])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_daily_figures_are_empyricals(days: int, seed: int) -> None:
    marks, trade = marked_days(days, seed), TradeRecord(START, "A/B", "BUY", Decimal(1), Decimal(1))
    metrics = compute_detailed_metrics([trade], STARTING, marks[-1][1], marks)
    returns = daily_series(marks)
    assert metrics.sharpe_ratio == pytest.approx(empyrical.sharpe_ratio(returns, annualization=365))
    assert metrics.sortino_ratio == pytest.approx(empyrical.sortino_ratio(returns, annualization=365))
    assert metrics.cagr == pytest.approx(empyrical.cagr(returns, annualization=365))
    assert metrics.calmar_ratio == pytest.approx(empyrical.calmar_ratio(returns, annualization=365))
    assert metrics.max_drawdown == pytest.approx(-100 * empyrical.max_drawdown(returns))
    assert metrics.total_return == pytest.approx(100 * empyrical.cum_returns_final(returns))
    monthly = empyrical.aggregate_returns(returns, "monthly")
    expected = {f"{year}-{month:02d}": 100 * value for (year, month), value in monthly.items()}
    assert metrics.monthly_returns == pytest.approx(expected)
    assert float(sum(metrics.monthly_pnl.values())) == pytest.approx(marks[-1][1] - STARTING)


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_drawdown_is_the_longest_time_below_a_peak(seed: int) -> None:
    marks = marked_days(200, seed)
    metrics = compute_detailed_metrics([], STARTING, marks[-1][1], marks)
    peak, since, longest, is_below = float(STARTING), marks[0][0], timedelta(0), False
    for moment, value in marks:
        if is_below or value < peak:
            longest = max(longest, moment - since)
        is_below = value < peak
        if not is_below:
            peak, since = value, moment
    assert metrics.max_drawdown_duration == longest


class Opinion:
    """First in, first out in plain Python: integers but for the shares of fees."""

    def __init__(self, moves: list[tuple[bool, int, int, int]]) -> None:
        self.trades: list[TradeRecord] = []
        self.nets: list[Decimal] = []
        self.lots: deque[list[int]] = deque()  # price, left, bought, fee
        self.turnover = self.fees = self.gross = self.held = 0
        for minute, (buys, size, price, fee) in enumerate(moves):
            quantity = size if buys else min(size, self.held)
            if quantity == 0:
                continue
            moment, side = START + timedelta(minutes=minute), "BUY" if buys else "SELL"
            self.trades.append(TradeRecord(moment, "A/B", side, Decimal(price), Decimal(quantity), Decimal(fee)))
            self.turnover, self.fees = self.turnover + price * quantity, self.fees + fee
            if buys:
                self.lots.append([price, quantity, quantity, fee])
                self.held += quantity
            else:
                self.sell(quantity, price, fee)

    def sell(self, quantity: int, price: int, fee: int) -> None:
        self.held -= quantity
        left = quantity
        while left:
            lot = self.lots[0]
            part = min(left, lot[1])
            self.gross += (price - lot[0]) * part
            fees = Decimal(fee) * part / quantity + Decimal(lot[3]) * part / lot[2]
            self.nets.append((price - lot[0]) * part - fees)
            lot[1] -= part
            left -= part
            if lot[1] == 0:
                self.lots.popleft()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, 5), st.integers(50, 150), st.integers(0, 3)), min_size=1, max_size=40
    )
)
def test_pairs_turnover_and_costs_are_those_of_a_plain_second_opinion(
    moves: list[tuple[bool, int, int, int]],
) -> None:
    opinion, last = Opinion(moves), 100
    gross = opinion.gross + sum((last - lot[0]) * lot[1] for lot in opinion.lots)
    final = STARTING + gross - opinion.fees
    facts = RunFacts(last_prices={"A/B": Decimal(last)})
    metrics = compute_detailed_metrics(opinion.trades, STARTING, final, None, facts)
    assert (metrics.turnover, metrics.fees_paid, metrics.gross_pnl) == (opinion.turnover, opinion.fees, gross)
    nets = [float(net) for net in opinion.nets]
    assert [float(pair.pnl) for pair in metrics.trade_pairs] == pytest.approx(nets)
    won = [net for net in nets if net > 1e-15]
    assert metrics.winning_trades == len(won)
    assert float(metrics.avg_win) == pytest.approx(sum(won) / len(won) if won else 0.0)
    assert float(metrics.largest_loss) == pytest.approx(min([net for net in nets if net < 0], default=0.0))
    assert sum(float(position.quantity) for position in metrics.open_positions) == opinion.held
    if opinion.turnover:
        assert metrics.breakeven_cost_bps == pytest.approx(gross / opinion.turnover * 10_000)
    assert metrics.final_balance_closed == final  # closing costs nothing here

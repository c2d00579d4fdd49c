"""Every figure of a run, by hand on small runs and against empyrical on a long one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import empyrical
import numpy as np
import pytest

from backtester.benchmark import hold_balance, mean_exposure
from backtester.metrics import DetailedMetrics, RunFacts, TradeRecord, compute_detailed_metrics
from backtester.ratios import sorted_marks
from shared.clock import seeded_random
from shared.domain.performance import EquityCurve, simple_returns
from shared.errors import ConfigError

START = datetime(2025, 1, 1, tzinfo=UTC)
SPEC_ORDER = [
    "total_return",
    "total_trades",
    "winning_trades",
    "losing_trades",
    "win_rate",
    "profit_factor",
    "sharpe_ratio",
    "sortino_ratio",
    "calmar_ratio",
    "max_drawdown",
    "max_drawdown_duration",
    "monthly_returns",
    "avg_win",
    "avg_loss",
    "largest_win",
    "largest_loss",
    "avg_holding_period",
    "trade_pairs",
    "round_trips",
    "cagr",
    "sharpe_ci95",
    "exposure",
    "exposure_peak",
    "entries_max",
    "turnover",
    "gross_pnl",
    "fees_paid",
    "breakeven_cost_bps",
    "monthly_pnl",
    "open_positions",
    "final_balance_closed",
]


def fill(after: timedelta, side: str, quantity: str, price: str, fee: str = "0") -> TradeRecord:
    return TradeRecord(START + after, "BTC/USDT", side, Decimal(price), Decimal(quantity), Decimal(fee))


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


THREE_PAIRS = [
    fill(hours(0), "BUY", "1", "100", "0.1"),
    fill(hours(2), "SELL", "1", "110", "0.11"),
    fill(hours(3), "BUY", "1", "110", "0.11"),
    fill(hours(4), "SELL", "1", "105", "0.105"),
    fill(hours(5), "BUY", "1", "100", "0.1"),
    fill(hours(8), "SELL", "1", "100.1", "0.1001"),  # above its entry, below its fees: a loss
]


def test_the_fields_stand_in_the_order_of_the_specification() -> None:
    assert list(DetailedMetrics.__struct_fields__[: len(SPEC_ORDER)]) == SPEC_ORDER


def test_three_pairs_by_hand() -> None:
    fees = Decimal("0.6251")
    final = 1000 + Decimal("5.1") - fees
    metrics = compute_detailed_metrics(THREE_PAIRS, 1000, final)
    assert (metrics.total_trades, metrics.winning_trades, metrics.losing_trades, metrics.round_trips) == (6, 1, 2, 3)
    assert metrics.win_rate == pytest.approx(100 / 3)
    assert metrics.avg_win == metrics.largest_win == Decimal("9.79")
    assert metrics.largest_loss == Decimal("-5.215")
    assert metrics.avg_loss == Decimal("-2.65755")  # (-5.215 - 0.1001) / 2
    assert metrics.profit_factor == pytest.approx(9.79 / 5.3151)
    assert metrics.gross_pnl == Decimal("5.1")
    assert metrics.fees_paid == fees
    assert metrics.turnover == Decimal("625.1")
    assert metrics.breakeven_cost_bps == pytest.approx(5.1 / 625.1 * 10_000)
    assert metrics.avg_holding_period == hours(2)
    assert metrics.total_return == pytest.approx(0.44749)
    assert metrics.exposure == pytest.approx(6 / 8)  # in for 2, 1 and 3 of 8 hours
    assert metrics.entries_max == 1
    assert metrics.final_balance_closed == final
    assert metrics.sharpe_ci95 is None


def test_trades_alone_give_the_realised_equity() -> None:
    metrics = compute_detailed_metrics(THREE_PAIRS, 1000, 1004)
    assert metrics.monthly_returns == {"2025-01": pytest.approx(0.44749)}
    assert metrics.monthly_pnl["2025-01"] == Decimal("4.4749")
    assert metrics.max_drawdown == pytest.approx(100 * 5.3151 / 1009.79)
    assert metrics.max_drawdown_duration == hours(6)  # from the first exit to the end
    assert metrics.too_short
    assert (metrics.sharpe_ratio, metrics.sortino_ratio, metrics.calmar_ratio, metrics.cagr) == (None,) * 4


def test_a_sale_at_midnight_of_the_first_counts_for_the_month_that_begins() -> None:
    trades = [fill(timedelta(days=1), "BUY", "1", "100"), fill(timedelta(days=31), "SELL", "1", "150")]
    assert compute_detailed_metrics(trades, 100, 150).monthly_returns == {"2025-01": 0.0, "2025-02": 50.0}


def test_a_run_without_a_trade_is_all_zero() -> None:
    metrics = compute_detailed_metrics([], 1000, 1000, [(START + timedelta(days=n), 1000) for n in range(1, 60)])
    assert (metrics.total_trades, metrics.win_rate, metrics.profit_factor) == (0, 0, 0)
    assert (metrics.sharpe_ratio, metrics.sortino_ratio, metrics.calmar_ratio, metrics.cagr) == (0, 0, 0, 0)
    assert (metrics.breakeven_cost_bps, metrics.exposure, metrics.max_drawdown) == (0, 0, 0)
    assert metrics.trade_pairs == ()
    assert metrics.avg_holding_period == metrics.max_drawdown_duration == timedelta(0)


def test_one_open_trade_has_no_pair_and_says_what_closing_costs() -> None:
    facts = RunFacts(
        last_prices={"BTC/USDT": Decimal(120)}, closing_fee=Decimal("0.001"), closing_slippage_bps=Decimal(10)
    )
    metrics = compute_detailed_metrics([fill(hours(0), "BUY", "1", "100", "0.1")], 1000, "1019.9", None, facts)
    assert (metrics.win_rate, metrics.profit_factor, metrics.round_trips) == (0, None, 0)
    assert metrics.gross_pnl == 20
    assert metrics.final_balance_closed == Decimal("899.9") + 120 * Decimal("0.999") * Decimal("0.999")
    (position,) = metrics.open_positions
    assert (position.quantity, position.unrealized_pnl) == (1, 20)


def test_gross_less_fees_is_the_profit_also_with_lots_open() -> None:
    trades = [
        fill(hours(0), "BUY", "1", "100", "0.1"),
        fill(hours(1), "BUY", "1", "120", "0.12"),
        fill(hours(2), "SELL", "1", "130", "0.13"),
    ]
    final = Decimal(1000) - 100 - 120 + 130 - Decimal("0.35") + 125
    metrics = compute_detailed_metrics(trades, 1000, final, None, RunFacts(last_prices={"BTC/USDT": Decimal(125)}))
    assert metrics.gross_pnl - metrics.fees_paid == final - 1000


def test_all_losing_pairs_have_a_profit_factor_of_zero_and_no_largest_win() -> None:
    trades = [fill(hours(n), "BUY" if n % 2 == 0 else "SELL", "1", str(200 - n)) for n in range(10)]
    metrics = compute_detailed_metrics(trades, 1000, 995)
    assert (metrics.win_rate, metrics.profit_factor, metrics.largest_win) == (0, 0, 0)
    assert (metrics.losing_trades, metrics.avg_loss) == (5, -1)


def test_all_winning_pairs_have_no_profit_factor() -> None:
    metrics = compute_detailed_metrics([fill(hours(0), "BUY", "1", "1"), fill(hours(1), "SELL", "1", "2")], 10, 11)
    assert (metrics.profit_factor, metrics.win_rate, metrics.largest_loss) == (None, 100, 0)


def test_a_pair_of_exactly_nothing_neither_wins_nor_loses() -> None:
    metrics = compute_detailed_metrics([fill(hours(0), "BUY", "1", "1"), fill(hours(1), "SELL", "1", "1")], 10, 10)
    assert (metrics.winning_trades, metrics.losing_trades, metrics.win_rate) == (0, 0, 0)


@pytest.mark.parametrize("balance", [0, -1, "NaN", "Infinity"])
def test_an_initial_balance_that_is_no_money_is_refused(balance: object) -> None:
    with pytest.raises(ConfigError, match="initial balance"):
        compute_detailed_metrics([], balance, 1)  # type: ignore[arg-type]


def test_unsorted_trades_and_marks_give_the_same_figures() -> None:
    marks = [(START + hours(n), Decimal(1000 + n % 3)) for n in range(1, 9)]
    straight = compute_detailed_metrics(THREE_PAIRS, 1000, 1004, marks)
    assert compute_detailed_metrics(THREE_PAIRS[::-1], 1000, 1004, marks[::-1]) == straight


def test_exposure_is_the_share_of_candles_with_a_position() -> None:
    marks = [(START + hours(n), 1000) for n in range(1, 11)]
    metrics = compute_detailed_metrics(THREE_PAIRS, 1000, 1004, marks)
    assert metrics.exposure == pytest.approx(0.6)  # closes at 1, 2, 4, 6, 7, 8 h
    held = [100, 100, 0, 500, 0, 0, 0, 0, 0, 0]
    known = compute_detailed_metrics(THREE_PAIRS, 1000, 1004, marks, RunFacts(position_values=held))
    assert (known.exposure, known.exposure_peak) == (0.3, 0.5)
    assert mean_exposure(sorted_marks(marks, held)) == pytest.approx(0.07)
    with pytest.raises(ValueError, match="position_values"):
        compute_detailed_metrics(THREE_PAIRS, 1000, 1004, marks, RunFacts(position_values=[1.0]))


def test_the_annual_figures_are_those_of_empyrical_on_the_daily_series() -> None:
    rng = seeded_random(7)
    moments = [START + timedelta(hours=6 * n) for n in range(1, 400)]
    values = 10_000 * np.cumprod([1 + rng.gauss(0.0005, 0.01) for _ in moments])
    metrics = compute_detailed_metrics(
        THREE_PAIRS, 10_000, float(values[-1]), list(zip(moments, values.tolist(), strict=True))
    )
    daily = np.concatenate(([10_000.0], values[3::4], values[-1:]))  # 399 marks: 99 whole days and three marks
    returns = simple_returns(daily)
    assert metrics.daily_returns == len(returns) == 100
    assert metrics.sharpe_ratio == pytest.approx(empyrical.sharpe_ratio(returns, annualization=365))
    assert metrics.sortino_ratio == pytest.approx(empyrical.sortino_ratio(returns, annualization=365))
    assert metrics.cagr == pytest.approx(empyrical.cagr(returns, annualization=365))
    assert metrics.calmar_ratio == pytest.approx(empyrical.calmar_ratio(returns, annualization=365))
    assert not metrics.too_short


@pytest.mark.parametrize(("day_count", "too_short"), [(29, True), (30, False)])
def test_thirty_daily_returns_are_needed(day_count: int, too_short: bool) -> None:
    marks = [(START + timedelta(days=n), 1000 + n % 2) for n in range(1, day_count + 1)]
    metrics = compute_detailed_metrics(THREE_PAIRS, 1000, 1000, marks)
    assert metrics.too_short is too_short
    assert (metrics.sharpe_ratio is None) is too_short


def test_one_candle_is_enough_for_a_report_of_nothing() -> None:
    metrics = compute_detailed_metrics([], 1000, 1000, [(START + hours(1), 1000)])
    assert (metrics.total_return, metrics.max_drawdown, metrics.monthly_returns) == (0, 0, {"2025-01": 0.0})


def test_a_curve_of_arrays_is_as_good_as_marks() -> None:
    marks = [(START + hours(n), 1000.0 + n) for n in range(1, 9)]
    curve = EquityCurve.from_marks(marks)
    assert compute_detailed_metrics(THREE_PAIRS, 1000, 1008, curve) == compute_detailed_metrics(
        THREE_PAIRS, 1000, 1008, marks
    )


def test_holding_pays_the_same_costs() -> None:
    cost = {"first_open": Decimal(100), "last_close": Decimal(110)}
    assert hold_balance(Decimal(1000), **cost) == 1100
    with_costs = hold_balance(Decimal(1000), **cost, fee=Decimal("0.001"), slippage_bps=Decimal(10))
    assert float(with_costs) == pytest.approx(1000 / (100 * 1.001 * 1.001) * 110)
    assert hold_balance(Decimal(1000), **cost, share=Decimal("0.25")) == 1025

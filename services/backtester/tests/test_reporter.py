"""The report, the CSV and the JSON, of ordinary and of odd runs."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from backtester.ladder import rungs
from backtester.metrics import DetailedMetrics, RunFacts, TradeRecord, compute_detailed_metrics
from backtester.report_rows import caveats
from backtester.reporter import export_csv, export_json, format_report, verdict
from backtester.result import BacktestResult
from backtester.simulator import SimulatedTrade

START = datetime(2025, 1, 31, 22, tzinfo=UTC)
LABELS = [
    "Strategy",
    "Symbol",
    "Initial Balance",
    "Final Balance",
    "Profit/Loss",
    "Profit %",
    "Total Trades",
    "Win Rate",
    "Sharpe Ratio",
    "Sortino Ratio",
    "Calmar Ratio",
    "Max Drawdown",
    "Profit Factor",
    "Avg Win",
    "Avg Loss",
    "Largest Win",
    "Largest Loss",
    "Avg Holding Period",
]
CSV_COLUMNS = "entry_time,exit_time,entry_price,exit_price,quantity,pnl,pnl_pct,holding_period,symbol,strategy,fees"
JSON_KEYS = {
    *("schema", "version", "engine", "strategy", "symbol", "timeframe", "params", "command", "config_hash", "fill"),
    *("fee", "fee_asset", "slippage_bps", "sizing", "max_entries", "risk", "data", "initial_balance", "final_balance"),
    *("fees_paid", "signals", "refused", "ignored", "metrics", "trades", "seconds"),
}


def trade(hour: int, side: str, price: str, strategy: str = "rsi") -> TradeRecord:
    fee = Decimal(price) / 1000
    return TradeRecord(
        START + timedelta(hours=hour),
        "BTC/USDT",
        side,
        Decimal(price),
        Decimal(1),
        fee,
        strategy,
        signal_time=START + timedelta(hours=hour),
        balance_after=Decimal(1000),
    )


def result_of(trades: list[TradeRecord], final: str, **changes: Any) -> BacktestResult:
    metrics = compute_detailed_metrics(trades, 1000, final, None, RunFacts(last_prices={"BTC/USDT": Decimal(100)}))
    fields: dict[str, Any] = {"fees_paid": metrics.fees_paid, "fee": Decimal("0.001"), "timeframe": "1h"}
    profit = Decimal(final) - 1000
    return BacktestResult(
        "rsi", "BTC/USDT", len(trades), 1000, final, profit, float(profit / 10), trades, metrics, **(fields | changes)
    )


WON = result_of([trade(0, "BUY", "100"), trade(3, "SELL", "110")], "1009.79")
LOST = result_of([trade(0, "BUY", "100"), trade(3, "SELL", "90")], "989.81")
EATEN = result_of([trade(0, "BUY", "100"), trade(3, "SELL", "100.1")], "999.8999")
OPEN = result_of([trade(0, "BUY", "100")], "999.9")
EMPTY = result_of([], "1000")
BARE = BacktestResult("rsi", "BTC/USDT", 0, Decimal(1000), Decimal(1000), Decimal(0), 0.0)
ODD = [WON, LOST, EATEN, OPEN, EMPTY, BARE]


def rows(report: str) -> dict[str, str]:
    """Return label -> value of the two-column table."""
    return {line[2:24].strip(): line[24:].strip() for line in report.splitlines() if len(line) > 24}


def test_the_report_has_both_tables_and_every_label_in_order() -> None:
    report = format_report(WON)
    assert report.index("BACKTEST REPORT") < report.index("MONTHLY RETURNS")
    places = [report.index(f"  {label} ", report.index("BACKTEST REPORT")) for label in LABELS]
    assert places == sorted(places)
    assert "2025-02" in report


@pytest.mark.parametrize(
    ("result", "begins"),
    [
        (WON, "BEATS ITS COSTS: gross +10.00, fees 0.21, break-even 476.19 bps against 10.00 bps paid"),
        (EATEN, "DOES NOT BEAT ITS COSTS: gross +0.1"),
        (LOST, "LOSES BEFORE FEES: gross -10.00"),
        (EMPTY, "NO TRADES"),
        (BARE, "NO METRICS"),
    ],
)
def test_the_verdict_says_whether_the_costs_are_beaten(result: BacktestResult, begins: str) -> None:
    assert verdict(result).startswith(begins)
    assert format_report(result).startswith(begins)


def test_a_run_that_beats_its_costs_is_told_what_speaks_against_it() -> None:
    page = format_report(msgspec.structs.replace(WON, benchmarks={"hold at mean exposure": Decimal(2000)}, trial=3))
    line = page.splitlines()[1]
    assert line.startswith("but holding as much of it all the time brought more; too few days")
    assert "look 3 at this data" in " ".join(page.split()[:80])
    dear = result_of([trade(0, "BUY", "100"), trade(3, "SELL", "101")], "1000.799", fees_paid=Decimal("0.201"))
    dearer = msgspec.structs.replace(dear, slippage_paid=Decimal(3))
    assert caveats(dearer)[-1] == "at twice the costs it loses"
    assert caveats(LOST) == caveats(EMPTY) == caveats(BARE) == []


def test_the_ladder_scales_what_was_paid() -> None:
    lines = [line.split() for line in format_report(WON).splitlines()]
    ladder = {line[0]: line[1:] for line in lines if line and line[0] in ("0x", "1x", "2x", "3x")}
    assert ladder == {
        "0x": ["0.00", "1,010.00", "+10.00"],
        "1x": ["0.21", "1,009.79", "+9.79"],
        "2x": ["0.42", "1,009.58", "+9.58"],
        "3x": ["0.63", "1,009.37", "+9.37"],
    }


def test_a_rung_that_uses_the_account_up_ends_with_nothing() -> None:
    steps = rungs(result_of([trade(0, "BUY", "100"), trade(3, "SELL", "90")], "400", fees_paid=Decimal(500)))
    assert [float(step.final_balance) for step in steps] == [900, 400, 0, 0]
    assert [step.is_exact for step in steps] == [False, True, False, False]


@pytest.mark.parametrize("result", ODD)
@pytest.mark.parametrize("width", [60, 100, 140])
def test_every_line_fits_the_width_and_carries_no_colour(result: BacktestResult, width: int) -> None:
    report = format_report(result, width)
    assert max(map(len, report.splitlines())) <= width
    assert "\x1b" not in report


def test_colour_is_for_terminals() -> None:
    assert "\x1b[" in format_report(WON, color=True)


def test_the_environment_does_not_change_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = format_report(WON)
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "40", "TERM": "xterm-256color", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    assert format_report(WON) == plain


def test_names_are_printed_as_they_are_but_steer_no_terminal() -> None:
    name = "[red]x[/red] [/] :smile: \x1b[2J"
    report = format_report(BacktestResult(name, "BTC/USDT", 0, 1000, 1000, 0, 0.0))  # type: ignore[arg-type]
    assert "[red]x[/red] [/] :smile:" in report
    assert "\x1b" not in report


def test_annual_figures_are_not_printed_when_too_short_nor_without_the_interval() -> None:
    assert rows(format_report(WON))["Sharpe Ratio"] == "too short (2 daily returns, 30 needed)"
    figures = {"sharpe_ratio": 1.5, "cagr": 0.2, "too_short": False, "daily_returns": 90, "total_trades": 2}
    hidden = format_report(BacktestResult("a", "b", 2, 1, 1, 0, 0.0, detailed=DetailedMetrics(**figures)))  # type: ignore[arg-type]
    assert "1.50" not in hidden
    shown = DetailedMetrics(**figures, sharpe_ci95=(-0.5, 3.5))  # type: ignore[arg-type]
    report = rows(format_report(BacktestResult("a", "b", 2, 1, 1, 0, 0.0, detailed=shown)))  # type: ignore[arg-type]
    assert report["Sharpe Ratio"] == "1.50 (Sharpe 95 %: -0.50 to 3.50; 90 days)"
    assert report["CAGR"].startswith("20.00 % (")


def test_the_report_names_an_optimistic_fill_and_the_refusals() -> None:
    report = rows(format_report(result_of([], "1000", fill="close", refused={"gap": 2, "minimum_notional": 7})))
    assert "SAME candle's close" in report["Fills"]
    assert report["Refused"] == "minimum_notional 7, gap 2"
    assert report["Ignored"] == "none"


def test_the_report_names_every_cost_and_an_optimistic_option() -> None:
    options = {"fee_maker": Decimal("0.0005"), "half_spread_bps": Decimal(1), "impact_bps": Decimal(10), "gap": "fill"}
    report = rows(format_report(result_of([], "1000", options=options, slippage_bps=Decimal("3.456")), width=200))
    assert "fee 0.1 % in quote (0.05 % for targets)" in report["Fills"]
    assert "1 bps + 10 bps x sqrt(size / median volume), 3.46 bps on average" in report["Fills"]
    assert "optimistic" in report["Late Fills"]
    stops = {"stop_loss_pct": Decimal("2.50"), "take_profit_pct": Decimal(0), "trailing_pct": Decimal(4)}
    assert rows(format_report(result_of([], "1000", options=stops)))["Exits"] == "stop loss 2.5 %, trailing stop 4 %"


def test_the_csv_has_the_columns_in_order_and_a_row_a_pair() -> None:
    text = export_csv(WON)
    assert text.splitlines()[0] == CSV_COLUMNS
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["entry_time"] == "2025-01-31T22:00:00Z"
    assert (row["pnl"], row["fees"], row["holding_period"], row["quantity"]) == ("9.79", "0.21", "10800", "1")


@pytest.mark.parametrize("result", [OPEN, EMPTY, BARE])
def test_the_csv_of_no_pair_is_empty(result: BacktestResult) -> None:
    assert export_csv(result) == ""


def test_a_strategy_name_cannot_become_a_formula() -> None:
    trades = [trade(0, "BUY", "100", "=1+1"), trade(1, "SELL", "110", "=1+1")]
    assert ",'=1+1," in export_csv(result_of(trades, "1009.79"))


def test_the_json_is_empty_without_metrics() -> None:
    assert export_json(BARE) == "{}"


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.parametrize("result", [WON, LOST, EATEN, OPEN, EMPTY])
def test_the_json_is_strict_and_whole(result: BacktestResult) -> None:
    document = json.loads(export_json(result), parse_constant=refuse_constant)
    assert document["schema"] == "backtest/1"
    assert document.keys() >= JSON_KEYS
    assert set(document["metrics"]) == set(DetailedMetrics.__struct_fields__)
    assert set(document["seconds"]) == {"load", "compile", "run"}
    assert document["initial_balance"] == 1000
    assert len(document["trades"]) == len(result.trades)


def test_the_json_writes_money_as_exact_numbers_durations_as_seconds_and_nothing_as_null() -> None:
    document = json.loads(export_json(WON), parse_float=Decimal)
    assert document["final_balance"] == Decimal("1009.79")
    assert document["metrics"]["avg_holding_period"] == 10800
    assert document["metrics"]["sharpe_ratio"] is None
    assert document["metrics"]["trade_pairs"][0]["pnl"] == Decimal("9.79")
    assert document["trades"][0] == {
        "time": "2025-01-31T22:00:00Z",
        "signal_time": "2025-01-31T22:00:00Z",
        "symbol": "BTC/USDT",
        "strategy": "rsi",
        "side": "BUY",
        "price": 100,
        "quantity": 1,
        "fee": Decimal("0.1"),
        "balance_after": 1000,
    }


@dataclass
class Unknown:
    value: int = 1


def test_the_json_takes_any_parameter() -> None:
    params = {"a": Decimal("0.10"), "b": float("inf"), "c": Unknown(), "d": {"e": (1, None, True)}, 5: "x"}
    document = json.loads(export_json(result_of([], "1000", params=params)), parse_constant=refuse_constant)
    assert document["params"] == {"a": 0.1, "b": None, "c": "Unknown(value=1)", "d": {"e": [1, None, True]}, "5": "x"}


def test_the_daily_equity_is_in_the_json() -> None:
    equity = [(START + timedelta(hours=hour), 1000 + hour) for hour in range(1, 30)]
    document = json.loads(export_json(result_of([], "1000", equity=equity)))
    assert document["equity_daily"] == {"2025-01-31": 1002, "2025-02-01": 1026, "2025-02-02": 1029}


def test_the_win_rate_needs_no_metrics() -> None:
    trades: list[TradeRecord | SimulatedTrade] = [
        SimulatedTrade("BTC/USDT", side, Decimal(price), Decimal(1), Decimal(0), START + timedelta(hours=hour))  # type: ignore[arg-type]
        for hour, (side, price) in enumerate([("BUY", 1), ("SELL", 2), ("BUY", 2), ("SELL", 1)])
    ]
    result = BacktestResult("x", "BTC/USDT", 4, Decimal(1), Decimal(1), Decimal(0), 0.0, trades)
    assert result.win_rate == 50
    assert BARE.win_rate == 0
    assert WON.win_rate == 100

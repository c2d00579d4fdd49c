"""The tables of the report on a terminal."""

from __future__ import annotations

from decimal import Decimal

from rich import box
from rich.table import Table
from rich.text import Text

from backtester.ladder import rungs
from backtester.metrics import DetailedMetrics
from backtester.report_rows import figure_rows, head_rows, run_rows
from backtester.result import BacktestResult
from backtester.wording import NOTHING, plain_text, show_money, show_signed


def metrics_table(result: BacktestResult) -> Table:
    """Return the table BACKTEST REPORT."""
    table = _table("BACKTEST REPORT", "Metric", "Value")
    for label, value in [*head_rows(result), *figure_rows(result.detailed), *run_rows(result)]:
        table.add_row(Text(plain_text(label)), Text(plain_text(value), style=_style(label, value)))
    return table


def monthly_table(metrics: DetailedMetrics) -> Table:
    """Return the table MONTHLY RETURNS."""
    table = _table("MONTHLY RETURNS", "Month", "Return", "PnL")
    for month, percent in metrics.monthly_returns.items():
        pnl = metrics.monthly_pnl.get(month)
        table.add_row(
            Text(month),
            Text(f"{percent:+.2f} %", style=_sign_style(percent)),
            Text(NOTHING if pnl is None else show_signed(pnl)),
        )
    if not metrics.monthly_returns:
        table.add_row(Text("no month"), Text(NOTHING), Text(NOTHING))
    return table


def ladder_table(result: BacktestResult) -> Table:
    """Return the final balance at 0, 1, 2 and 3 times the costs, and whether each is a run of its own."""
    steps = rungs(result)
    how = "run again at each" if all(step.is_exact for step in steps) else "same trades; fees and slippage scaled"
    table = _table(f"COST LADDER ({how})", "Costs", "Paid", "Ends With", "Gain")
    for step in steps:
        profit = step.final_balance - result.initial_balance
        table.add_row(
            Text(f"{step.factor}x"),
            Text(show_money(step.paid)),
            Text(show_money(step.final_balance)),
            Text(show_signed(profit), style=_sign_style(profit)),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAVY, expand=True, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 or len(columns) == 2 else "right", overflow="fold")
    return table


def _style(label: str, value: str) -> str:
    if label not in ("Profit/Loss", "Profit %", "Gross PnL"):
        return ""
    return "red" if value.startswith("-") else "green" if value.startswith("+") else ""


def _sign_style(value: float | Decimal) -> str:
    return "green" if value > 0 else "red" if value < 0 else ""

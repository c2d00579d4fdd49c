"""The tables of the report, and how it writes numbers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal

from rich import box
from rich.table import Table
from rich.text import Text

from backtester.metrics import DetailedMetrics
from backtester.result import BacktestResult
from shared.domain.performance import DAILY_RETURNS_MIN

COST_FACTORS = (0, 1, 2, 3)
REASONS_SHOWN_MAX = 12
NOTHING = "-"

type Rows = list[tuple[str, str]]


def metrics_table(result: BacktestResult) -> Table:
    """Return the table BACKTEST REPORT."""
    table = _table("BACKTEST REPORT", "Metric", "Value")
    for label, value in [*_head_rows(result), *_figure_rows(result.detailed), *_run_rows(result)]:
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


def cost_ladder(result: BacktestResult) -> Table:
    """Return the final balance had the same trades cost 0, 1, 2 or 3 times what they cost."""
    cost = result.fees_paid + result.slippage_paid
    table = _table("COST LADDER (same trades; fees and slippage scaled)", "Costs", "Paid", "Ends With", "Gain")
    for factor in COST_FACTORS:
        final = result.final_balance + (1 - factor) * cost
        profit = final - result.initial_balance
        table.add_row(
            Text(f"{factor}x"),
            Text(show_money(factor * cost)),
            Text(show_money(final)),
            Text(show_signed(profit), style=_sign_style(float(profit))),
        )
    return table


def show_money(amount: Decimal) -> str:
    """Return an amount with two decimals, or as many as a small one needs to be seen."""
    if amount and abs(amount) < 1:
        return f"{amount:.6f}".rstrip("0").rstrip(".") if abs(amount) >= Decimal("0.000001") else f"{amount:.2e}"
    return f"{amount:,.2f}"


def show_signed(amount: Decimal) -> str:
    """Return an amount with its sign."""
    return ("+" if amount > 0 else "") + show_money(amount)


def show_ratio(value: float | None) -> str:
    """Return a ratio with two decimals; - when it is undefined."""
    return NOTHING if value is None else f"{value:,.2f}"


def show_bps(value: float | None) -> str:
    """Return basis points; - when they are undefined."""
    return NOTHING if value is None else f"{value:,.2f} bps"


def show_duration(duration: timedelta) -> str:
    """Return days, hours, minutes and seconds as far as they say something."""
    minutes, seconds = divmod(int(duration.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h {minutes} min"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" + (f" {seconds} s" if seconds else "") if minutes else f"{seconds} s"


def plain_text(text: str) -> str:
    """Return text on one line, without control characters that could steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _head_rows(result: BacktestResult) -> Rows:
    quote = result.symbol.rpartition("/")[2] if "/" in result.symbol else ""
    unit = f" {quote}" if quote else ""
    return [
        ("Strategy", result.strategy_name),
        ("Symbol", f"{result.symbol} {result.timeframe}".strip()),
        ("Initial Balance", show_money(result.initial_balance) + unit),
        ("Final Balance", show_money(result.final_balance) + unit),
        ("Profit/Loss", show_signed(result.profit) + unit),
        ("Profit %", f"{result.profit_pct:+.2f} %"),
        ("Total Trades", str(result.total_trades)),
        ("Win Rate", _win_rate(result)),
    ]


def _win_rate(result: BacktestResult) -> str:
    metrics = result.detailed
    if metrics is None:
        return f"{result.win_rate:.1f} %"
    count = len(metrics.trade_pairs)
    return f"{metrics.win_rate:.1f} % ({metrics.winning_trades} of {count} pair{'' if count == 1 else 's'})"


def _figure_rows(metrics: DetailedMetrics | None) -> Rows:
    if metrics is None:
        return []
    fall = f"{metrics.max_drawdown:.2f} % (longest {show_duration(metrics.max_drawdown_duration)}; candle closes only)"
    return [
        ("Sharpe Ratio", _annual(metrics, metrics.sharpe_ratio)),
        ("Sortino Ratio", _annual(metrics, metrics.sortino_ratio)),
        ("Calmar Ratio", _annual(metrics, metrics.calmar_ratio)),
        ("Max Drawdown", fall),
        ("Profit Factor", show_ratio(metrics.profit_factor)),
        ("Avg Win", show_signed(metrics.avg_win)),
        ("Avg Loss", show_signed(metrics.avg_loss)),
        ("Largest Win", show_signed(metrics.largest_win)),
        ("Largest Loss", show_signed(metrics.largest_loss)),
        ("Avg Holding Period", show_duration(metrics.avg_holding_period)),
        ("CAGR", _annual(metrics, None if metrics.cagr is None else 100 * metrics.cagr, " %")),
        ("Round Trips", f"{metrics.round_trips} (flat to flat), at most {metrics.entries_max} entries open"),
        ("Exposure", f"{100 * metrics.exposure:.1f} % of the time, peak {100 * metrics.exposure_peak:.1f} % of equity"),
        ("Turnover", show_money(metrics.turnover)),
        ("Gross PnL", show_signed(metrics.gross_pnl)),
        ("Fees Paid", show_money(metrics.fees_paid)),
        ("Break-even Cost", show_bps(metrics.breakeven_cost_bps)),
        ("Final Balance Closed", show_money(metrics.final_balance_closed)),
        *(
            (
                "Open Position",
                f"{position.quantity.normalize():f} {position.symbol} at {show_money(position.avg_entry_price)}"
                + (f", {show_signed(position.unrealized_pnl)}" if position.unrealized_pnl is not None else ""),
            )
            for position in metrics.open_positions
        ),
    ]


def _annual(metrics: DetailedMetrics, value: float | None, unit: str = "") -> str:
    """Return an annual figure with the interval of its Sharpe ratio, without which it says more than it knows."""
    if metrics.total_trades == 0:
        return NOTHING
    if metrics.too_short:
        return f"too short ({metrics.daily_returns} daily returns, {DAILY_RETURNS_MIN} needed)"
    if value is None:
        return NOTHING
    if metrics.sharpe_ci95 is None:
        return "not shown without its interval (see the JSON)"
    low, high = metrics.sharpe_ci95
    return f"{value:,.2f}{unit} (Sharpe 95 %: {low:,.2f} to {high:,.2f}; {metrics.daily_returns} days)"


def _run_rows(result: BacktestResult) -> Rows:
    rows: Rows = [(f"{name}", show_money(value)) for name, value in result.benchmarks.items()]
    fill = "at the next candle's open" if result.fill == "next-open" else "at the SAME candle's close (optimistic)"
    fee = f"fee {(100 * result.fee).normalize():f} % in {result.fee_asset}, slippage {result.slippage_bps.normalize():f} bps"
    rows += [("Fills", f"{fill}; {fee}"), ("Sizing", f"{result.sizing}; max entries {_entries(result.max_entries)}")]
    if result.data is not None:
        data = result.data
        window = f"{data.first:%Y-%m-%d %H:%M} to {data.last:%Y-%m-%d %H:%M} UTC"
        rows.append(("Data", f"{data.rows:,} candles, {window}"))
        rows.append(("Gaps", f"{data.gaps} ({data.candles_missing} candles missing)" if data.gaps else "none"))
    if result.slippage_paid:
        rows.append(("Slippage Paid", f"{show_money(result.slippage_paid)} (inside the fill prices)"))
    rows.append(("Signals", str(result.signals)))
    rows.append(("Refused", _reasons(result.refused)))
    rows.append(("Ignored", _reasons(result.ignored)))
    return rows


def _entries(max_entries: int) -> str:
    return "unlimited" if max_entries == 0 else str(max_entries)


def _reasons(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{reason} {count}" for reason, count in ordered[:REASONS_SHOWN_MAX])
    left = len(ordered) - REASONS_SHOWN_MAX
    return (shown + (f" and {left} more" if left > 0 else "")) or "none"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAVY, expand=True, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 or len(columns) == 2 else "right", overflow="fold")
    return table


def _style(label: str, value: str) -> str:
    if label not in ("Profit/Loss", "Profit %", "Gross PnL"):
        return ""
    return "red" if value.startswith("-") else "green" if value.startswith("+") else ""


def _sign_style(value: float) -> str:
    return "green" if value > 0 else "red" if value < 0 else ""

"""What a report says about a run, as rows of a label and a value: the same words on a terminal and on a page."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from backtester.ladder import rungs
from backtester.metrics import BPS, DetailedMetrics
from backtester.result import BacktestResult
from backtester.simulated_data import SIMULATED_SOURCE
from backtester.statistics.bootstrap import INTERVAL_DAYS_MIN
from backtester.wording import (
    NOTHING,
    counted,
    show_bps,
    show_counts,
    show_duration,
    show_money,
    show_ratio,
    show_signed,
)
from shared.domain.performance import DAILY_RETURNS_MIN

type Rows = list[tuple[str, str]]


def verdict(result: BacktestResult) -> str:
    """Return one line: does the run beat its costs, and by what."""
    metrics = result.detailed
    if metrics is None:
        return f"NO METRICS: profit {show_signed(result.profit)} ({result.profit_pct:+.2f} %)"
    if metrics.total_trades == 0:
        return "NO TRADES: nothing was bought or sold, so there is nothing to judge"
    if metrics.gross_pnl > metrics.fees_paid:
        head = "BEATS ITS COSTS"
    elif metrics.gross_pnl > 0:
        head = "DOES NOT BEAT ITS COSTS"
    else:
        head = "LOSES BEFORE FEES"
    return (
        f"{head}: gross {show_signed(metrics.gross_pnl)}, fees {show_money(metrics.fees_paid)}, "
        f"break-even {show_bps(metrics.breakeven_cost_bps)} against {show_bps(paid_bps(metrics))} paid"
    )


def caveats(result: BacktestResult) -> list[str]:
    """Return what speaks against a run that beats its costs, each as a part of a sentence; none for any other run."""
    metrics = result.detailed
    if metrics is None or not metrics.total_trades or metrics.gross_pnl <= metrics.fees_paid:
        return []
    found = []
    same = result.benchmarks.get("hold at mean exposure")
    if same is not None and same > result.final_balance:
        found.append("holding as much of it all the time brought more")
    if metrics.sharpe_ci95 is None:
        found.append("too few days to tell it from luck")
    elif metrics.sharpe_ci95[0] <= 0:
        found.append("the interval of its Sharpe ratio holds 0, so luck may explain it")
    doubled = next((step for step in rungs(result) if step.factor == 2), None)
    if doubled is not None and doubled.final_balance < result.initial_balance:
        found.append("at twice the costs it loses")
    if result.trial > 1:
        found.append(f"it is look {result.trial} at this data")
    return found


def paid_bps(metrics: DetailedMetrics) -> float:
    """Return the fees paid, in basis points of the turnover; 0 without any."""
    return float(metrics.fees_paid / metrics.turnover * BPS) if metrics.turnover else 0.0


def head_rows(result: BacktestResult) -> Rows:
    """Return what ran and how it ended."""
    unit = _unit(result)
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


def figure_rows(metrics: DetailedMetrics | None) -> Rows:
    """Return the figures of the run; none without metrics."""
    if metrics is None:
        return []
    fall = f"{metrics.max_drawdown:.2f} % (longest {show_duration(metrics.max_drawdown_duration)}; candle closes only)"
    return [
        ("Sharpe Ratio", show_annual(metrics, metrics.sharpe_ratio)),
        ("Sortino Ratio", show_annual(metrics, metrics.sortino_ratio)),
        ("Calmar Ratio", show_annual(metrics, metrics.calmar_ratio)),
        ("Max Drawdown", fall),
        ("Profit Factor", show_ratio(metrics.profit_factor)),
        ("Avg Win", show_signed(metrics.avg_win)),
        ("Avg Loss", show_signed(metrics.avg_loss)),
        ("Largest Win", show_signed(metrics.largest_win)),
        ("Largest Loss", show_signed(metrics.largest_loss)),
        ("Avg Holding Period", show_duration(metrics.avg_holding_period)),
        ("CAGR", show_annual(metrics, None if metrics.cagr is None else 100 * metrics.cagr, " %")),
        ("Round Trips", f"{metrics.round_trips} (flat to flat), at most {metrics.entries_max} entries open"),
        ("Exposure", f"{100 * metrics.exposure:.1f} % of the time, peak {100 * metrics.exposure_peak:.1f} % of equity"),
        ("Turnover", show_money(metrics.turnover)),
        ("Gross PnL", show_signed(metrics.gross_pnl)),
        ("Fees Paid", show_money(metrics.fees_paid)),
        ("Break-even Cost", f"{show_bps(metrics.breakeven_cost_bps)} (paid {show_bps(paid_bps(metrics))})"),
        ("Final Balance Closed", show_money(metrics.final_balance_closed)),
        *_position_rows(metrics),
    ]


def run_rows(result: BacktestResult) -> Rows:
    """Return how the run was made: costs, data, what was refused; what makes its figures better than they are."""
    rows: Rows = [(name.capitalize(), _hold(result, value)) for name, value in result.benchmarks.items()]
    fill = "at the next candle's open" if result.fill == "next-open" else "at the SAME candle's close (optimistic)"
    rows += [("Fills", f"{fill}; {_costs(result)}")]
    rows += [("Sizing", f"{result.sizing}; max entries {_entries(result.max_entries)}"), ("Exits", _exits(result))]
    if result.options.get("gap") == "fill":
        rows.append(("Late Fills", "a BUY is filled however late its next open comes (optimistic about holes)"))
    if result.data is not None:
        data = result.data
        window = f"{data.first:%Y-%m-%d %H:%M} to {data.last:%Y-%m-%d %H:%M} UTC"
        kind = (
            "; a SIMULATED market, where nothing that wins is proven" if data.path.startswith(SIMULATED_SOURCE) else ""
        )
        rows.append(("Data", f"{counted(data.rows, 'candle')}, {window}{kind}"))
        rows.append(
            ("Gaps", f"{data.gaps} ({counted(data.candles_missing, 'candle')} missing)" if data.gaps else "none")
        )
    if result.slippage_paid:
        rows.append(("Slippage Paid", f"{show_money(result.slippage_paid)} (inside the fill prices)"))
    if result.participation_max is not None:
        rows.append(("Largest Fill", f"{100 * result.participation_max:.4g} % of a candle's usual volume"))
    rows.append(("Signals", str(result.signals)))
    rows.append(("Refused", show_counts(result.refused)))
    rows.append(("Ignored", show_counts(result.ignored)))
    rows.append(("Live Limits", _live_limits(result)))
    if result.probabilistic_sharpe is not None:
        rows.append(("P(Sharpe > 0)", _probability(result)))
    if result.trial:
        rows.append(("Trial", f"{result.trial} on this data"))
    return rows


def show_annual(metrics: DetailedMetrics, value: float | None, unit: str = "") -> str:
    """Return an annual figure with the interval of its Sharpe ratio, without which it says more than it knows."""
    if metrics.total_trades == 0:
        return NOTHING
    if metrics.too_short:
        return f"too short ({metrics.daily_returns} daily returns, {DAILY_RETURNS_MIN} needed)"
    if value is None:
        return NOTHING
    if metrics.sharpe_ci95 is None:
        if metrics.daily_returns < INTERVAL_DAYS_MIN:
            return f"no interval ({metrics.daily_returns} daily returns, {INTERVAL_DAYS_MIN} needed); not shown without"
        return "not shown without its interval (see the JSON)"
    low, high = metrics.sharpe_ci95
    return f"{value:,.2f}{unit} (Sharpe 95 %: {low:,.2f} to {high:,.2f}; {counted(metrics.daily_returns, 'day')})"


def _unit(result: BacktestResult) -> str:
    quote = result.symbol.rpartition("/")[2] if "/" in result.symbol else ""
    return f" {quote}" if quote else ""


def _win_rate(result: BacktestResult) -> str:
    metrics = result.detailed
    if metrics is None:
        return f"{result.win_rate:.1f} %"
    count = len(metrics.trade_pairs)
    return f"{metrics.win_rate:.1f} % ({metrics.winning_trades} of {count} pair{'' if count == 1 else 's'})"


def _position_rows(metrics: DetailedMetrics) -> Rows:
    return [
        (
            "Open Position",
            f"{position.quantity.normalize():f} {position.symbol} at {show_money(position.avg_entry_price)}"
            + (f", {show_signed(position.unrealized_pnl)}" if position.unrealized_pnl is not None else ""),
        )
        for position in metrics.open_positions
    ]


def _hold(result: BacktestResult, final: Decimal) -> str:
    percent = 100 * float(final / result.initial_balance - 1) if result.initial_balance else 0.0
    ahead = "ahead" if result.final_balance > final else "behind" if result.final_balance < final else "level"
    return f"{show_money(final)} ({percent:+.2f} %; the strategy is {ahead})"


def _costs(result: BacktestResult) -> str:
    options = result.options
    maker = options.get("fee_maker")
    fee = f"fee {_plain(100 * result.fee)} % in {result.fee_asset}"
    fee += f" ({_plain(100 * maker)} % for targets)" if maker is not None else ""
    half_spread, impact = options.get("half_spread_bps"), options.get("impact_bps")
    if half_spread is None and impact is None:
        return f"{fee}, slippage {_plain(result.slippage_bps)} bps"
    model = f"{_percent(half_spread or 0)} bps + {_percent(impact or 0)} bps x sqrt(size / median volume)"
    return f"{fee}, slippage {model}, {result.slippage_bps:.2f} bps on average"


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"


def _entries(max_entries: int) -> str:
    return "unlimited" if max_entries == 0 else str(max_entries)


def _exits(result: BacktestResult) -> str:
    names = {"stop_loss_pct": "stop loss", "take_profit_pct": "take profit", "trailing_pct": "trailing stop"}
    wanted = {text: result.options.get(name) for name, text in names.items()}
    return ", ".join(f"{text} {_percent(value)} %" for text, value in wanted.items() if value) or "by signals alone"


def _percent(value: Any) -> str:
    return _plain(value) if isinstance(value, Decimal) else str(value)


def _live_limits(result: BacktestResult) -> str:
    if result.risk != "off":
        return "on (what they refused is among the refused)"
    if result.live_limits is None:
        return "off"
    counts = show_counts(result.live_limits)
    return f"off; they would have refused: {counts}" if result.live_limits else "off; they would have refused nothing"


def _probability(result: BacktestResult) -> str:
    share = 100 * (result.probabilistic_sharpe or 0.0)
    if result.trial > 1:
        return f"{share:.1f} % if this were the first look; it is trial {result.trial}"
    return f"{share:.1f} % (of a single run)"

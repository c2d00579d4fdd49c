"""The headline figures of a page: each shows a figure of the JSON and carries it exactly, for programs and tests."""

from __future__ import annotations

from decimal import Decimal
from html import escape
from typing import Any, NamedTuple

from backtester.export import to_plain
from backtester.metrics import DetailedMetrics
from backtester.report_rows import paid_bps
from backtester.result import BacktestResult
from backtester.wording import counted, show_bps, show_money, show_signed
from shared.domain.performance import DAILY_RETURNS_MIN


class _Tile(NamedTuple):
    """`path` is the figure's place in the JSON, `value` the figure itself (None: not shown)."""

    title: str
    shown: str
    below: str
    path: str
    value: Any
    mood: str = ""


def tiles(result: BacktestResult, metrics: DetailedMetrics) -> str:
    """Return the tiles as HTML."""
    return "".join(map(_html, [*_money(result), *_costs(metrics), *_risks(metrics)]))


def _money(result: BacktestResult) -> list[_Tile]:
    final = _Tile(
        "Final balance",
        show_money(result.final_balance),
        f"{result.profit_pct:+.2f} %, {show_signed(result.profit)}",
        "final_balance",
        result.final_balance,
        _mood(result.profit),
    )
    return [final, *_holds(result)]


def _costs(metrics: DetailedMetrics) -> list[_Tile]:
    return [
        _Tile(
            "Break-even cost",
            show_bps(metrics.breakeven_cost_bps),
            f"{show_bps(paid_bps(metrics))} paid in fees",
            "metrics.breakeven_cost_bps",
            metrics.breakeven_cost_bps,
            _mood(metrics.gross_pnl - metrics.fees_paid) if metrics.total_trades else "",
        ),
        _Tile(
            "Fees paid",
            show_money(metrics.fees_paid),
            f"gross {show_signed(metrics.gross_pnl)} before them",
            "metrics.fees_paid",
            metrics.fees_paid,
        ),
    ]


def _risks(metrics: DetailedMetrics) -> list[_Tile]:
    return [
        _Tile(
            "Largest drawdown",
            f"{metrics.max_drawdown:.2f} %",
            "at candle closes",
            "metrics.max_drawdown",
            metrics.max_drawdown,
        ),
        _sharpe(metrics),
        _Tile(
            "Win rate",
            f"{metrics.win_rate:.1f} %",
            f"{metrics.winning_trades:,} of {counted(len(metrics.trade_pairs), 'pair')}, {counted(metrics.total_trades, 'fill')}",
            "metrics.win_rate",
            metrics.win_rate,
        ),
    ]


def _holds(result: BacktestResult) -> list[_Tile]:
    titles = {"hold": "Holding instead", "hold at mean exposure": "Holding as much of it"}
    return [
        _Tile(
            title,
            show_money(result.benchmarks[name]),
            f"strategy {show_signed(result.final_balance - result.benchmarks[name])} against it",
            f"benchmarks.{name}",
            result.benchmarks[name],
        )
        for name, title in titles.items()
        if name in result.benchmarks
    ]


def _sharpe(metrics: DetailedMetrics) -> _Tile:
    """Return the Sharpe ratio with its interval; without one it is not shown."""
    if metrics.sharpe_ratio is None or metrics.sharpe_ci95 is None:
        days = counted(metrics.daily_returns, "daily return")
        why = f"{days}, {DAILY_RETURNS_MIN} needed" if metrics.too_short else f"{days}: no interval"
        return _Tile("Sharpe ratio", "too short" if metrics.too_short else "not shown", why, "", None)
    low, high = metrics.sharpe_ci95
    below = f"95 %: {low:.2f} to {high:.2f}, {metrics.daily_returns} days"
    return _Tile("Sharpe ratio", f"{metrics.sharpe_ratio:.2f}", below, "metrics.sharpe_ratio", metrics.sharpe_ratio)


def _mood(amount: Decimal) -> str:
    return "good-text" if amount > 0 else "bad-text" if amount < 0 else ""


def _html(tile: _Tile) -> str:
    value = to_plain(tile.value)
    figure = "" if value is None else f' data-figure="{tile.path}" data-value="{value}"'
    return (
        f'<div class="tile"><span>{escape(tile.title)}</span><strong class="{tile.mood}"{figure}>'
        f"{escape(tile.shown)}</strong><span>{escape(tile.below)}</span></div>"
    )

"""The report a person reads: does it beat its costs, what if costs were others, then every figure."""

from __future__ import annotations

import io

from rich.console import Console, Group, RenderableType
from rich.text import Text

from backtester.export import export_csv, export_json
from backtester.metrics import BPS
from backtester.report_tables import (
    cost_ladder,
    metrics_table,
    monthly_table,
    plain_text,
    show_bps,
    show_money,
    show_signed,
)
from backtester.result import BacktestResult

__all__ = ["export_csv", "export_json", "format_report", "verdict"]

WIDTH_MIN = 60


def format_report(result: BacktestResult, width: int = 100, color: bool = False) -> str:
    """Return the report in lines of at most `width` (not below 60) columns; `color` only where a terminal shows it."""
    page = io.StringIO()
    console = Console(
        file=page,
        width=max(width, WIDTH_MIN),
        force_terminal=color,
        color_system="standard" if color else None,
        force_interactive=False,
        legacy_windows=False,
        markup=False,
        highlight=False,
        emoji=False,
        _environ={},
    )
    console.print(Group(*_parts(result)))
    return page.getvalue()


def verdict(result: BacktestResult) -> str:
    """Return one line: does the run beat its costs, and by what."""
    metrics = result.detailed
    if metrics is None:
        return f"NO METRICS: profit {show_signed(result.profit)} ({result.profit_pct:+.2f} %)"
    if metrics.total_trades == 0:
        return "NO TRADES: nothing was bought or sold, so there is nothing to judge"
    net = metrics.gross_pnl - metrics.fees_paid
    if net > 0:
        head = "BEATS ITS COSTS"
    elif metrics.gross_pnl > 0:
        head = "DOES NOT BEAT ITS COSTS"
    else:
        head = "LOSES BEFORE COSTS"
    paid = float(metrics.fees_paid / metrics.turnover * BPS) if metrics.turnover else 0.0
    return (
        f"{head}: gross {show_signed(metrics.gross_pnl)}, fees {show_money(metrics.fees_paid)}, "
        f"break-even {show_bps(metrics.breakeven_cost_bps)} against {show_bps(paid)} paid"
    )


def _parts(result: BacktestResult) -> list[RenderableType]:
    line = verdict(result)
    good = line.startswith("BEATS")
    parts: list[RenderableType] = [Text(line, style="bold green" if good else "bold yellow"), Text()]
    if result.detailed is not None:
        parts += [cost_ladder(result), Text()]
    parts += [metrics_table(result)]
    if result.detailed is not None:
        parts += [Text(), monthly_table(result.detailed)]
    if result.notes:
        parts.append(Text())
        parts += [Text(f"note: {plain_text(note)}", style="yellow") for note in result.notes]
    return parts

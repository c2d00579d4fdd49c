"""A sweep on a terminal: what was run, the verdict, the first sets and, for two parameters, a heat map."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backtester.sweep.run import Swept
from backtester.sweep.verdict import TITLES, Verdict, with_params
from backtester.wording import counted

TOP_DEFAULT = 10
SHADES = " ·░▒▓█"
AXES_OF_A_MAP = 2
COLUMNS = ("sharpe", "sortino", "calmar", "total_return", "final_balance", "fees_paid", "trades")
HEADS = {"total_return": "Return %", "final_balance": "Final balance", "fees_paid": "Fees", "trades": "Trades"}


def format_sweep(swept: Swept, verdict: Verdict, *, top: int, width: int, color: bool) -> str:
    """Return everything a person reads after a sweep."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color, no_color=not color, highlight=False)
    for line in _facts(swept):
        console.print(escape(line), soft_wrap=True)
    console.print(f"[bold]{escape(verdict.line)}[/bold]", soft_wrap=True)
    if verdict.ranked is not None:
        console.print(_table(swept, verdict, top))
        for line in heat_map(swept, verdict, width):
            console.print(escape(line), soft_wrap=True)
    return out.getvalue()


def _facts(swept: Swept) -> Iterator[str]:
    request, data = swept.request, swept.data
    yield (
        f"{request.strategy} on {request.symbol} {request.timeframe}: {counted(len(swept.sets.given), 'set')} over "
        f"{counted(data.rows, 'candle')} from {data.first:%Y-%m-%d} to {data.last:%Y-%m-%d}, "
        f"{counted(data.gap_count, 'gap')}"
    )
    skipped = sum(swept.sets.skipped.values())
    if skipped:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in swept.sets.skipped.items())
        yield f"{counted(skipped, 'combination is', 'combinations are')} not valid: {reasons}"
    options = request.options
    yield (
        f"costs: fee {options.fee} in {options.fee_asset.value}, slippage {options.slippage_words}, "
        f"fill {options.fill}, sizing {options.sizing}"
    )
    if largest_fill(swept):
        yield f"largest fill of any set: {largest_fill(swept)}"
    if swept.resumed:
        yield f"{counted(swept.resumed, 'run was', 'runs were')} finished before the interruption"
    yield from swept.notices
    if swept.ledger_number:
        yield f"{counted(swept.ledger_number, 'trial')} on this data so far"


def _table(swept: Swept, verdict: Verdict, top: int) -> Table:
    assert verdict.ranked is not None
    names = list(swept.request.grid)
    table = Table(
        title=f"BEST {min(top, len(verdict.ranked))} OF {counted(len(swept.sets.given), 'SET', 'SETS')}",
        title_style="bold",
    )
    for name in names:
        table.add_column(escape(name), justify="right")
    for name in figure_columns(verdict):
        table.add_column(HEADS.get(name, TITLES.get(name, name)), justify="right")
    for row in with_params(swept, verdict.ranked.head(top)).iter_rows(named=True):
        table.add_row(
            *(escape(str(row[name])) for name in names), *(figure_cell(row[name]) for name in figure_columns(verdict))
        )
    return table


def figure_columns(verdict: Verdict) -> list[str]:
    """Return the figures that a table of sets shows, the metric first."""
    return [verdict.metric, *(name for name in COLUMNS if name != verdict.metric)]


def largest_fill(swept: Swept) -> str:
    """Return how much of the market the largest fill of any set was; nothing where slippage does not go by size."""
    if swept.request.options.impact is None:
        return ""
    most: Any = swept.table.filter(pl.col("market") == 0)["participation_max"].max()
    return f"{100 * most:.4g} % of a candle's usual volume"


def figure_cell(value: Any) -> str:
    """Return a figure as a table shows it."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:,.2f}"
    return f"{value:,}"


def heat_map(swept: Swept, verdict: Verdict, width: int) -> Iterator[str]:
    """Yield the lines of a map of the metric over two parameters: the darker, the better.

    A third parameter and more stand for their best value in each cell; a grid of one has no map.
    """
    axes = {name: values for name, values in swept.request.grid.items() if len(values) > 1}
    if verdict.ranked is None or len(axes) < AXES_OF_A_MAP:
        return
    (down, rows), (across, columns), *rest = axes.items()
    margin = max(len(str(value)) for value in rows) + 2
    cell = max(1, min(3, (width - margin - 4) // len(columns)))
    if margin + len(columns) > width:
        yield f"(a heat map of {len(columns)} columns does not fit {width} characters; --html has it)"
        return
    values: dict[tuple[Any, Any], float] = {}
    for row in with_params(swept, verdict.ranked).iter_rows(named=True):
        values.setdefault((row[down], row[across]), row[verdict.metric])  # the best set of a cell comes first
    low, high = min(values.values()), max(values.values())
    best_of = f", each the best over {', '.join(name for name, _ in rest)}" if rest else ""
    yield f"{TITLES[verdict.metric]} by {down} (down) and {across} (across, {columns[0]} to {columns[-1]}){best_of}"
    for value in rows:
        shades = "".join(_shade(values.get((value, column)), low, high) * cell for column in columns)
        yield f"{value!s:>{margin - 2}} │{shades}│"
    yield f"{SHADES[1]} {low:.2f} … {SHADES[-1]} {high:.2f}; blank: not valid or not defined; {verdict.line}"


def _shade(value: float | None, low: float, high: float) -> str:
    if value is None:
        return SHADES[0]
    share = (value - low) / (high - low) if high > low else 1.0
    return SHADES[1 + min(len(SHADES) - 2, int(share * (len(SHADES) - 1)))]


def result_table(swept: Swept) -> pl.DataFrame:
    """Return the trials on the data itself, one row a set in the order of the grid."""
    return with_params(swept, swept.table.filter(pl.col("market") == 0).sort("trial"))

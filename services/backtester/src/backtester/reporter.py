"""The report a person reads: does it beat its costs, what if costs were others, then every figure."""

from __future__ import annotations

import io

from rich.console import Console, Group, RenderableType
from rich.text import Text

from backtester.export import export_csv, export_json
from backtester.report_rows import caveats, verdict
from backtester.report_tables import ladder_table, metrics_table, monthly_table
from backtester.result import BacktestResult
from backtester.wording import plain_text

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


def _parts(result: BacktestResult) -> list[RenderableType]:
    line, doubts = verdict(result), caveats(result)
    good = line.startswith("BEATS") and not doubts
    parts: list[RenderableType] = [Text(line, style="bold green" if good else "bold yellow")]
    parts += [Text(f"but {'; '.join(doubts)}", style="yellow")] if doubts else []
    parts.append(Text())
    if result.detailed is not None:
        parts += [ladder_table(result), Text()]
    parts += [metrics_table(result)]
    if result.detailed is not None:
        parts += [Text(), monthly_table(result.detailed)]
    if result.notes:
        parts.append(Text())
        parts += [Text(f"note: {plain_text(note)}", style="yellow") for note in result.notes]
    return parts

"""Rows for a person (a table) or for a program (JSON, CSV): one set of columns, three faces."""

from __future__ import annotations

import csv
import io
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

type Row = Mapping[str, Any]

WIDTH_MAX = 240
PLAIN_WIDTH = 160
NUMBERS = frozenset(
    {"price", "quantity", "fee", "filled_quantity", "avg_fill_price", "avg_entry_price", "current_price", "stop_price"}
    | {"unrealized_pnl", "realized_pnl", "fees", "cash", "entries_open"}
)


def show_rows(rows: Sequence[Row], columns: Sequence[str], title: str) -> None:
    """Print a table as wide as the terminal."""
    table = Table(
        title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", expand="reason" in columns
    )
    for column in columns:
        is_reason = column == "reason"  # it takes what room is left; JSON and CSV have it whole
        table.add_column(
            column,
            justify="right" if column in NUMBERS else "left",
            overflow="ellipsis" if is_reason else "fold",
            no_wrap=is_reason,
            ratio=1 if is_reason else None,
        )
    for row in rows:
        table.add_row(*(Text(short_text(row[column])) for column in columns))
    console().print(table)


def rows_csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return CSV with a header line: plain decimals, ISO 8601 times in UTC."""
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([plain_text(row[column]) for column in columns])
    return page.getvalue()


def rows_json(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return a JSON array of objects; money is a number with all its digits."""
    return to_json([{column: row[column] for column in columns} for row in rows])


def to_json(document: Any) -> str:
    """Return strict JSON: decimals as plain numbers, times as ISO 8601 UTC, what is not finite as null."""
    encoder = msgspec.json.Encoder(decimal_format="number")
    return msgspec.json.format(encoder.encode(_plain(document)), indent=2).decode()


def plain_text(value: Any) -> str:
    """Return a value as a program reads it; "" for nothing."""
    match value:
        case None:
            return ""
        case Decimal():
            return format(trimmed(value), "f")
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def short_text(value: Any) -> str:
    """Return a value as a person reads it: no more digits than say something, nothing that steers a terminal."""
    match value:
        case None:
            return "-"
        case Decimal() if value.is_finite():
            return short_number(value)
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        case _:
            return "".join(character if character.isprintable() else " " for character in plain_text(value))


def short_number(value: Decimal) -> str:
    """Return money or a quantity with two decimals, or as many as a small one needs."""
    decimals = 2 if value == 0 or abs(value) >= 100 else 4 if abs(value) >= 1 else 8
    text = f"{value:,.{decimals}f}"
    return text if decimals == 2 else text.rstrip("0").rstrip(".")


def short_money(value: Decimal) -> str:
    """Return an amount of quote money: two decimals, four where it is less than one."""
    return f"{value:,.2f}" if value == 0 or abs(value) >= 1 else f"{value:,.4f}"


def trimmed(value: Decimal) -> Decimal:
    """Return the same number without zeros at its end and without powers of ten."""
    text = format(value, "f")
    return Decimal(text.rstrip("0").rstrip(".") or "0") if "." in text else Decimal(text)


def console() -> Console:
    """Return where tables go: coloured and fitted on a terminal, plain and wide elsewhere."""
    is_terminal = sys.stdout.isatty()
    width = min(shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns, WIDTH_MAX)
    return Console(
        file=sys.stdout,
        width=width,
        force_terminal=is_terminal,
        color_system="auto" if is_terminal and "NO_COLOR" not in os.environ else None,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Decimal):
        return trimmed(value) if value.is_finite() else None
    return plain_text(value) if isinstance(value, datetime) else value

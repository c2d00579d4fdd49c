"""How reports write numbers, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal

REASONS_SHOWN_MAX = 12
NOTHING = "-"


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


def counted(count: int, one: str, many: str = "") -> str:
    """Return how many there are of something: `1 candle`, `2,000 candles`; `many` where it is not `one` and an s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


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


def show_counts(counts: Mapping[str, int]) -> str:
    """Return counts by reason, the most frequent first; `none` without any."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{reason} {count:,}" for reason, count in ordered[:REASONS_SHOWN_MAX])
    left = len(ordered) - REASONS_SHOWN_MAX
    return (shown + (f" and {left} more" if left > 0 else "")) or "none"


def plain_text(text: str) -> str:
    """Return text on one line, without control characters that could steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)

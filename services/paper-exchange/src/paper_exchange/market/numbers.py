"""Numbers as the protocol writes them: text with eight decimals."""

from __future__ import annotations

from decimal import Decimal

SCALE = 100_000_000  # how many units of the last decimal make one


def number_text(value: float) -> str:
    """Return a number with eight decimals, with more where the value has more: nothing recorded is rounded away."""
    text = f"{value:.8f}"
    return text if float(text) == value else format(Decimal(repr(value)), "f")


def units_text(units: int, scale: int = SCALE) -> str:
    """Return `units / scale` with eight decimals; scale is a power of ten of at most eight zeros."""
    whole, part = divmod(units, scale)
    return f"{whole}.{part * (SCALE // scale):08d}"

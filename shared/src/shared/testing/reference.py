"""Where tests find recorded market data, and how they say that it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def reference_path(relative: str) -> Path:
    """Return the recorded file, or skip the test naming what is missing."""
    found = find_reference(relative)
    if found is None:
        pytest.skip(f"recorded data {relative} is absent (set TRADING_REFERENCE to the folder that holds it)")
    return found


def find_reference(relative: str) -> Path | None:
    """Return the recorded file, None where it is absent."""
    checkout = next((p for p in Path(__file__).resolve().parents if (p / "requirements.lock").is_file()), Path.cwd())
    root = Path(os.environ.get("TRADING_REFERENCE", checkout.parent / "shared"))
    path = root / relative
    return path if path.exists() else None

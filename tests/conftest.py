"""Tests in these folders run the whole platform: `make check` leaves them to `make test`."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
WHOLE_PLATFORM = tuple(HERE / name for name in ("e2e", "faults", "integration", "parity"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs the whole platform."""
    for item in items:
        if any(folder in item.path.parents for folder in WHOLE_PLATFORM):
            item.add_marker(pytest.mark.e2e)

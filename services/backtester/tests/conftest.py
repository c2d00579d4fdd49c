"""Candle files of a few lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from shared.testing.builders import START


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that writes one-minute candles of these closes, each without any range, and returns the file."""

    def write(closes: Sequence[float], name: str = "candles.csv") -> Path:
        lines = ["open_time,open,high,low,close,volume"]
        for number, close in enumerate(closes):
            moment = START + timedelta(minutes=number)
            lines.append(f"{moment:%Y-%m-%dT%H:%M:%SZ},{close},{close},{close},{close},1")
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write

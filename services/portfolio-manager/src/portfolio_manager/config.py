"""What the portfolio manager takes from the settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from shared.config import Settings


@dataclass(frozen=True, slots=True)
class PortfolioConfig:
    """How the portfolio manager runs."""

    streams: Sequence[tuple[str, str]]
    snapshot_interval: timedelta
    batch_rows_max: int
    dead_letters_max: int = 10_000

    @classmethod
    def from_settings(cls, settings: Settings) -> PortfolioConfig:
        """Return the portfolio manager's part of the settings."""
        return cls(
            streams=settings.streams,
            snapshot_interval=timedelta(seconds=settings.snapshot_interval),
            batch_rows_max=settings.batch_rows_max,
            dead_letters_max=settings.dead_letters_max,
        )

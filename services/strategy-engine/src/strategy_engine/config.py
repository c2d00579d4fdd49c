"""What the strategy engine takes from the settings, and the instances they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from shared.config import Settings


@dataclass(frozen=True, slots=True)
class StrategyConfig:
    """How the engine runs; `is_deterministic` feeds complete a close time by themselves."""

    streams: Sequence[tuple[str, str]]
    strategies: Sequence[str]
    strategy_params: Mapping[str, Mapping[str, Any]]
    mode: str
    is_deterministic: bool
    signal_age_max: timedelta | None
    wait_seconds: float
    batch_rows_max: int
    checkpoint_candles_max: int
    dead_letters_max: int = 10_000

    @classmethod
    def from_settings(cls, settings: Settings) -> StrategyConfig:
        """Return the engine's part of the settings."""
        return cls(
            streams=settings.streams,
            strategies=settings.strategies,
            strategy_params=settings.strategy_params,
            mode=settings.trading_mode,
            is_deterministic=settings.is_deterministic,
            signal_age_max=timedelta(seconds=settings.signal_age_max) if settings.signal_age_max else None,
            wait_seconds=settings.engine_wait_seconds,
            batch_rows_max=settings.batch_rows_max,
            checkpoint_candles_max=settings.checkpoint_candles_max,
            dead_letters_max=settings.dead_letters_max,
        )

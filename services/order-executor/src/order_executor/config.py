"""What the order executor takes from the settings: costs, limits, and how each instance trades."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from shared.config import Settings
from shared.domain.book import BookRules, InstanceRules
from shared.domain.fees import FeeAsset, FeeSchedule
from shared.domain.matching import signal_age_max
from shared.domain.rounding import Instrument
from shared.instances import account_limits
from shared.models import InstanceKey

ACCOUNT = "paper"


def plain_rules(key: InstanceKey) -> InstanceRules:
    """Return the rules of an instance that nobody configured: its own quantity, no stop, no venue rules."""
    return InstanceRules(instrument=Instrument(symbol=key.symbol), age_max=signal_age_max(key.timeframe))


@dataclass(frozen=True, slots=True)
class ExecutorConfig:
    """How the executor runs. `shares` are fractions of equity, `instances` the enabled ones.

    `adopts`: nobody listed the instances; each gets a sub-account when it first speaks, none is an orphan.
    """

    rules: BookRules = field(default_factory=BookRules)
    instances: Mapping[InstanceKey, InstanceRules] = field(default_factory=dict)
    shares: Mapping[InstanceKey, Decimal] = field(default_factory=dict)
    streams: Sequence[tuple[str, str]] = ()
    balance: Decimal = Decimal(10_000)
    quote_asset: str = "USDT"
    mode: str = "paper"
    orphans: str = "ask"
    is_deterministic: bool = True
    watermark_wait_seconds: float = 2.0
    batch_rows_max: int = 500
    default_rules: Callable[[InstanceKey], InstanceRules] = plain_rules
    stop_loss_pct: Decimal | None = None
    adopts: bool = False
    dead_letters_max: int = 10_000

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        instances: Mapping[InstanceKey, InstanceRules],
        shares: Mapping[InstanceKey, Decimal],
        default_rules: Callable[[InstanceKey], InstanceRules] = plain_rules,
    ) -> ExecutorConfig:
        """Return the executor's part of the settings."""
        return cls(
            rules=book_rules(settings),
            instances=instances,
            shares=shares,
            streams=settings.streams,
            balance=settings.paper_balance,
            quote_asset=settings.quote_asset,
            mode=settings.trading_mode,
            orphans=settings.orphans,
            is_deterministic=settings.is_deterministic,
            watermark_wait_seconds=settings.watermark_wait_seconds,
            batch_rows_max=settings.batch_rows_max,
            default_rules=default_rules,
            dead_letters_max=settings.dead_letters_max,
        )


def book_rules(settings: Settings) -> BookRules:
    """Return costs and account limits."""
    return BookRules(
        fees=FeeSchedule(maker=settings.fee_maker, taker=settings.fee_taker, asset=FeeAsset(settings.fee_asset)),
        slippage_bps=settings.slippage_bps,
        gap_refuses=settings.gap == "refuse",
        limits=None if settings.risk == "off" else account_limits(settings),
    )

"""How a run trades and what it pays: one frozen set of options for every engine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Literal

from shared.domain.book import BookRules, InstanceRules
from shared.domain.fees import FeeAsset, FeeSchedule
from shared.domain.matching import signal_age_max
from shared.domain.risk import Limits
from shared.domain.rounding import MONEY_QUANTUM, ZERO, Instrument
from shared.domain.sizing import Sizing, SizingRule, parse_sizing
from shared.domain.slippage import ImpactModel
from shared.errors import ConfigError
from shared.models import InstanceKey, to_decimal
from shared.strategy import BaseStrategy

AMOUNT_MAX = Decimal(10) ** 18
ENTRIES_MAX = 1_000_000
FIXED = Sizing(SizingRule.FIXED)
_NUMBERS = ("fee", "slippage_bps", "stop_loss_pct", "take_profit_pct", "trailing_pct")
_NUMBERS_OR_NONE = ("fee_maker", "half_spread_bps", "impact_bps")


def checked_balance(value: Decimal | int | float | str) -> Decimal:
    """Return the money a run starts with; a ConfigError where nothing could be bought or counted with it."""
    try:
        balance = to_decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        raise ConfigError(f"initial balance: must be a number, was {value!r}") from None
    if not (balance.is_finite() and balance > 0):
        raise ConfigError(f"initial balance: must be > 0, was {balance}; give the money the run starts with")
    if not MONEY_QUANTUM <= balance <= AMOUNT_MAX:
        raise ConfigError(f"initial balance: must be in {MONEY_QUANTUM} to {AMOUNT_MAX:,f}, was {balance}")
    return balance


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestOptions:
    """Costs, fills, sizing, exits and limits; percents are of the average entry, 0 = off.

    `fee` is the taker's; `fee_maker`, paid by take-profits, is the same where it is None. `half_spread_bps` and
    `impact_bps` (`shared.domain.slippage`) price by size and go with a `slippage_bps` of 0. `partial_cash` cuts a BUY
    that cash does not cover to what it covers. `max_entries` None is the strategy's own. `limits` None switches
    account limits off.
    """

    fee: Decimal = Decimal("0.001")
    fee_maker: Decimal | None = None
    fee_asset: FeeAsset = FeeAsset.QUOTE
    slippage_bps: Decimal = Decimal(2)
    half_spread_bps: Decimal | None = None
    impact_bps: Decimal | None = None
    partial_cash: bool = False
    fill: Literal["next-open", "close"] = "next-open"
    gap: Literal["refuse", "fill"] = "refuse"
    sizing: Sizing = FIXED
    max_entries: int | None = None
    stop_loss_pct: Decimal = ZERO
    take_profit_pct: Decimal = ZERO
    trailing_pct: Decimal = ZERO
    stop_cooldown_candles: int = 1
    age_max: timedelta | None = None
    limits: Limits | None = None
    instrument: Instrument | None = None
    close_at_end: bool = False

    def __post_init__(self) -> None:
        """Take numbers and words as they are written; refuse what no run can mean, naming the option."""
        for name in _NUMBERS:
            object.__setattr__(self, name, self._number(name))
        for name in _NUMBERS_OR_NONE:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, self._number(name))
        try:
            object.__setattr__(self, "fee_asset", FeeAsset(self.fee_asset))
            if isinstance(self.sizing, str):
                object.__setattr__(self, "sizing", parse_sizing(self.sizing))
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self._check_ranges()
        self.book_rules()  # a fee or an impact that cannot be is refused here

    def _check_ranges(self) -> None:
        if not 0 <= self.slippage_bps < 10_000:
            raise ConfigError(f"slippage_bps: must be at least 0 and below 10000, was {self.slippage_bps}")
        for name in ("stop_loss_pct", "trailing_pct"):
            if not 0 <= getattr(self, name) < 100:
                raise ConfigError(
                    f"{name}: must be a percent in [0, 100), was {getattr(self, name)}; 0 switches it off"
                )
        if self.take_profit_pct < 0:
            raise ConfigError(f"take_profit_pct: must be a percent of 0 or more, was {self.take_profit_pct}")
        if self.max_entries is not None and not 0 <= self.max_entries <= ENTRIES_MAX:
            raise ConfigError(
                f"max_entries: must be 0 (unlimited) or more, at most {ENTRIES_MAX:,}, was {self.max_entries}"
            )
        if self.sizing.amount > AMOUNT_MAX:
            raise ConfigError(f"sizing: must be at most {AMOUNT_MAX:,f}, was {self.sizing.amount}")
        if self.sizing.rule is SizingRule.RISK and self.stop_loss_pct == 0:
            raise ConfigError("sizing risk: needs a stop; set --stop-loss-pct above 0")

    def _number(self, name: str) -> Decimal:
        value = getattr(self, name)
        try:
            number = to_decimal(value)
        except (InvalidOperation, TypeError, ValueError):
            raise ConfigError(f"{name}: must be a number, was {value!r}") from None
        if not number.is_finite():
            raise ConfigError(f"{name}: must be a finite number, was {value}")
        if number.copy_abs() > AMOUNT_MAX:
            raise ConfigError(f"{name}: must be at most {AMOUNT_MAX:,f}, was {value}")
        return number

    @property
    def has_contested_exits(self) -> bool:
        """Return whether one candle can reach a stop and a target."""
        return self.take_profit_pct > 0 and (self.stop_loss_pct > 0 or self.trailing_pct > 0)

    @property
    def impact(self) -> ImpactModel | None:
        """Return the slippage by size, or None where it is flat."""
        if self.half_spread_bps is None and self.impact_bps is None:
            return None
        if self.slippage_bps:
            raise ConfigError(
                f"slippage_bps {self.slippage_bps}: half_spread_bps and impact_bps stand in its place; give either"
            )
        try:
            return ImpactModel(half_spread_bps=self.half_spread_bps or ZERO, impact_bps=self.impact_bps or ZERO)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    @property
    def slippage_words(self) -> str:
        """Return what an order that meets the market pays beside its price."""
        if self.impact is None:
            return f"{self.slippage_bps} bps"
        half_spread, impact = self.impact.half_spread_bps, self.impact.impact_bps
        return f"{half_spread} bps + {impact} bps x sqrt(size / median volume)"

    @property
    def cost_words(self) -> str:
        """Return the costs as the trial ledger notes them."""
        slippage = self.slippage_bps if self.impact is None else self.slippage_words
        return " ".join(map(str, (self.fill, self.fee, self.fee_asset.value, slippage, self.gap, self.sizing)))

    def book_rules(self) -> BookRules:
        """Return what holds for the whole account."""
        try:
            maker = self.fee if self.fee_maker is None else self.fee_maker
            fees = FeeSchedule(maker=maker, taker=self.fee, asset=self.fee_asset)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return BookRules(
            fees=fees,
            slippage_bps=self.slippage_bps,
            impact=self.impact,
            partial_cash=self.partial_cash,
            gap_refuses=self.gap == "refuse",
            limits=self.limits,
            venue="backtest",
        )

    def instance_rules(self, key: InstanceKey, strategy: BaseStrategy) -> InstanceRules:
        """Return how the strategy's sub-account trades."""
        own_entries = getattr(strategy, "max_entries_default", 1)
        return InstanceRules(
            instrument=self.instrument or Instrument(symbol=key.symbol),
            age_max=signal_age_max(key.timeframe, self.age_max),
            sizing=self.sizing,
            max_entries=own_entries if self.max_entries is None else self.max_entries,
            stop_loss_pct=self.stop_loss_pct,
            stop_anchor_price=getattr(strategy, "stop_reference", None),
            take_profit_pct=self.take_profit_pct,
            trailing_pct=self.trailing_pct,
            stop_cooldown_candles=self.stop_cooldown_candles,
        )

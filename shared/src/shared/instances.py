"""Which strategy instances a run has, how each trades, and what share of the account it gets: one plan for all services."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from shared.config import Settings
from shared.config_values import Allocation
from shared.domain.allocation import equal_shares
from shared.domain.book import InstanceRules
from shared.domain.matching import signal_age_max
from shared.domain.risk import Limits
from shared.domain.rounding import Instrument
from shared.domain.sizing import parse_sizing
from shared.errors import ConfigError
from shared.instance_notes import PlannedSize, entry_notes, exposure_notes
from shared.instruments import InstrumentBook, load_instruments
from shared.models import InstanceKey
from shared.plugins import Discovery, StrategyPlugin, bundled_strategies_dir, config_hash, discover
from shared.strategy import BaseStrategy
from shared.strategy_runner import InstanceStamp, StrategyRunner
from shared.watchdog import CallGuard

BPS = Decimal(10_000)


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """One instance: its strategy configured and checked, its rules, its share of equity."""

    key: InstanceKey
    strategy: BaseStrategy
    rules: InstanceRules
    share: Decimal
    code_hash: str

    def runner(self, mode: str, guard: CallGuard | None = None) -> StrategyRunner:
        """Return the runner that feeds this instance."""
        stamp = InstanceStamp(
            age_max=self.rules.age_max, mode=mode, config_hash=config_hash(self.strategy), code_hash=self.code_hash
        )
        return StrategyRunner(self.key, self.strategy, stamp, guard=guard)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Every instance of a run in business order, and what a person should know before it starts."""

    instances: tuple[InstancePlan, ...]
    notes: tuple[str, ...]
    instruments: InstrumentBook
    settings: Settings

    @property
    def rules(self) -> dict[InstanceKey, InstanceRules]:
        """Return each instance's rules."""
        return {plan.key: plan.rules for plan in self.instances}

    @property
    def shares(self) -> dict[InstanceKey, Decimal]:
        """Return each instance's share of equity."""
        return {plan.key: plan.share for plan in self.instances}

    def default_rules(self, key: InstanceKey) -> InstanceRules:
        """Return the rules of an instance that is not planned (any more): settings, without a strategy's own words."""
        return _rules(self.settings, key, None, self.instruments[key.symbol])


def plan_run(settings: Settings) -> RunPlan:
    """Return the instances that the settings ask for; a run without any is refused."""
    folder = Path(settings.strategies_dir) if settings.strategies_dir else bundled_strategies_dir()
    found = discover(folder)
    plugins = _chosen(found, settings)
    instruments = load_instruments(settings.instrument, settings.symbols)
    notes = [str(problem) for problem in found.problems] + list(instruments.notes)
    pairs = [(plugin, stream) for stream in settings.streams for plugin in plugins]
    keys = [InstanceKey(plugin.name, *stream) for plugin, stream in pairs]
    shares = allocation_shares(keys, settings.allocation)
    cost = 2 * (settings.fee_taker + settings.slippage_bps / BPS)
    plans = []
    for key, (plugin, (symbol, timeframe)) in zip(keys, pairs, strict=True):
        strategy = plugin.create(symbol, settings.strategy_params.get(plugin.name, {}))
        notes += [f"{key}: {warning}" for warning in strategy.check_start(timeframe, cost)]
        rules = _rules(settings, key, strategy, instruments[symbol])
        plans.append(InstancePlan(key, strategy, rules, shares[key], plugin.code_hash))
    plans.sort(key=lambda plan: plan.key.business_order)
    sizes = [PlannedSize(plan.key, plan.rules, plan.share, plan.strategy.params.quantity) for plan in plans]
    notes += entry_notes(sizes, settings) + exposure_notes(sizes, settings)
    return RunPlan(tuple(plans), tuple(dict.fromkeys(notes)), instruments, settings)


def account_limits(settings: Settings) -> Limits:
    """Return the account limits that the settings name; whether they are in force is the caller's to say."""
    return Limits(
        position_size_max=settings.risk_max_position_size,
        gross_exposure_max=settings.risk_max_gross,
        daily_loss_pct_max=settings.risk_daily_loss_limit_pct,
        drawdown_pct_max=settings.risk_max_drawdown_pct,
        order_rate_max=settings.risk_order_rate_max,
        notional_per_hour_max=settings.notional_per_hour_max,
    )


def allocation_shares(keys: Iterable[InstanceKey], allocation: Iterable[Allocation]) -> dict[InstanceKey, Decimal]:
    """Return each instance's fraction of equity: what is named for it, else an equal part of what is left."""
    listed = list(keys)
    entries = list(allocation)
    if not entries:
        return equal_shares(listed)
    shares: dict[InstanceKey, Decimal] = {}
    for entry in sorted(entries, key=lambda entry: -sum(map(bool, (entry.symbol, entry.timeframe)))):
        named = [key for key in listed if key not in shares and _is_named(key, entry)]
        if not named:
            raise ConfigError(
                f"allocation: {entry.strategy!r} names no instance of this run; enable it or remove the entry"
            )
        shares.update(dict.fromkeys(named, entry.share / len(named)))
    rest = [key for key in listed if key not in shares]
    left = max(Decimal(1) - sum(shares.values()), Decimal(0))
    return shares | {key: left / len(rest) for key in rest}


def _is_named(key: InstanceKey, entry: Allocation) -> bool:
    return (
        key.strategy == entry.strategy and entry.symbol in ("", key.symbol) and entry.timeframe in ("", key.timeframe)
    )


def _chosen(found: Discovery, settings: Settings) -> list[StrategyPlugin]:
    for name in settings.strategy_params:
        found.get(name)  # parameters for nobody are a slip of the pen
    if settings.strategies:
        return [found.get(name) for name in settings.strategies]
    chosen = [plugin for plugin in found.plugins if plugin.is_enabled(settings.strategy_params.get(plugin.name, {}))]
    if not chosen:
        why = f"; {found.problems[0]}" if found.problems else ""
        raise ConfigError(f"strategies: none is enabled, a run needs at least one{why}")
    return chosen


def _rules(
    settings: Settings, key: InstanceKey, strategy: BaseStrategy | None, instrument: Instrument
) -> InstanceRules:
    own_entries = strategy.max_entries_default if strategy is not None else 1
    setting = timedelta(seconds=settings.signal_age_max) if settings.signal_age_max else None
    return InstanceRules(
        instrument=instrument,
        age_max=signal_age_max(key.timeframe, setting),
        sizing=parse_sizing(settings.sizing),
        max_entries=own_entries if settings.max_entries is None else settings.max_entries,
        stop_loss_pct=settings.risk_stop_loss_pct,
        stop_anchor_price=strategy.stop_reference if strategy is not None else None,
        take_profit_pct=settings.take_profit_pct,
        trailing_pct=settings.trailing_pct,
        stop_cooldown_candles=settings.stop_cooldown_candles,
    )

"""What a person should know of the planned instances before the first trade: costs of an entry, limits that bind."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from shared.config import Settings
from shared.domain.allocation import allocated_cash
from shared.domain.book import InstanceRules
from shared.domain.rounding import ONE, ZERO
from shared.domain.sizing import SizingRule
from shared.models import InstanceKey


class PlannedSize(NamedTuple):
    """What the notes are made from: an instance, how it trades, its share of equity, its own fixed quantity."""

    key: InstanceKey
    rules: InstanceRules
    share: Decimal
    quantity: Decimal


def entry_notes(sizes: Iterable[PlannedSize], settings: Settings) -> list[str]:
    """Return what one entry of every instance costs, instances of one cost on one line."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for size in sizes:
        cash = allocated_cash(settings.paper_balance, size.share)
        text = _entry_text(size, cash, settings)
        groups.setdefault((size.key.symbol, size.key.timeframe, text), []).append(size.key.strategy)
    return [
        f"{symbol} {timeframe} {', '.join(strategies)}: {text}"
        for (symbol, timeframe, text), strategies in groups.items()
    ]


def exposure_notes(sizes: Iterable[PlannedSize], settings: Settings) -> list[str]:
    """Return where the instances' largest positions together can exceed the symbol limit, and the figure that fits."""
    limit = settings.risk_max_position_size
    if settings.risk == "off" or limit >= ONE:
        return []
    largest: dict[str, Decimal] = {}
    fraction = ZERO
    for size in sizes:
        if size.rules.sizing.rule is not SizingRule.EQUITY_FRACTION:
            return []
        fraction = size.rules.sizing.amount
        part = min(fraction * (size.rules.max_entries or 1), ONE) * size.share
        largest[size.key.symbol] = largest.get(size.key.symbol, ZERO) + part
    return [
        f"{symbol}: all instances together may want {total:.1%} of equity, the limit is {limit:.1%}; "
        f"--sizing equity_fraction:{fraction * limit / total:.3f} would fit"
        for symbol, total in sorted(largest.items())
        if total > limit
    ]


def _entry_text(size: PlannedSize, cash: Decimal, settings: Settings) -> str:
    sizing, quote = size.rules.sizing, settings.quote_asset
    entries = "unlimited entries" if size.rules.max_entries == 0 else f"at most {size.rules.max_entries} open"
    if sizing.rule is SizingRule.FIXED:
        return f"each has {cash:.2f} {quote}, an entry is {size.quantity.normalize():f} base at its price, {entries}"
    cost = sizing.amount if sizing.rule is SizingRule.QUOTE else cash * sizing.amount
    if sizing.rule is SizingRule.RISK:
        cost = cash * sizing.amount / settings.risk_stop_loss_pct
    text = f"each has {cash:.2f} {quote}, an entry costs about {cost:.2f}, {entries}"
    if cost < size.rules.instrument.notional_min:
        text += f"; BELOW the venue's minimum of {size.rules.instrument.notional_min}: every entry will be refused"
    elif cost > cash:
        text += f"; MORE than it has: every entry will be rejected, --sizing quote:{cash:.0f} would fit"
    return text

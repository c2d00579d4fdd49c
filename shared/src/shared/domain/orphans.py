"""Positions whose strategy is not enabled any more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shared.domain.positions import Holding
from shared.models import InstanceKey


def find_orphans(holdings: Mapping[InstanceKey, Holding], enabled: Iterable[InstanceKey]) -> list[InstanceKey]:
    """Return the instances that hold a position but are not enabled, in business order.

    Parameters
    ----------
    holdings : mapping of InstanceKey to Holding
        What the stored fills add up to.
    enabled : iterable of InstanceKey
        What the settings start.

    Returns
    -------
    list of InstanceKey
        Their stops stay armed; a start must say whether to keep or to close them. Dust, which no order could sell, is
        not asked about.

    Example: rsi holds BTC and only macd is enabled -> [rsi BTC/USDT 1m].
    """
    running = frozenset(enabled)
    return sorted(
        (key for key, holding in holdings.items() if holding.entries and key not in running),
        key=lambda key: key.business_order,
    )

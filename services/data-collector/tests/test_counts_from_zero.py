"""What alarms count is known before it happens: the first one is an increase too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from data_collector.collector import Collector
from data_collector.testing import ScriptedFeed
from data_collector.validation import QUARANTINE_REASONS


@pytest.mark.parametrize(
    ("name", "label", "values"),
    [
        ("trading_gaps_total", "stream", ["BTC/USDT 1m"]),
        ("trading_quarantined_total", "reason", [*QUARANTINE_REASONS]),
    ],
)
async def test_a_collector_that_has_seen_nothing_counts_nothing_rather_than_not_at_all(
    collector_of: Callable[..., Collector], registry: CollectorRegistry, name: str, label: str, values: list[str]
) -> None:
    await collector_of(ScriptedFeed([]), history_candles=0).run(asyncio.Event())
    found = {each: registry.get_sample_value(name, {"service": "data-collector", label: each}) for each in values}
    assert found == dict.fromkeys(values, 0)

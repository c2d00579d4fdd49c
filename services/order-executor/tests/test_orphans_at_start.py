"""A position whose strategy is not enabled any more: asked for at start, kept with its stop, or closed."""

from __future__ import annotations

from decimal import Decimal

import pytest

from shared.db import Database
from shared.domain.rounding import Instrument
from shared.errors import ConfigError
from shared.sa_models import AllocationRow, DecisionRow, OrderRow, StrategyPositionRow, TradeRow
from shared.testing.builders import ALPHA, BETA, BTC, candle, instance_rules, signal

from .conftest import BuildLoop, Market, config_of, rows_of, run_dry

D = Decimal
BOTH = {ALPHA: instance_rules(), BETA: instance_rules(BETA)}
REST = {BETA: instance_rules(BETA)}


async def hold(market: Market, loop_of: BuildLoop, quantity: str = "1") -> None:
    """Let ALPHA buy."""
    await market([candle(0), candle(1)], [signal("BUY", 0, quantity=quantity)])
    await run_dry(loop_of(config_of(BOTH)))


async def test_a_start_without_an_answer_is_refused_and_names_position_and_options(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    await hold(market, loop_of)

    with pytest.raises(ConfigError) as refusal:
        await loop_of(config_of(REST)).load()

    assert str(refusal.value) == (
        "orphans: alpha BTC/USDT 1m holds 1, but not enabled; "
        "start with --orphans keep or --orphans close, or enable them again"
    )
    assert {row.active for row in await rows_of(database, AllocationRow)} == {True}


async def test_a_kept_orphan_keeps_its_stop_and_buys_nothing(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    await hold(market, loop_of)
    config = config_of(
        REST, orphans="keep", default_rules=lambda key: instance_rules(key, stop_loss_pct=D(5), max_entries=2)
    )
    buy = signal("BUY", 2)
    await market([candle(2)], [buy])
    await run_dry(loop_of(config))
    decision = next(row for row in await rows_of(database, DecisionRow) if row.signal_id == buy.id)
    assert (decision.outcome, decision.reason) == ("refused", "orphan")

    await market([candle(3, 100, 94, low=90)])
    await run_dry(loop_of(config))

    assert [row.reason for row in await rows_of(database, TradeRow, "sequence")] == ["test", "stop_loss"]


@pytest.mark.parametrize("starts", [1, 3])
async def test_a_closed_orphan_sells_at_the_next_open_once_however_often_it_is_started(
    database: Database, market: Market, loop_of: BuildLoop, starts: int
) -> None:
    await hold(market, loop_of)
    for _ in range(starts):
        await loop_of(config_of(REST, orphans="close")).load()

    await market([candle(2, 104), candle(3)])
    await run_dry(loop_of(config_of(REST, orphans="close")))

    ended = [row for row in await rows_of(database, OrderRow) if row.side == "SELL"]
    assert [(row.purpose, row.status, row.filled_at, row.avg_fill_price) for row in ended] == [
        ("orphan", "FILLED", candle(2).open_time, 104)
    ]
    assert {row.quantity for row in await rows_of(database, StrategyPositionRow)} == {0}


async def test_an_orphan_that_is_enabled_again_trades_on(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    await hold(market, loop_of)
    await market([candle(2)])
    await run_dry(loop_of(config_of(REST, orphans="keep")))
    active = {row.strategy: row.active for row in await rows_of(database, AllocationRow)}
    assert active == {"alpha": False, "beta": True}

    await market([candle(3), candle(4)], [signal("SELL", 3)])
    await run_dry(loop_of(config_of(BOTH)))

    assert [row.side for row in await rows_of(database, TradeRow, "sequence")] == ["BUY", "SELL"]
    assert {row.active for row in await rows_of(database, AllocationRow)} == {True}


async def test_dust_is_no_orphan(database: Database, market: Market, loop_of: BuildLoop) -> None:
    stepped = Instrument(symbol=BTC, step_size=D("0.1"), notional_min=D(50))
    rules = {ALPHA: instance_rules(instrument=stepped, max_entries=0), BETA: instance_rules(BETA)}
    await market([candle(n) for n in range(4)], [signal("BUY", 0), signal("SELL", 1, quantity="0.99")])
    await run_dry(loop_of(config_of(rules)))
    held = {row.strategy: (row.quantity, row.entries_open) for row in await rows_of(database, StrategyPositionRow)}
    assert held["alpha"] == (D("0.1"), 0)

    loop = loop_of(config_of(REST, default_rules=lambda key: instance_rules(key, instrument=stepped)))
    await loop.load()

    assert loop.executor.is_loaded

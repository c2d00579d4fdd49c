"""A restart: the book that comes back is the one that was there."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import delete

from shared.db import Database
from shared.domain.allocation import allocated_cash
from shared.domain.book import Book, BookRules
from shared.domain.effects import Declined, Filled
from shared.domain.paper import PaperVenue
from shared.domain.risk import Limits
from shared.domain.sizing import parse_sizing
from shared.errors import ConfigError
from shared.models import Candle, InstanceKey, OrderSide, Signal
from shared.sa_models import AccountRow, ControlRow, DecisionRow, LedgerRow, OrderRow, StrategyPositionRow, TradeRow
from shared.testing.builders import ALPHA, BETA, BTC, ETH, FREE_OF_COST, START, candle, instance_rules, play, signal

from .conftest import BuildLoop, Market, config_of, rows_of, run_dry

pytestmark = pytest.mark.thorough

D = Decimal
GAMMA = InstanceKey("gamma", ETH, "1m")
EXITS = {
    ALPHA: instance_rules(
        stop_loss_pct=D(5), trailing_pct=D(3), stop_cooldown_candles=3, sizing=parse_sizing("equity_fraction:0.3")
    ),
    BETA: instance_rules(BETA, max_entries=3, take_profit_pct=D(4)),
    GAMMA: instance_rules(GAMMA, max_entries=0, stop_loss_pct=D(2)),
}


def limited(**limits: object) -> BookRules:
    off = {"position_size_max": D(1), "gross_exposure_max": D(0), "order_rate_max": 0}
    rules = Limits(**{**off, "daily_loss_pct_max": D(0), "drawdown_pct_max": D(0), **limits})
    return BookRules(fees=FREE_OF_COST.fees, slippage_bps=D(0), limits=rules)


async def set_control(database: Database, state: str) -> None:
    row = {"account": "paper", "state": state, "reason": "a test", "set_by": "a person", "seq": 1, "set_at": START}
    async with database.get_session() as session:
        await database.upsert_rows(session, ControlRow, [row])


async def decisions_of(database: Database) -> dict[str, tuple[str, str]]:
    return {row.signal_id: (row.outcome, row.reason) for row in await rows_of(database, DecisionRow)}


def price(number: int) -> int:
    return 100 + (number * 7) % 23 - (number * 3) % 11


def market_of(numbers: range) -> tuple[list[Candle], list[Signal]]:
    """Return wild candles of two symbols, and a signal of every instance at each close."""
    candles = [
        candle(n, price(n), price(n + 1), low=price(n) - 6, high=price(n + 1) + 12, symbol=symbol)
        for n in numbers
        for symbol in (BTC, ETH)
    ]
    signals = [
        signal("SELL" if (n + place) % 4 == 3 else "BUY", n, price(n + 1), instance=key)
        for n in numbers
        for place, key in enumerate(EXITS)
    ]
    return candles, signals


@pytest.mark.parametrize("sizes", [[90], [1] * 12 + [5, 40, 33]], ids=["one run", "fifteen runs"])
async def test_any_restarts_leave_what_the_pure_book_gives(
    database: Database, market: Market, loop_of: BuildLoop, sizes: list[int]
) -> None:
    config = config_of(EXITS, rules=limited(order_rate_max=2, notional_per_hour_max=D(20_000)))
    pure = Book(config.rules, config.balance)
    for key in EXITS:
        pure.open_account(key, EXITS[key], allocated_cash(config.balance, config.shares[key]))
    effects = play(PaperVenue(pure), *market_of(range(90)))

    start = 0
    for size in sizes:
        await market(*market_of(range(start, start + size)))
        start += size
        await run_dry(loop_of(config))

    trades = [(row.id, row.price, row.quantity, row.as_of) for row in await rows_of(database, TradeRow, "sequence")]
    fills = [each.fill for each in effects if isinstance(each, Filled)]
    declined = {e.signal.id: (e.outcome, e.reason) for e in effects if isinstance(e, Declined)}
    account = (await rows_of(database, AccountRow))[0]
    own = {
        row.strategy: (row.cash, row.quantity, row.entries_open) for row in await rows_of(database, StrategyPositionRow)
    }
    assert trades == [(fill.id, fill.price, fill.quantity, fill.as_of) for fill in fills]
    assert {key: v for key, v in (await decisions_of(database)).items() if v[0] != "ordered"} == declined
    assert (account.cash, account.equity, account.equity_peak) == (pure.cash, pure.equity(), pure.figures.equity_peak)
    assert own == {
        key.strategy: (each.cash, each.holding.quantity, len(each.holding.entries))
        for key, each in pure.accounts.items()
    }
    assert len(trades) > 100
    assert {fill.reason for fill in fills} >= {"test", "stop_loss", "take_profit", "trailing_stop"}
    assert {reason for _, reason in declined.values()} >= {"nothing_held", "order_rate", "stop_cooldown"}


async def test_a_daily_loss_still_refuses_after_a_restart_and_ends_with_the_day(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    config = config_of({ALPHA: instance_rules(), BETA: instance_rules(BETA)}, rules=limited(daily_loss_pct_max=D(1)))
    day = 1440
    await market([candle(0), candle(1, 100, 80)], [signal("BUY", 0, quantity=10)])
    await run_dry(loop_of(config))
    stored = (await rows_of(database, AccountRow))[0]
    assert (stored.state, stored.state_reason) == ("REDUCE_ONLY", "daily_loss")

    second, last, next_day = (signal("BUY", n, 80, instance=BETA) for n in (2, 3, day))
    await market([candle(2, 80), candle(3, 80)], [second])
    await run_dry(loop_of(config))
    await market([candle(n, 80) for n in range(4, day + 2)], [last, next_day])
    await run_dry(loop_of(config))

    decided = await decisions_of(database)
    assert decided[second.id] == decided[last.id] == ("refused", "daily_loss")
    assert decided[next_day.id] == ("ordered", "")
    assert (await rows_of(database, AccountRow))[0].state == "ACTIVE"


async def test_a_drawdown_refuses_for_good_but_never_an_exit(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    config = config_of({ALPHA: instance_rules(), BETA: instance_rules(BETA)}, rules=limited(drawdown_pct_max=D(1)))
    await market([candle(0), candle(1, 100, 80)], [signal("BUY", 0, quantity=10)])
    await run_dry(loop_of(config))
    buy, sell = signal("BUY", 3000, 80, instance=BETA), signal("SELL", 3000, 80)

    await market([candle(3000, 80), candle(3001, 80)], [buy, sell])
    await run_dry(loop_of(config))

    decided = await decisions_of(database)
    assert decided[buy.id] == ("refused", "drawdown")
    assert decided[sell.id] == ("ordered", "")
    assert (await rows_of(database, StrategyPositionRow, "strategy"))[0].quantity == 0


async def test_a_halt_in_the_control_table_reaches_a_running_executor(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    loop = loop_of(config_of({ALPHA: instance_rules(), BETA: instance_rules(BETA, stop_loss_pct=D(5))}))
    await market([candle(0), candle(1)], [signal("BUY", 0), signal("BUY", 0, instance=BETA)])
    await run_dry(loop)

    await set_control(database, "HALT")
    sell, buy = signal("SELL", 2), signal("BUY", 2, instance=BETA)
    await market([candle(2), candle(3, 100, 94, low=90)], [sell, buy])
    await run_dry(loop)

    decided = await decisions_of(database)
    assert decided[sell.id] == ("refused", "halted")
    assert decided[buy.id] == ("ignored", "already_in")
    assert [row.reason for row in await rows_of(database, TradeRow, "sequence")] == ["test", "test", "stop_loss"]


async def test_reduce_only_lets_exits_pass_and_ends_waiting_entries(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    loop = loop_of(config_of({ALPHA: instance_rules(), BETA: instance_rules(BETA)}))
    await market([candle(0), candle(1)], [signal("BUY", 0), signal("BUY", 1, instance=BETA)])
    await run_dry(loop)

    await set_control(database, "REDUCE_ONLY")
    await market([candle(2), candle(3), candle(4)], [signal("SELL", 2), signal("BUY", 3)])
    await run_dry(loop)
    await set_control(database, "ACTIVE")
    await market([candle(5), candle(6)], [signal("BUY", 5)])
    await run_dry(loop)

    orders = [
        (row.strategy, row.side, row.status, row.reason) for row in await rows_of(database, OrderRow, "created_at")
    ]
    assert orders == [
        ("alpha", "BUY", "FILLED", "test"),
        ("beta", "BUY", "CANCELED", "reduce_only"),
        ("alpha", "SELL", "FILLED", "test"),
        ("alpha", "BUY", "FILLED", "test"),
    ]


async def test_flatten_ends_every_position_at_the_next_open(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    loop = loop_of(config_of({ALPHA: instance_rules(), BETA: instance_rules(BETA)}))
    await market([candle(0), candle(1)], [signal("BUY", 0), signal("BUY", 0, instance=BETA)])
    await run_dry(loop)

    await set_control(database, "FLATTEN")
    await market([candle(2), candle(3, 103), candle(4)])
    await run_dry(loop)

    ended = [row for row in await rows_of(database, OrderRow, "strategy") if row.side == OrderSide.SELL]
    assert [(row.purpose, row.status, row.filled_at) for row in ended] == [
        ("flatten", "FILLED", candle(3).open_time)
    ] * 2
    assert {row.quantity for row in await rows_of(database, StrategyPositionRow)} == {0}


async def test_another_mode_refuses_the_database(database: Database) -> None:
    await database.stamp_mode("paper", "USDT")

    with pytest.raises(ConfigError, match="paper"):
        await database.stamp_mode("live", "USDT")


async def test_the_cooldown_of_a_stop_outlives_a_restart(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    config = config_of({ALPHA: instance_rules(stop_loss_pct=D(5), stop_cooldown_candles=3)})
    await market([candle(0), candle(1), candle(2, 99, 94, low=90)], [signal("BUY", 0)])
    await run_dry(loop_of(config))
    refused, allowed = signal("BUY", 4, 94), signal("BUY", 5, 94)

    await market([candle(n, 94) for n in range(3, 7)], [refused, allowed])
    await run_dry(loop_of(config))

    decided = await decisions_of(database)
    assert decided[refused.id] == ("refused", "stop_cooldown")
    assert decided[allowed.id] == ("ordered", "")


async def test_the_best_price_of_a_trailing_stop_outlives_a_restart(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    config = config_of({ALPHA: instance_rules(trailing_pct=D(10))})
    await market([candle(0), candle(1), candle(2, 110, 120, high=130, low=110)], [signal("BUY", 0)])
    await run_dry(loop_of(config))

    await market([candle(3, 120, 116, low=115)])
    await run_dry(loop_of(config))

    trade = (await rows_of(database, TradeRow, "sequence"))[-1]
    assert (trade.reason, trade.price) == ("trailing_stop", 117)


async def test_a_stored_sell_that_exceeds_what_was_bought_is_a_broken_invariant(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    await market([candle(0), candle(1), candle(2)], [signal("BUY", 0), signal("SELL", 1)])
    await run_dry(loop_of())
    async with database.get_session() as session:
        await session.execute(delete(LedgerRow))
        await session.execute(delete(TradeRow).where(TradeRow.sequence == 1))

    with pytest.raises(AssertionError, match="exceeds"):
        await loop_of().load()


async def test_a_new_balance_in_the_settings_does_not_touch_an_open_account(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    await market([candle(0)])
    await run_dry(loop_of())

    loop = loop_of(config_of(balance=D(77)))
    await loop.load()

    assert loop.executor.book.cash == 10_000


async def test_the_account_row_is_of_the_last_close_time(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    await market([candle(n) for n in range(5)])
    await run_dry(loop_of())

    account = (await rows_of(database, AccountRow))[0]
    assert account.as_of == START + timedelta(minutes=5)
    assert account.day == "2024-03-04"


async def test_a_mark_of_before_the_restart_values_what_is_held(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    await market([candle(0), candle(1, 100, 103)], [signal("BUY", 0)])
    await run_dry(loop_of())
    loop = loop_of()

    await loop.load()

    assert loop.executor.book.equity() == 10_003

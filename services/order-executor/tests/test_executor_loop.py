"""The durable executor: stored candles and signals in; orders, fills, ledger and account out in one transaction."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import select, update

from shared.broker_memory import MemoryBroker
from shared.clock import ManualClock
from shared.db import Database
from shared.domain.book import BookRules
from shared.domain.fees import FeeSchedule
from shared.domain.rounding import ZERO
from shared.errors import DatabaseUnavailable
from shared.events import SignalEvent
from shared.models import Candle, InstanceKey, Signal, to_milliseconds
from shared.sa_models import (
    AccountRow,
    DecisionRow,
    LedgerRow,
    OrderRow,
    OutboxRow,
    PositionRow,
    SignalRow,
    StrategyPositionRow,
    TradeRow,
)
from shared.testing.builders import ALPHA, BETA, BTC, ETH, START, candle, instance_rules, signal

from .conftest import BuildLoop, Market, config_of, rows_of, run_dry

D = Decimal
GAMMA = InstanceKey("gamma", ETH, "1m")
COSTS = BookRules(fees=FeeSchedule(maker=D("0.001"), taker=D("0.001")), slippage_bps=D(10))


async def orders_of(database: Database) -> list[tuple[str, str, str]]:
    rows = await rows_of(database, OrderRow, "created_at", "strategy")
    return [(row.strategy, row.side, row.status) for row in rows]


async def test_a_signal_waits_for_the_next_open_and_everything_about_its_fill_is_stored(
    database: Database, market: Market, loop_of: BuildLoop, bus: MemoryBroker
) -> None:
    loop = loop_of(config_of(rules=COSTS))
    buy = signal("BUY", 0)
    await market([candle(0)], [buy])
    await run_dry(loop)
    assert await orders_of(database) == [("alpha", "BUY", "PENDING")]

    await market([candle(1, 101, 102)])
    await run_dry(loop)

    order = (await rows_of(database, OrderRow))[0]
    trade = (await rows_of(database, TradeRow))[0]
    price = D(101) * D("1.001")
    assert (order.status, order.filled_at, order.avg_fill_price) == ("FILLED", candle(1).open_time, price)
    assert (trade.price, trade.quantity, trade.fee, trade.fee_asset) == (price, 1, price / 1000, "USDT")
    assert (trade.traded_at, trade.as_of, trade.sequence) == (candle(1).open_time, candle(1).close_time, 1)
    ledger = {row.leg: (row.asset, row.delta) for row in await rows_of(database, LedgerRow)}
    assert ledger == {"base": ("BTC", 1), "quote": ("USDT", -price), "fee": ("USDT", -price / 1000)}
    account = (await rows_of(database, AccountRow))[0]
    cash = D(10_000) - price - price / 1000
    assert (account.cash, account.equity, account.sequence) == (cash, cash + 102, 1)
    own = (await rows_of(database, StrategyPositionRow))[0]
    assert (own.quantity, own.avg_entry_price, own.cash, own.entries_open) == (1, price, cash, 1)
    position = (await rows_of(database, PositionRow))[0]
    assert (position.quantity, position.current_price) == (1, 102)
    assert (await database.read_cursors("executor/watermark")) == {
        "executor/watermark": str(to_milliseconds(candle(1).close_time))
    }
    assert await database.pending_outbox("signals", 10) == []
    assert [row.as_of for row in await database.pending_outbox("orders", 10)] == [
        candle(0).close_time,
        candle(1).open_time,
    ]
    bell = (await bus.read("watermarks"))[-1].event
    assert bell is not None
    assert (bell.data.service, bell.as_of) == ("order-executor", candle(1).close_time)


async def test_each_signal_gets_exactly_one_decision_however_often_it_comes(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    buy, early_sell = signal("BUY", 0), signal("SELL", 0, instance=BETA)
    loop = loop_of(config_of({ALPHA: instance_rules(), BETA: instance_rules(BETA)}))
    await market([candle(0)], [buy, buy, early_sell])
    await run_dry(loop)
    await market([candle(1)], [buy])
    await run_dry(loop)

    outcomes = {row.signal_id: (row.outcome, row.reason) for row in await rows_of(database, DecisionRow)}
    assert outcomes == {buy.id: ("ordered", ""), early_sell.id: ("ignored", "nothing_held")}
    assert len(await rows_of(database, OrderRow)) == 1
    assert await database.pending_outbox("signals", 10) == []


async def test_sells_go_before_buys_then_symbol_then_strategy(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    owners = {key: instance_rules(key) for key in (BETA, GAMMA, ALPHA)}
    loop = loop_of(config_of(owners))
    streams = [candle(n, symbol=symbol) for n in range(2) for symbol in (BTC, ETH)]
    await market(streams, [signal("BUY", 0, instance=GAMMA)])
    await run_dry(loop)

    wanted = [signal("BUY", 2, instance=BETA), signal("BUY", 2, instance=ALPHA), signal("SELL", 2, instance=GAMMA)]
    await market([candle(2), candle(2, symbol=ETH)], wanted)
    await run_dry(loop)

    async with database.read() as session:
        query = select(OutboxRow.payload).where(OutboxRow.topic == "orders").order_by(OutboxRow.id)
        placed = [payload for payload in (await session.execute(query)).scalars() if '"PENDING"' in payload]
    assert [("gamma" in text, "alpha" in text, "beta" in text) for text in placed[1:]] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


async def test_an_expired_buy_is_refused_and_an_expired_sell_goes_out_late(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    loop = loop_of()
    await market([candle(0), candle(1)], [signal("BUY", 0)])
    await run_dry(loop)
    await market([candle(n) for n in range(2, 20)])
    await run_dry(loop)

    old_buy = signal("BUY", 3)
    old_sell = signal("SELL", 4)
    fields = {"expires_at": candle(9).close_time}
    old = [Signal(**{**{n: getattr(s, n) for n in s.__struct_fields__}, **fields}) for s in (old_sell, old_buy)]
    await market(signals=old, watermark=candle(19).close_time)
    await run_dry(loop)
    await market([candle(n) for n in range(20, 22)])
    await run_dry(loop)

    outcomes = {row.signal_id: (row.outcome, row.reason) for row in await rows_of(database, DecisionRow)}
    assert outcomes[old_sell.id] == ("ordered", "")
    assert outcomes[old_buy.id][0] != "ordered"
    assert (await rows_of(database, PositionRow))[0].quantity == 0


async def test_a_buy_whose_next_open_comes_too_late_expires_as_gap(
    database: Database, market: Market, loop_of: BuildLoop, registry: CollectorRegistry
) -> None:
    loop = loop_of()
    await market([candle(0), candle(60)], [signal("BUY", 0)])
    await run_dry(loop)

    order = (await rows_of(database, OrderRow))[0]
    assert (order.status, order.reason) == ("EXPIRED", "gap")
    labels = {"service": "order-executor", "reason": "gap"}
    assert registry.get_sample_value("trading_refused_total", labels) == 1


async def test_at_the_end_of_data_an_order_stays_pending_and_fills_at_the_next_start(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    await market([candle(0)], [signal("BUY", 0)])
    await run_dry(loop_of())
    assert await orders_of(database) == [("alpha", "BUY", "PENDING")]

    await market([candle(1)])
    await run_dry(loop_of())

    assert await orders_of(database) == [("alpha", "BUY", "FILLED")]


async def test_a_buy_that_its_own_cash_does_not_cover_is_rejected(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    await market([candle(0), candle(1, 101)], [signal("BUY", 0, quantity=100)])
    await run_dry(loop_of())

    order = (await rows_of(database, OrderRow))[0]
    assert (order.status, order.reason) == ("REJECTED", "insufficient_cash")
    assert await rows_of(database, TradeRow) == []


async def test_a_stop_sells_before_the_candles_own_signals(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    loop = loop_of(config_of({ALPHA: instance_rules(stop_loss_pct=D(5))}))
    again = signal("BUY", 2, 94)
    await market([candle(0), candle(1), candle(2, 99, 94, low=90)], [signal("BUY", 0), again])
    await run_dry(loop)

    trade = (await rows_of(database, TradeRow, "sequence"))[1]
    assert (trade.side, trade.price, trade.reason) == ("SELL", 95, "stop_loss")
    decision = next(row for row in await rows_of(database, DecisionRow) if row.signal_id == again.id)
    assert (decision.outcome, decision.reason) == ("refused", "stop_cooldown")


async def test_a_refused_signal_is_stored_with_reason_and_numbers_and_counted(
    database: Database, market: Market, loop_of: BuildLoop, registry: CollectorRegistry
) -> None:
    stranger = signal("BUY", 0, instance=BETA)
    await market([candle(0)], [signal("BUY", 0), stranger])
    await run_dry(loop_of())

    decision = next(row for row in await rows_of(database, DecisionRow) if row.outcome == "refused")
    assert (decision.signal_id, decision.reason, decision.order_id) == (stranger.id, "no_account", None)
    assert "beta" in decision.detail
    assert decision.as_of == candle(0).close_time
    labels = {"service": "order-executor", "reason": "no_account"}
    assert registry.get_sample_value("trading_refused_total", labels) == 1


async def test_a_failed_transaction_leaves_nothing_and_the_next_step_repeats_it(
    database: Database, market: Market, loop_of: BuildLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = loop_of()
    await market([candle(0), candle(1)], [signal("BUY", 0)])

    async def fail(*_: Any) -> None:
        raise DatabaseUnavailable("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(database, "write_cursors", fail)
        with pytest.raises(DatabaseUnavailable):
            await loop.step()
    assert await rows_of(database, OrderRow) == []
    assert not loop.executor.is_loaded

    await run_dry(loop)

    assert await orders_of(database) == [("alpha", "BUY", "FILLED")]
    assert (await rows_of(database, AccountRow))[0].cash == 9_900


async def test_nothing_is_handled_before_the_engine_has_finished_it(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    loop = loop_of()
    await database.upsert_candles([candle(0), candle(1)])
    assert not await loop.step()

    await market(watermark=candle(0).close_time)
    await run_dry(loop)

    assert await database.read_cursors("executor/watermark") == {
        "executor/watermark": str(to_milliseconds(candle(0).close_time))
    }


async def test_a_forged_signal_on_the_bus_is_not_traded(
    database: Database, market: Market, loop_of: BuildLoop, bus: MemoryBroker
) -> None:
    loop = loop_of()
    await market([candle(0)])
    await bus.publish("signals", SignalEvent(data=signal("BUY", 0)))
    await bus.publish("signals", b"\x00 rubbish")

    await run_dry(loop)
    await market([candle(1)])
    await run_dry(loop)

    assert await rows_of(database, OrderRow) == []


async def test_a_message_that_cannot_be_read_any_more_gives_the_stored_signal(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    await market([candle(0), candle(1)], [signal("BUY", 0)])
    async with database.get_session() as session:
        await session.execute(update(OutboxRow).where(OutboxRow.topic == "signals").values(payload="{"))
        lost = {"topic": "signals", "key": "nobody", "payload": "{", "as_of": candle(0).close_time}
        await database.append_outbox(session, [lost])

    await run_dry(loop_of())

    assert await orders_of(database) == [("alpha", "BUY", "FILLED")]
    assert await database.pending_outbox("signals", 10) == []


async def test_more_signals_than_one_page_holds_are_all_decided(
    database: Database, market: Market, loop_of: BuildLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("order_executor.loop.SIGNALS_MAX", 3)
    keys = [InstanceKey(f"s{number}", BTC, "1m") for number in range(10)]
    loop = loop_of(config_of({key: instance_rules(key) for key in keys}))
    await market([candle(0), candle(1)], [signal("BUY", 0, instance=key) for key in keys])

    await run_dry(loop)

    assert len(await rows_of(database, TradeRow)) == 10


async def test_the_books_figures_and_effects_are_measured(
    database: Database, market: Market, loop_of: BuildLoop, registry: CollectorRegistry
) -> None:
    await market(
        [candle(0), candle(1, 100, 90), candle(2, 90, 80)], [signal("BUY", 0, quantity=10), signal("BUY", 1, 90)]
    )
    await run_dry(loop_of())

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"trading_{name}", {"service": "order-executor", **labels})

    assert value("orders_total", status="PENDING") == 1
    assert value("orders_total", status="FILLED") == 1
    assert value("fills_total", strategy="alpha", side="BUY") == 1
    assert value("ignored_total", reason="already_in") == 1
    assert value("equity_quote") == 9_800
    assert value("drawdown_ratio") == pytest.approx(0.02)
    assert value("pnl_quote", kind="day") == -200
    assert value("exposure_ratio", symbol=BTC) == pytest.approx(800 / 9_800)
    assert value("events_processed_total", event_type="signal") == 2


async def test_a_live_executor_waits_two_seconds_for_the_engine_and_then_guards_its_stops_alone(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    clock = ManualClock()
    config = config_of({ALPHA: instance_rules(stop_loss_pct=D(5))}, is_deterministic=False)
    loop = loop_of(config, clock=clock)
    await market([candle(0), candle(1)], [signal("BUY", 0)])
    await run_dry(loop)
    await clock.advance(50)  # quiet time between two candles is no silence of the engine
    await database.upsert_candles([candle(2, 99, 94, low=90)])

    assert not await loop.step()
    await clock.advance(1.9)
    assert not await loop.step()
    await clock.advance(0.2)
    assert await loop.step()

    assert [row.reason for row in await rows_of(database, TradeRow, "sequence")] == ["test", "stop_loss"]
    await database.upsert_candles([candle(3, 94)])
    assert not await loop.step()  # each close time is waited for anew


async def test_signals_of_an_engine_that_comes_late_are_decided_at_the_books_own_time(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    clock = ManualClock()
    loop = loop_of(config_of(is_deterministic=False), clock=clock)
    await market([candle(0)])
    await run_dry(loop)
    await database.upsert_candles([candle(1), candle(2)])
    assert not await loop.step()
    await clock.advance(2.1)
    await run_dry(loop)

    await market(signals=[signal("BUY", 1)], watermark=candle(1).close_time)
    await run_dry(loop)
    watermark = await database.read_cursors("executor/watermark")
    await market([candle(3)])
    await run_dry(loop)

    order = (await rows_of(database, OrderRow))[0]
    assert watermark == {"executor/watermark": str(to_milliseconds(candle(2).close_time))}
    assert (order.created_at, order.status, order.filled_at) == (
        candle(2).close_time,
        "FILLED",
        candle(3).open_time,
    )


async def test_one_of_ten_streams_is_silent_and_the_others_trade(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    keys = [InstanceKey("alpha", f"C{number}/USDT", "1m") for number in range(10)]
    loop = loop_of(config_of({key: instance_rules(key) for key in keys}))
    speaking = keys[1:]
    candles: list[Candle] = [candle(n, symbol=key.symbol) for n in range(2) for key in speaking]
    await market(candles, [signal("BUY", 0, instance=key) for key in speaking])

    await run_dry(loop)

    assert len(await rows_of(database, TradeRow)) == 9


async def test_money_is_conserved_over_many_batches_and_restarts(
    database: Database, market: Market, loop_of: BuildLoop
) -> None:
    keys = (ALPHA, BETA)
    config = config_of({key: instance_rules(key, max_entries=2) for key in keys}, rules=COSTS, batch_rows_max=7)
    candles = [candle(n, 100 + n % 9, 100 + (n + 1) % 9, low=95, high=115) for n in range(60)]
    signals = [
        signal("BUY" if (n + i) % 5 < 3 else "SELL", n, instance=key) for n in range(60) for i, key in enumerate(keys)
    ]
    for start in range(0, 60, 13):
        part = candles[start : start + 13]
        made = [each for each in signals if part[0].close_time <= each.created_at <= part[-1].close_time]
        await market(part, made)
        await run_dry(loop_of(config))

    account = (await rows_of(database, AccountRow))[0]
    ledger = await rows_of(database, LedgerRow)
    own = await rows_of(database, StrategyPositionRow)
    assert len(ledger) > 60
    assert account.cash == 10_000 + sum((row.delta for row in ledger if row.asset == "USDT"), ZERO)
    assert sum((row.cash for row in own), ZERO) == account.cash
    held = sum((row.quantity for row in own), ZERO)
    assert held == sum((row.delta for row in ledger if row.asset == "BTC"), ZERO)
    assert [row.quantity for row in await rows_of(database, PositionRow)] == [held]
    assert len(await rows_of(database, DecisionRow)) == len(await rows_of(database, SignalRow)) == 120
    assert account.as_of == START + timedelta(minutes=60)

"""What a person hears of orders, refusals and changes of state, on a real Bot API over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from order_executor.executor import OrderExecutor
from order_executor.risk_manager import RiskManager
from shared.broker_memory import MemoryBroker
from shared.db import Database
from shared.domain.book import BookRules
from shared.domain.risk import Limits
from shared.notifier import NotifierLimits, TelegramNotifier
from shared.sa_models import ControlRow
from shared.testing.bot_api import FakeBotApi
from shared.testing.builders import ALPHA, BETA, FREE_OF_COST, START, candle, instance_rules, signal

from .conftest import BuildLoop, Market, config_of, run_dry

D = Decimal
AT_ONCE = NotifierLimits(message_gap_seconds=0, base_delay_seconds=0.001, close_seconds_max=1)


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    database = Database(sqlite_url)
    yield database
    await database.close()


@pytest.fixture
async def api() -> AsyncIterator[FakeBotApi]:
    async with FakeBotApi() as server:
        yield server


@pytest.fixture
async def notifier(api: FakeBotApi) -> AsyncIterator[TelegramNotifier]:
    notifier = TelegramNotifier(api.token, "42", base_url=api.url, limits=AT_ONCE)
    notifier.start()
    yield notifier
    await notifier.close()


async def heard(api: FakeBotApi, notifier: TelegramNotifier, last: str) -> list[str]:
    """Return everything that was said before the sentence `last`, which ends the hearing."""
    await notifier.send(last)
    count = 1
    while not any(last in message.text for message in await api.wait_for_messages(count)):
        count = len(api.received) + 1
    return [message.text for message in api.received if last not in message.text]


async def test_a_signal_its_order_and_its_fill_are_told(
    market: Market, loop_of: BuildLoop, api: FakeBotApi, notifier: TelegramNotifier
) -> None:
    await market([candle(0), candle(1)], [signal("BUY", 0)])
    await run_dry(loop_of(notifier=notifier))

    texts = await heard(api, notifier, "that is all")

    assert len(texts) == 3
    assert "alpha" in texts[0]
    assert "PENDING" in texts[1]
    assert "FILLED" in texts[2]


async def test_a_refusal_is_told_with_its_reason_and_an_ignored_signal_is_not(
    market: Market, loop_of: BuildLoop, api: FakeBotApi, notifier: TelegramNotifier
) -> None:
    await market([candle(0)], [signal("SELL", 0), signal("BUY", 0, instance=BETA)])
    await run_dry(loop_of(notifier=notifier))

    texts = await heard(api, notifier, "that is all")

    assert len(texts) == 1
    assert "no_account" in texts[0]
    assert "beta" in texts[0]


async def test_a_refusal_of_execute_is_told(database: Database, api: FakeBotApi, notifier: TelegramNotifier) -> None:
    executor = OrderExecutor(None, RiskManager(), MemoryBroker(), database, notifier)

    await executor.execute(signal("BUY", 0, quantity=900))
    await executor.execute(signal("BUY", 1, "NaN"))

    texts = await heard(api, notifier, "that is all")
    assert ["position_size" in texts[0], "invalid_signal" in texts[1]] == [True, True]


async def test_an_automatic_stop_of_new_risk_is_told_once(
    market: Market, loop_of: BuildLoop, api: FakeBotApi, notifier: TelegramNotifier
) -> None:
    limits = Limits(position_size_max=D(1), gross_exposure_max=D(0), daily_loss_pct_max=D(1))
    rules = BookRules(fees=FREE_OF_COST.fees, slippage_bps=D(0), limits=limits)
    await market([candle(0), candle(1, 100, 80), candle(2, 80)], [signal("BUY", 0, quantity=10)])
    await run_dry(loop_of(config_of(rules=rules), notifier=notifier))

    texts = await heard(api, notifier, "that is all")

    told = [text for text in texts if "REDUCE_ONLY" in text]
    assert len(told) == 1
    assert "daily_loss" in told[0]


async def test_a_halt_that_the_executor_obeys_is_told_with_who_set_it(
    database: Database, market: Market, loop_of: BuildLoop, api: FakeBotApi, notifier: TelegramNotifier
) -> None:
    loop = loop_of(notifier=notifier)
    await market([candle(0)])
    await run_dry(loop)
    row = {"account": "paper", "state": "HALT", "reason": "too hot", "set_by": "Eve", "seq": 1, "set_at": START}
    async with database.get_session() as session:
        await database.insert_rows(session, ControlRow, [row])

    await market([candle(1), candle(2)])
    await run_dry(loop)

    texts = await heard(api, notifier, "that is all")
    assert len(texts) == 1
    assert all(word in texts[0] for word in ("HALT", "too hot", "Eve"))


async def test_an_orphan_that_is_closed_is_told(
    market: Market, loop_of: BuildLoop, api: FakeBotApi, notifier: TelegramNotifier
) -> None:
    both = {ALPHA: instance_rules(), BETA: instance_rules(BETA)}
    await market([candle(0), candle(1)], [signal("BUY", 0)])
    await run_dry(loop_of(config_of(both)))

    await loop_of(config_of({BETA: instance_rules(BETA)}, orphans="close"), notifier=notifier).load()

    texts = await heard(api, notifier, "that is all")
    assert len(texts) == 1
    assert "SELL" in texts[0]


async def test_a_person_who_cannot_be_reached_holds_nothing_up(
    market: Market, loop_of: BuildLoop, api: FakeBotApi, notifier: TelegramNotifier
) -> None:
    await api.__aexit__()
    await market([candle(0), candle(1)], [signal("BUY", 0)])

    loop = loop_of(notifier=notifier)
    await run_dry(loop)

    assert loop.executor.book.accounts[ALPHA].holding.quantity == 1

"""Messages to people, against a Bot API that speaks HTTP and fails on demand."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import re
import threading
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from shared.clock import ManualClock
from shared.models import Order, OrderSide, OrderStatus, Position, Signal
from shared.notifier import NotifierLimits, TelegramNotifier
from shared.notifier_format import plain_text, split_message, summary_text, units
from shared.testing.bot_api import FakeBotApi, garbage, hang, refusal, server_error, too_many_requests
from shared.testing.waiting import until

FAST = NotifierLimits(
    message_gap_seconds=0,
    base_delay_seconds=0.001,
    delay_seconds_max=0.01,
    request_seconds_max=0.3,
    close_seconds_max=5,
    breaker_seconds=0.01,
)
SIGNAL = Signal(
    strategy="rsi",
    symbol="BTC/USDT",
    side=OrderSide.BUY,
    price=Decimal("65000.5"),
    quantity=Decimal("0.010000000000000000"),
    reason="RSI 28.1 < 30 & falling",
)


@pytest.fixture
async def api() -> AsyncIterator[FakeBotApi]:
    async with FakeBotApi() as server:
        yield server


def notifier_for(api: FakeBotApi, chat_id: str = "42", **more: Any) -> TelegramNotifier:
    return TelegramNotifier(api.token, chat_id, base_url=api.url, **{"limits": FAST, **more})


async def test_each_message_says_what_it_must(api: FakeBotApi) -> None:
    notifier = notifier_for(api)
    order = Order(
        symbol="ETH/USDT",
        side=OrderSide.SELL,
        price="3000",
        quantity="2",
        status=OrderStatus.FILLED,  # type: ignore[arg-type]
    )
    position = Position(
        symbol="BTC/USDT", quantity=Decimal("0.5"), avg_entry_price=Decimal(60000), current_price=Decimal(61000)
    )
    assert await notifier.send("<b>hello</b>")
    assert await notifier.send_signal(SIGNAL)
    assert await notifier.send_order(order)
    assert await notifier.send_error(ValueError("a < b"), "engine")
    assert await notifier.send_refusal(SIGNAL, "exposure", "1 > 0.1")
    assert await notifier.send_daily_summary([position], Decimal("10500.25"), Decimal("12.5"))
    await notifier.close()
    texts = [message.text for message in api.received]
    assert len(texts) == 6
    assert {message.parse_mode for message in api.received} == {"HTML"}
    assert {message.chat_id for message in api.received} == {"42"}
    for word in ("<b>", "BUY", "rsi", "BTC/USDT", "65000.5", "0.01\n", "RSI 28.1 &lt; 30 &amp; falling"):
        assert word in texts[1], word
    for word in ("<b>", "FILLED", "ETH/USDT", "SELL", "3000", "2"):
        assert word in texts[2], word
    for word in ("<b>", "engine", "ValueError: a &lt; b"):
        assert word in texts[3], word
    assert "exposure" in texts[4]
    for word in ("<b>", "10500.25", "+12.5", "Open positions: 1", "BTC/USDT: 0.5 @ 60000, now 61000"):
        assert word in texts[5], word
    assert notifier.sent_count == 6


def test_the_summary_takes_dicts_mappings_and_leaves_flat_positions_out() -> None:
    flat = {"symbol": "ETH/USDT", "quantity": Decimal(0), "avg_entry_price": Decimal(0)}
    held = {"symbol": "A<B/USDT", "quantity": Decimal(1), "avg_entry_price": Decimal(5)}
    text = summary_text({"a": flat, "b": held}, 100.0, -3.5)
    assert "Open positions: 1" in text
    assert "A&lt;B/USDT: 1 @ 5" in text
    assert "Day PnL: -3.5" in text


async def test_only_the_chosen_kinds_of_message_are_sent(api: FakeBotApi) -> None:
    limits = dataclasses.replace(FAST, topics=("refusals", "summary"))
    notifier = notifier_for(api, limits=limits)
    order = Order(symbol="ETH/USDT", side=OrderSide.SELL, price=1, quantity=1)  # type: ignore[arg-type]
    assert not await notifier.send_signal(SIGNAL)
    assert not await notifier.send_order(order)
    assert not notifier.post_error("disk full", "engine")
    assert await notifier.send_refusal(SIGNAL, "exposure")
    assert await notifier.send_daily_summary([], 1, 0)
    assert await notifier.send("what the caller insists on")
    await notifier.close()
    assert len(api.received) == 3
    assert "exposure" in api.received[0].text


@pytest.mark.parametrize(("token", "chat", "enabled"), [("", "42", True), ("1:a", "", True), ("1:a", "42", False)])
async def test_without_token_chat_or_wish_nothing_is_sent(token: str, chat: str, enabled: bool) -> None:
    notifier = TelegramNotifier(token, chat, enabled=enabled)
    notifier.start()
    assert notifier.enabled is False
    assert await notifier.send("x") is False
    assert await notifier.send_error("x", "s") is False
    assert notifier.queue_depth == 0
    await notifier.close()


async def test_broken_markup_arrives_as_plain_text(api: FakeBotApi) -> None:
    notifier = notifier_for(api)
    await notifier.send("<b>open & <unknown>3 < 4</unknown>")
    await notifier.close()
    (message,) = api.received
    assert message.parse_mode is None
    assert message.text == "open & 3 < 4"
    assert api.request_count == 2


async def test_the_wait_asked_for_is_kept_and_the_message_arrives(api: FakeBotApi) -> None:
    clock = ManualClock()
    notifier = notifier_for(api, clock=clock)
    api.script.append(too_many_requests(30))
    await notifier.send("patience")
    await api.wait_for_requests(1)
    await until(lambda: clock.sleeper_count > 0)
    await clock.advance(29.9)
    assert api.request_count == 1
    await clock.advance(0.2)
    assert (await api.wait_for_messages(1))[0].text == "patience"
    await notifier.close()


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_other_refusals_are_not_repeated(api: FakeBotApi, status: int) -> None:
    notifier = notifier_for(api)
    api.script.append(refusal(status, "no"))
    await notifier.send("lost")
    await notifier.send("next")
    await notifier.close()
    assert [message.text for message in api.received] == ["next"]
    assert api.request_count == 2
    assert (notifier.sent_count, notifier.failed_count) == (1, 1)


async def test_time_outs_server_errors_and_rubbish_are_tried_again(api: FakeBotApi) -> None:
    notifier = notifier_for(api)
    api.script.extend([hang(), server_error(), server_error(503), garbage()])
    await notifier.send("at last")
    await api.wait_for_messages(1)
    await notifier.close()
    assert api.request_count == 5
    assert [message.text for message in api.received] == ["at last"]


async def test_a_message_is_given_up_after_its_attempts(api: FakeBotApi) -> None:
    notifier = notifier_for(api)
    api.script.extend([server_error()] * 5)
    await notifier.send("lost")
    await notifier.send("next")
    await api.wait_for_messages(1)
    await notifier.close()
    assert (notifier.sent_count, notifier.failed_count) == (1, 1)
    assert api.request_count == 6


async def test_a_server_that_is_away_harms_nobody() -> None:
    notifier = TelegramNotifier("1:secret-token", "42", base_url="http://127.0.0.1:1", limits=FAST)
    assert await notifier.send("x")
    await notifier.close()
    assert notifier.failed_count == 1
    assert await notifier.send("after the end") is False


async def test_sending_never_waits_and_a_full_queue_drops_the_oldest(api: FakeBotApi) -> None:
    outcomes: list[str] = []
    limits = NotifierLimits(queue_max=3, close_seconds_max=0.05)
    notifier = notifier_for(api, limits=limits, clock=ManualClock(), on_outcome=outcomes.append)
    api.script.append(hang())
    await notifier.send("first")
    await api.wait_for_requests(1)
    for number in range(5):
        assert await notifier.send(f"message {number}")
    assert notifier.queue_depth == 3
    assert notifier.dropped_count == 2
    await notifier.close()
    assert notifier.dropped_count == 6
    assert outcomes == ["dropped"] * 6


async def test_messages_keep_a_second_apart_and_a_group_gets_twenty_a_minute(api: FakeBotApi) -> None:
    clock = ManualClock()
    notifier = notifier_for(api, chat_id="-100200", limits=NotifierLimits(), clock=clock)
    for number in range(25):
        await notifier.send(str(number))
    sent_at: list[float] = []
    while len(sent_at) < 25:
        await api.wait_for_messages(len(sent_at) + 1)
        sent_at.append(clock.monotonic())
        while len(api.received) == len(sent_at) < 25:
            await asyncio.sleep(0)
            if clock.sleeper_count:
                await clock.advance(0.25)
                await asyncio.sleep(0.002)
    await notifier.close()
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(sent_at))
    assert sum(moment < 60 for moment in sent_at) == 20
    assert [message.text for message in api.received] == [str(number) for number in range(25)]


async def test_a_long_message_arrives_whole_in_parts(api: FakeBotApi) -> None:
    notifier = notifier_for(api)
    lines = [f"<b>{number}</b> a &amp; b " + "word " * 20 for number in range(200)]
    await notifier.send("\n".join(lines))
    await api.wait_for_messages(5)
    await notifier.close()
    assert all(message.parse_mode == "HTML" for message in api.received), "no part was refused"
    assert "\n".join(message.text for message in api.received) == "\n".join(lines)


async def test_the_token_shows_nowhere(api: FakeBotApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = "123456:secretsecretsecret"
    notifier = TelegramNotifier(token, "42", base_url=api.url, limits=FAST)
    api.script.extend([server_error(), refusal(404, f"no /bot{token}/x")])
    await notifier.send("x")
    await notifier.send(f"my token is {token}")
    await notifier.close()
    away = TelegramNotifier(SecretStr(token), "42", base_url="http://127.0.0.1:1", limits=FAST)
    await away.send("x")
    await away.close()
    odd = TelegramNotifier(token, "42", base_url="http://[odd", limits=FAST)
    await odd.send("x")
    await odd.close()
    assert caplog.records
    assert "secretsecret" not in caplog.text
    assert "secretsecret" not in repr(notifier) + repr(away)
    assert odd.failed_count == 1


async def test_a_message_that_cannot_be_written_is_counted_not_raised(api: FakeBotApi) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError("no")

    notifier = notifier_for(api)
    assert await notifier.send_error(Unprintable(), "engine") is False
    assert await notifier.send_signal(None) is False  # type: ignore[arg-type]
    assert await notifier.send("") is False
    assert notifier.failed_count == 2
    await notifier.close()


async def test_an_error_may_be_posted_from_another_thread(api: FakeBotApi) -> None:
    notifier = notifier_for(api)
    notifier.start()
    thread = threading.Thread(target=notifier.post_error, args=("disk full", "collector"))
    thread.start()
    assert "disk full" in (await api.wait_for_messages(1))[0].text
    thread.join()
    await notifier.close()


def test_posting_before_any_loop_waits_in_the_queue() -> None:
    notifier = TelegramNotifier("1:a", "42")
    assert notifier.post_error("early", "s")
    assert notifier.queue_depth == 1


PIECES = st.sampled_from(
    ["<b>", "</b>", "<i>", "</i>", '<a href="x">', "</a>", "&amp;", "&lt;", "\n", " ", "<", "&", "word", "😀", "x" * 50]
)


@given(st.lists(PIECES, max_size=80), st.integers(60, 200))
def test_no_part_is_too_long_and_none_cuts_a_tag_or_an_entity(pieces: list[str], length_max: int) -> None:
    message = "".join(pieces)
    parts = split_message(message, "HTML", length_max)
    assert all(0 < units(part) <= length_max for part in parts)
    squeezed = re.sub(r"\s", "", plain_text(message))
    assert re.sub(r"\s", "", "".join(plain_text(part) for part in parts)) == squeezed


@given(st.text(max_size=500), st.integers(10, 100))
def test_plain_text_is_split_without_loss(message: str, length_max: int) -> None:
    parts = split_message(message, None, length_max)
    assert all(units(part) <= length_max for part in parts)
    assert re.sub(r"\s", "", "".join(parts)) == re.sub(r"\s", "", message)


def test_a_tag_open_at_the_border_is_closed_and_opened_again() -> None:
    parts = split_message("<pre>" + "\n".join(["line of text"] * 10) + "</pre>", "HTML", 60)
    assert len(parts) > 1
    assert all(part.startswith("<pre>") and part.endswith("</pre>") for part in parts)


def test_lines_stay_whole_where_they_fit() -> None:
    lines = [f"line {number} " + "x" * 20 for number in range(20)]
    parts = split_message("\n".join(lines), "HTML", 100)
    assert [line for part in parts for line in part.split("\n")] == lines

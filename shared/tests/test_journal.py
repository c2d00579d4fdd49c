"""From a candle to its fill there is one id, and every record of the path bears it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import structlog

from shared.domain.effects import IGNORED, REFUSED, Closed, Declined, Filled, Placed
from shared.events import correlation_of
from shared.journal import note_candles, note_effects, note_signals
from shared.logging import LogOptions, setup_logging
from shared.models import Candle, Fill, Order, OrderSide, OrderStatus, Signal
from shared.testing.builders import BTC, START

CANDLE = Candle(symbol=BTC, timeframe="5m", open_time=START, open=1, high=2, low=1, close=2, volume=1)  # type: ignore[arg-type]
SIGNAL = Signal(
    strategy="rsi", symbol=BTC, side=OrderSide.BUY, price=2, quantity=1, timeframe="5m",  # type: ignore[arg-type]
    candle_open_time=START, created_at=CANDLE.close_time,
)  # fmt: skip
ORDER = Order(
    symbol=BTC, side=OrderSide.BUY, price=2, quantity=1, signal_id=SIGNAL.id, strategy="rsi", timeframe="5m",  # type: ignore[arg-type]
    created_at=CANDLE.close_time,
)  # fmt: skip
FILL = Fill(
    id="f", order_id=ORDER.id, symbol=BTC, side=OrderSide.BUY, price=2, quantity=1, fee=0, fee_asset="USDT",  # type: ignore[arg-type]
    fee_quote=0, traded_at=CANDLE.close_time + timedelta(hours=3), as_of=CANDLE.close_time + timedelta(hours=4),  # type: ignore[arg-type]
)  # fmt: skip


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def records(said: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.getvalue().splitlines()]


def test_every_step_of_the_path_bears_the_candles_id(said: io.StringIO) -> None:
    log = setup_logging("service", "DEBUG", options=LogOptions(stream=said))
    filled = msgspec.structs.replace(ORDER, status=OrderStatus.FILLED)
    note_candles(log, "candle.stored", [CANDLE])
    note_signals(log, [SIGNAL])
    note_effects(log, [Placed(ORDER, SIGNAL), Filled(filled, FILL, Decimal(0), Decimal(0)), Closed(ORDER)])
    note_effects(
        log, [Declined(SIGNAL, REFUSED, "exposure", "", START), Declined(SIGNAL, IGNORED, "already_in", "", START)]
    )
    found = records(said)
    events = ["candle.stored", "signal.stored", "order.placed", "order.filled", "order.closed"]
    assert [each["event"] for each in found] == [*events, "signal.refused", "signal.ignored"]
    assert (
        {each["correlation_id"] for each in found} == {"candles.BTC_USDT.5m:1709510400000"} == {correlation_of(CANDLE)}
    )


def test_a_stop_without_a_signal_belongs_to_the_candle_at_whose_close_it_was_made() -> None:
    stop = msgspec.structs.replace(ORDER, signal_id=None, purpose="stop_loss")
    assert correlation_of(stop) == correlation_of(CANDLE)


def test_ignored_signals_and_candles_are_told_at_debug_only(said: io.StringIO) -> None:
    log = setup_logging("service", "INFO", options=LogOptions(stream=said))
    note_candles(log, "candle.stored", [CANDLE])
    note_effects(log, [Declined(SIGNAL, IGNORED, "already_in", "", START)])
    assert records(said) == []

"""Plain candles, signals, fills and books for tests: no cost, no limit, no stop unless asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec

from shared.clock import derived_id
from shared.domain.book import Book, BookRules, InstanceRules
from shared.domain.effects import Effect
from shared.domain.fees import FeeSchedule
from shared.domain.matching import signal_age_max
from shared.domain.paper import PaperVenue
from shared.domain.rounding import Instrument
from shared.models import TIMEFRAME_DELTA, Candle, Fill, InstanceKey, OrderSide, Signal

START = datetime(2024, 3, 4, tzinfo=UTC)
BTC = "BTC/USDT"
ETH = "ETH/USDT"
ALPHA = InstanceKey("alpha", BTC, "1m")
BETA = InstanceKey("beta", BTC, "1m")
FREE_OF_COST = BookRules(fees=FeeSchedule(maker=Decimal(0), taker=Decimal(0)), slippage_bps=Decimal(0))

Number = Decimal | int | float | str


def candle(
    number: int,
    open: Number = 100,
    close: Number | None = None,
    *,
    high: Number | None = None,
    low: Number | None = None,
    symbol: str = BTC,
    timeframe: str = "1m",
) -> Candle:
    """Return candle `number` after START; close is the open, high and low hug both unless given."""
    first, last = Decimal(str(open)), Decimal(str(open if close is None else close))
    return Candle(
        symbol=symbol,
        timeframe=timeframe,
        open_time=START + number * TIMEFRAME_DELTA[timeframe],
        open=first,
        high=max(first, last) if high is None else Decimal(str(high)),
        low=min(first, last) if low is None else Decimal(str(low)),
        close=last,
        volume=Decimal(1),
    )


def signal(
    side: str, number: int, price: Number = 100, quantity: Number = 1, *, instance: InstanceKey = ALPHA
) -> Signal:
    """Return the signal of an instance at the close of its candle `number`."""
    open_time = START + number * TIMEFRAME_DELTA[instance.timeframe]
    return Signal(
        id=derived_id("signal", *instance, open_time.isoformat(), side),
        strategy=instance.strategy,
        symbol=instance.symbol,
        timeframe=instance.timeframe,
        side=OrderSide(side),
        price=Decimal(str(price)),
        quantity=Decimal(str(quantity)),
        reason="test",
        created_at=open_time + TIMEFRAME_DELTA[instance.timeframe],
        candle_open_time=open_time,
    )


def fill(
    side: str,
    quantity: Number,
    price: Number = 100,
    *,
    fee: Number = 0,
    fee_asset: str = "USDT",
    fee_quote: Number | None = None,
    sequence: int = 1,
    instance: InstanceKey = ALPHA,
) -> Fill:
    """Return fill `sequence` of an instance; a fee is in quote unless its asset is given."""
    moment = START + timedelta(minutes=sequence)
    return Fill(
        id=derived_id("fill", *instance, sequence),
        order_id=derived_id("order", *instance, sequence),
        symbol=instance.symbol,
        side=OrderSide(side),
        price=Decimal(str(price)),
        quantity=Decimal(str(quantity)),
        fee=Decimal(str(fee)),
        fee_asset=fee_asset,
        fee_quote=Decimal(str(fee if fee_quote is None else fee_quote)),
        traded_at=moment,
        as_of=moment,
        sequence=sequence,
        strategy=instance.strategy,
        timeframe=instance.timeframe,
    )


def instance_rules(instance: InstanceKey = ALPHA, **changes: object) -> InstanceRules:
    """Return the rules of an instance on a free instrument: fixed sizing, one entry, no exits."""
    plain = InstanceRules(instrument=Instrument(symbol=instance.symbol), age_max=signal_age_max(instance.timeframe))
    return msgspec.structs.replace(plain, **changes)


def book(
    instances: Mapping[InstanceKey, InstanceRules] | None = None,
    *,
    rules: BookRules = FREE_OF_COST,
    cash: Number = 10_000,
) -> Book:
    """Return a book in which every instance has `cash` of its own; by default one, ALPHA."""
    owners = {ALPHA: instance_rules()} if instances is None else instances
    allocation = Decimal(str(cash))
    made = Book(rules, allocation * len(owners))
    for key, own in owners.items():
        made.open_account(key, own, allocation)
    return made


def play(venue: PaperVenue, candles: Iterable[Candle], signals: Sequence[Signal] = ()) -> list[Effect]:
    """Return the effects of handling candles, and the signals made at their closes, close time by close time."""
    by_close: dict[datetime, list[Candle]] = {}
    for one in candles:
        by_close.setdefault(one.close_time, []).append(one)
    effects: list[Effect] = []
    for as_of in sorted(by_close):
        effects += venue.advance(as_of, by_close[as_of], [made for made in signals if made.created_at == as_of])
    return effects

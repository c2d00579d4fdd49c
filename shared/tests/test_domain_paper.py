from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.domain.book import Book, BookRules, InstanceRules
from shared.domain.effects import Closed, Declined, Effect, Filled, Placed, StateChanged
from shared.domain.fees import FeeAsset, FeeSchedule
from shared.domain.paper import PaperVenue
from shared.domain.restore import BookRecord, InstanceRecord, restore_book
from shared.domain.risk import ControlState, Limits
from shared.domain.rounding import Instrument
from shared.domain.sizing import parse_sizing
from shared.models import TIMEFRAME_DELTA, Candle, Fill, InstanceKey, Order, OrderSide, Signal
from shared.testing.builders import ALPHA, BETA, BTC, ETH, START, book, candle, instance_rules, play, signal

pytestmark = pytest.mark.thorough

D = Decimal
MINUTE = timedelta(minutes=1)
GAMMA = InstanceKey("gamma", ETH, "1m")
SLOW = InstanceKey("alpha", BTC, "5m")
BNB = InstanceKey("delta", "BNB/USDT", "1m")
TICKED = Instrument(symbol=BTC, tick_size=D("0.01"), step_size=D("0.0001"), notional_min=D(5))
INSTANCES: dict[InstanceKey, InstanceRules] = {
    ALPHA: instance_rules(
        sizing=parse_sizing("equity_fraction:0.4"), stop_loss_pct=D(3), trailing_pct=D(6), stop_cooldown_candles=2
    ),
    BETA: instance_rules(BETA, max_entries=3, take_profit_pct=D(4), stop_loss_pct=D(8), instrument=TICKED),
    GAMMA: instance_rules(GAMMA, max_entries=0, sizing=parse_sizing("quote:150")),
    SLOW: instance_rules(SLOW, sizing=parse_sizing("risk:2"), stop_loss_pct=D(5)),
    BNB: instance_rules(BNB, max_entries=2, sizing=parse_sizing("equity_fraction:0.9")),
}
COSTS = BookRules(fees=FeeSchedule(asset=FeeAsset.BNB), slippage_bps=D(5))
LIMITS = Limits(
    position_size_max=D("0.25"),
    gross_exposure_max=D("0.6"),
    daily_loss_pct_max=D(1),
    drawdown_pct_max=D(4),
    order_rate_max=2,
    notional_per_hour_max=D(2500),
)
FIRST = 1430  # ten minutes before midnight: a day turns within every run


def calm(examples: int) -> settings:
    """Return settings that ask nothing of the machine's speed."""
    return settings(deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow])


class Market(NamedTuple):
    candles: list[Candle]
    signals: list[Signal]


def make_candle(number: int, shape: int, stream: tuple[str, str]) -> Candle | None:
    """Return a candle whose prices are read off one integer, or None for a hole of one in eight."""
    if shape % 8 == 7:
        return None
    open_, close = 85 + shape // 8 % 31, 85 + shape // 256 % 31
    above, below = shape // 8192 % 8, shape // 65536 % 8
    symbol, timeframe = stream
    return candle(
        number,
        open_,
        close,
        high=max(open_, close) + above,
        low=min(open_, close) - below,
        symbol=symbol,
        timeframe=timeframe,
    )


@st.composite
def markets(draw: st.DrawFn, owners: Sequence[InstanceKey] = tuple(INSTANCES)) -> Market:
    """Return candles of every stream with gaps, and at each close a BUY, a SELL or nothing of each instance."""
    minutes = draw(st.integers(6, 25))
    candles: list[Candle] = []
    for stream in sorted({(key.symbol, key.timeframe) for key in owners}):
        width = TIMEFRAME_DELTA[stream[1]] // MINUTE
        shapes = draw(st.lists(st.integers(0, 2**19 - 1), min_size=minutes // width, max_size=minutes // width))
        made = [make_candle(FIRST // width + n, shape, stream) for n, shape in enumerate(shapes)]
        candles += [one for one in made if one is not None]
    signals: list[Signal] = []
    for key in owners:
        own = [one for one in candles if (one.symbol, one.timeframe) == (key.symbol, key.timeframe)]
        for one, choice in zip(
            own, draw(st.lists(st.integers(0, 3), min_size=len(own), max_size=len(own))), strict=True
        ):
            if choice:
                number = (one.open_time - START) // TIMEFRAME_DELTA[key.timeframe]
                side = "SELL" if choice == 3 else "BUY"
                signals.append(signal(side, number, one.close, D(choice) / 3, instance=key))
    return Market(candles, signals)


def costs(fee: FeeAsset = FeeAsset.BNB, limits: Limits | None = None) -> BookRules:
    return msgspec.structs.replace(COSTS, fees=FeeSchedule(asset=fee), limits=limits)


def venue_of(
    owners: Sequence[InstanceKey] = tuple(INSTANCES), rules: BookRules | None = None, cash: int = 1000
) -> PaperVenue:
    return PaperVenue(book({key: INSTANCES[key] for key in owners}, rules=rules or costs(), cash=cash))


def summary(one: Book) -> dict[InstanceKey, tuple[object, ...]]:
    return {
        key: (account.cash, account.holding, account.working, account.high_water_price, account.cooldown_until)
        for key, account in one.accounts.items()
    }


def owner(effect: Effect) -> InstanceKey | None:
    if isinstance(effect, StateChanged):
        return None
    return effect.signal.instance if isinstance(effect, Declined) else effect.order.instance


def bare(fill: Fill) -> Fill:
    """Return the fill without its place among other instances' and without the BNB it was paid in."""
    if fill.fee_asset == "BNB":
        fill = msgspec.structs.replace(fill, fee=fill.fee_quote, fee_asset="USDT")
    return msgspec.structs.replace(fill, sequence=0)


def stripped(effect: Effect) -> Effect:
    return msgspec.structs.replace(effect, fill=bare(effect.fill)) if isinstance(effect, Filled) else effect


# --- the order of business


def test_a_close_time_is_fills_then_stops_then_marks_then_signals() -> None:
    limits = msgspec.structs.replace(LIMITS, order_rate_max=0)
    rules = BookRules(fees=FeeSchedule(taker=D(0)), slippage_bps=D(0), limits=limits)
    owners = {ALPHA: instance_rules(stop_loss_pct=D(5), max_entries=9), GAMMA: instance_rules(GAMMA)}
    venue = PaperVenue(book(owners, rules=rules, cash=500))
    eth = [candle(n, 50, symbol=ETH) for n in range(3)]
    play(venue, [candle(0), *eth[:2], candle(1)], [signal("BUY", 0, quantity=2)])
    play(venue, [candle(2), eth[2]], [signal("BUY", 2, 50, 2, instance=GAMMA)])
    last = [candle(3, 100, 90), candle(3, 50, symbol=ETH)]
    asked = [signal("BUY", 3, 90), signal("SELL", 3, 50, instance=GAMMA)]
    effects = play(venue, last, asked)
    assert [(type(effect), owner(effect)) for effect in effects] == [
        (Filled, GAMMA),  # 1 what waited for this open, though ETH comes after BTC
        (Placed, ALPHA),  # 2 the stop
        (Filled, ALPHA),
        (StateChanged, None),  # 3 the mark: 10 of 1,000 lost
        (Placed, GAMMA),  # 4 SELL before BUY
        (Declined, ALPHA),
    ]


def test_signals_go_sell_before_buy_then_symbol_timeframe_strategy() -> None:
    keys = [InstanceKey(name, symbol, frame) for name in "ba" for symbol in (ETH, BTC) for frame in ("5m", "1m")]
    venue = PaperVenue(book({key: instance_rules(key) for key in keys}))
    as_of = START + 5 * MINUTE
    signals = [msgspec.structs.replace(signal("BUY", 0, instance=key), created_at=as_of) for key in keys]
    signals += [msgspec.structs.replace(one, side=OrderSide.SELL) for one in signals]
    effects = venue.advance(as_of, [], signals)
    spoken = [effect.signal for effect in effects if isinstance(effect, Declined | Placed) and effect.signal]
    expected = [(side, *key) for side in ("SELL", "BUY") for key in sorted(key.business_order for key in keys)]
    assert [(one.side, one.symbol, one.timeframe, one.strategy) for one in spoken] == expected


def test_the_order_in_which_candles_and_signals_arrive_means_nothing() -> None:
    candles = [candle(n, 100 + n, symbol=symbol) for n in range(6) for symbol in (BTC, ETH)]
    signals = [signal("BUY" if n % 2 else "SELL", n, 100 + n, instance=key) for n in range(6) for key in (GAMMA, ALPHA)]
    first = play(venue_of(), candles, signals)
    assert first == play(venue_of(), candles[::-1], signals[::-1])
    assert any(isinstance(effect, Filled) for effect in first)


# --- one of ten streams is silent


def test_one_silent_stream_of_ten_stops_only_itself() -> None:
    keys = [InstanceKey("alpha", f"C{n}/USDT", "1m") for n in range(10)]
    rules = BookRules(limits=msgspec.structs.replace(LIMITS, notional_per_hour_max=D(0), order_rate_max=0))
    venue = PaperVenue(book({key: instance_rules(key) for key in keys}, rules=rules))
    play(venue, [candle(0, symbol=key.symbol) for key in keys], [signal("BUY", 0, instance=key) for key in keys])
    silent, *others = keys
    for number in range(1, 50):
        side = "SELL" if number % 2 else "BUY"
        effects = play(
            venue,
            [candle(number, symbol=key.symbol) for key in others],
            [signal(side, number, instance=key) for key in others],
        )
        assert sum(isinstance(effect, Filled) for effect in effects) == 9
    assert len(venue.book.accounts[silent].working) == 1


def test_a_held_symbol_that_falls_silent_is_valued_at_its_last_close() -> None:
    venue = PaperVenue(book({ALPHA: instance_rules(), GAMMA: instance_rules(GAMMA)}))
    play(venue, [candle(0, symbol=ETH), candle(1, 100, 110, symbol=ETH)], [signal("BUY", 0, instance=GAMMA)])
    play(venue, [candle(n) for n in range(2, 100)])
    assert venue.book.equity() == 20_010


# --- the day's loss and the drawdown, through the venue


def test_a_days_loss_refuses_buys_until_midnight_and_never_a_sell() -> None:
    limits = msgspec.structs.replace(LIMITS, position_size_max=D(1), drawdown_pct_max=D(0), notional_per_hour_max=D(0))
    venue = PaperVenue(book({ALPHA: instance_rules(max_entries=5)}, rules=BookRules(limits=limits), cash=1000))
    play(venue, [candle(FIRST), candle(FIRST + 1)], [signal("BUY", FIRST, quantity=2)])
    (changed, refused) = play(venue, [candle(FIRST + 2, 90)], [signal("BUY", FIRST + 2, 90)])
    assert isinstance(changed, StateChanged)
    assert (changed.state, changed.reason) == ("REDUCE_ONLY", "daily_loss")
    assert isinstance(refused, Declined)
    assert refused.reason == "daily_loss"
    (refused,) = play(venue, [candle(1438, 99)], [signal("BUY", 1438, 99)])
    assert isinstance(refused, Declined)  # closes 23:59, the loss long made good
    changed, placed = play(venue, [candle(1439, 99)], [signal("BUY", 1439, 99)])
    assert isinstance(changed, StateChanged)
    assert (changed.state, changed.reason) == ("ACTIVE", "")
    assert isinstance(placed, Placed)  # closes 00:00: the new day
    assert venue.book.figures.day_base == venue.book.equity()


# --- laws


@calm(40)
@given(markets(), st.booleans())
def test_the_same_run_twice_is_the_same_in_every_id_and_digit(market: Market, limited: bool) -> None:
    runs = [venue_of(rules=costs(limits=LIMITS if limited else None)) for _ in range(2)]
    first, second = (play(venue, *market) for venue in runs)
    assert first == second
    assert summary(runs[0].book) == summary(runs[1].book)


@calm(50)
@given(markets(), st.sampled_from(FeeAsset))
def test_together_each_instance_does_exactly_what_it_does_alone(market: Market, fee: FeeAsset) -> None:
    together = venue_of(rules=costs(fee))
    effects = play(together, *market)
    for key in INSTANCES:
        alone = venue_of([key], costs(fee))
        candles = [one for one in market.candles if (one.symbol, one.timeframe) == (key.symbol, key.timeframe)]
        own = play(alone, candles, [one for one in market.signals if one.instance == key])
        assert [stripped(effect) for effect in effects if owner(effect) == key] == [stripped(effect) for effect in own]
        assert summary(together.book)[key] == summary(alone.book)[key]
        assert alone.book.cash == alone.book.accounts[key].cash


def play_live(venue: PaperVenue, market: Market) -> list[Effect]:
    """Return the effects of a live feed: the first frame of each candle is heard before its close."""
    effects: list[Effect] = []
    closes = {one.close_time for one in market.candles}
    for moment in sorted(closes | {one.open_time for one in market.candles}):
        if moment in closes:
            closing = [one for one in market.candles if one.close_time == moment]
            effects += venue.advance(moment, closing, [one for one in market.signals if one.created_at == moment])
        for one in sorted(market.candles, key=lambda one: (one.symbol, one.timeframe)):
            if one.open_time == moment:
                effects += venue.open_candle(one.symbol, one.timeframe, one.open_time, one.open)
    return effects


@calm(40)
@given(markets(), st.booleans())
def test_an_open_heard_early_fills_as_the_closed_candle_does(market: Market, limited: bool) -> None:
    if limited:  # account limits look at all instances at one time, so candles of one length only
        owners = [key for key in INSTANCES if key.timeframe == "1m"]
        market = Market(
            [one for one in market.candles if one.timeframe == "1m"],
            [one for one in market.signals if one.timeframe == "1m"],
        )
    else:
        owners = list(INSTANCES)
    closed, live = (venue_of(owners, costs(limits=LIMITS if limited else None)) for _ in range(2))
    by_close = [effect.fill for effect in play(closed, *market) if isinstance(effect, Filled)]
    by_open = [effect.fill for effect in play_live(live, market) if isinstance(effect, Filled)]
    for fills in (by_close, by_open):
        fills.sort(key=lambda made: (made.instance, made.sequence))
    same_time = [msgspec.structs.replace(bare(made), as_of=made.traded_at) for made in by_close]
    assert same_time == [msgspec.structs.replace(bare(made), as_of=made.traded_at) for made in by_open]
    assert summary(closed.book) == summary(live.book)
    assert closed.book.cash == live.book.cash


@calm(40)
@given(markets())
def test_no_instance_ever_spends_or_sells_what_it_does_not_have(market: Market) -> None:
    venue = venue_of(cash=300)
    for effect in play(venue, *market):
        assert all(account.cash >= 0 and account.holding.quantity >= 0 for account in venue.book.accounts.values())
        if isinstance(effect, Closed):
            assert effect.order.filled_quantity == 0
    for symbol in (BTC, ETH, "BNB/USDT"):
        own = [account.holding.quantity for key, account in venue.book.accounts.items() if key.symbol == symbol]
        assert venue.book.held(symbol) == sum(own, D(0))


# --- a restart


def record_of(venue: PaperVenue, effects: Sequence[Effect]) -> BookRecord:
    """Return what a shell has stored by now, from effects and from the figures it writes beside them."""
    orders: dict[str, Order] = {}
    fills: list[Fill] = []
    for effect in effects:
        if isinstance(effect, Placed | Filled | Closed):
            orders[effect.order.id] = effect.order
        if isinstance(effect, Filled):
            fills.append(effect.fill)
    one = venue.book
    return BookRecord(
        balance=one.initial_balance,
        instances={
            key: InstanceRecord(
                rules=account.rules,
                allocation=D(1000),
                high_water_price=account.high_water_price,
                cooldown_until=account.cooldown_until,
                is_orphan=account.is_orphan,
            )
            for key, account in one.accounts.items()
        },
        fills=fills,
        orders=list(orders.values()),
        marks=dict(one.marks),
        figures=one.figures,
        control=one.control,
    )


@calm(80)
@given(markets(), st.booleans(), st.integers(0, 25), st.sampled_from(FeeAsset))
def test_a_run_cut_at_any_close_time_goes_on_as_if_it_had_never_stopped(
    market: Market, limited: bool, minutes: int, fee: FeeAsset
) -> None:
    rules = costs(fee, LIMITS if limited else None)
    cut = START + (FIRST + minutes) * MINUTE
    before = [one for one in market.candles if one.close_time <= cut]
    after = [one for one in market.candles if one.close_time > cut]
    whole = venue_of(rules=rules)
    record = record_of(whole, play(whole, before, market.signals))
    rest = play(whole, after, market.signals)
    again = PaperVenue(restore_book(rules, record))
    assert play(again, after, market.signals) == rest
    assert summary(again.book) == summary(whole.book)
    assert (again.book.cash, again.book.figures) == (whole.book.cash, whole.book.figures)
    assert (again.book.marks, again.book.sequence) == (whole.book.marks, whole.book.sequence)


def test_a_restored_book_has_cash_holding_and_what_waits() -> None:
    venue = PaperVenue(book(cash=1000))
    effects = play(
        venue, [candle(0), candle(1), candle(2)], [signal("BUY", 0, quantity=2), signal("SELL", 2, quantity=2)]
    )
    again = restore_book(COSTS, record_of(venue, effects))
    account = again.accounts[ALPHA]
    assert (account.cash, again.cash, account.holding.quantity) == (800, 800, 2)
    assert [order.side for order in account.working] == [OrderSide.SELL]


def test_a_restored_book_remembers_the_orders_of_the_last_hour_that_ended_already() -> None:
    limits = msgspec.structs.replace(LIMITS, position_size_max=D(1), order_rate_max=0, notional_per_hour_max=D(150))
    rules = msgspec.structs.replace(COSTS, limits=limits)
    venue = PaperVenue(book(rules=rules, cash=1000))
    effects = play(venue, [candle(0), candle(1)], [signal("BUY", 0)])
    effects += play(venue, [candle(2), candle(3)], [signal("SELL", 2)])
    again = PaperVenue(restore_book(rules, record_of(venue, effects)))
    (refused,) = play(again, [candle(4)], [signal("BUY", 4)])
    assert isinstance(refused, Declined)
    assert refused.reason == "notional_rate"


def test_a_restored_kill_switch_and_drawdown_still_hold() -> None:
    venue = venue_of(rules=costs(limits=LIMITS))
    drawn = msgspec.structs.replace(venue.book.figures, state=ControlState.REDUCE_ONLY, state_reason="drawdown")
    record = msgspec.structs.replace(record_of(venue, []), figures=drawn)
    again = PaperVenue(restore_book(COSTS, record))
    (refused,) = play(again, [candle(0)], [signal("BUY", 0)])
    assert isinstance(refused, Declined)
    assert refused.reason == "drawdown"
    halted = PaperVenue(restore_book(COSTS, msgspec.structs.replace(record, control=ControlState.HALT)))
    (refused,) = play(halted, [candle(0)], [signal("BUY", 0)])
    assert isinstance(refused, Declined)
    assert refused.reason == "halted"


@pytest.mark.parametrize("missing", ["fill", "order"])
def test_a_record_that_belongs_to_nobody_is_a_broken_invariant(missing: str) -> None:
    venue = PaperVenue(book(cash=1000))
    effects = play(venue, [candle(0), candle(1)] if missing == "fill" else [candle(0)], [signal("BUY", 0)])
    record = msgspec.structs.replace(record_of(venue, effects), instances={})
    with pytest.raises(AssertionError, match=f"{missing} .* no sub-account"):
        restore_book(COSTS, record)

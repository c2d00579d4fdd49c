from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from shared.domain.book import BookRules
from shared.domain.effects import Closed, Declined, Effect, Filled, Placed
from shared.domain.fees import FeeAsset, FeeSchedule
from shared.domain.paper import PaperVenue
from shared.domain.risk import ControlState, Limits
from shared.domain.rounding import Instrument
from shared.models import InstanceKey, OrderStatus
from shared.testing.builders import (
    ALPHA,
    BETA,
    BTC,
    ETH,
    FREE_OF_COST,
    START,
    book,
    candle,
    instance_rules,
    play,
    signal,
)

D = Decimal
OTHER = InstanceKey("gamma", ETH, "1m")
ROOMY = Limits(
    position_size_max=D(1), gross_exposure_max=D(0), daily_loss_pct_max=D(0), drawdown_pct_max=D(0), order_rate_max=0
)


def with_limits(**limits: object) -> BookRules:
    return msgspec.structs.replace(FREE_OF_COST, limits=msgspec.structs.replace(ROOMY, **limits))


def trader(max_entries: int = 1, **rules: object) -> PaperVenue:
    return PaperVenue(book({ALPHA: instance_rules(max_entries=max_entries, **rules)}))


def buy_at(venue: PaperVenue, *numbers: int, quantity: int = 1) -> None:
    """Buy at the closes of those candles; each fills at the open of the next."""
    for number in numbers:
        play(venue, [candle(number), candle(number + 1)], [signal("BUY", number, quantity=quantity)])


def answer(venue: PaperVenue, number: int, side: str, price: int = 100, quantity: int = 1) -> Effect:
    (effect,) = play(venue, [candle(number, price)], [signal(side, number, price, quantity)])
    return effect


def declined(effect: Effect) -> tuple[str, str]:
    assert isinstance(effect, Declined), effect
    return effect.outcome, effect.reason


# --- entries


@pytest.mark.parametrize("max_entries", [1, 2, 3])
def test_a_buy_above_max_entries_is_ignored_as_already_in(max_entries: int) -> None:
    venue = trader(max_entries)
    buy_at(venue, *range(0, 2 * max_entries, 2))
    assert len(venue.book.accounts[ALPHA].holding.entries) == max_entries
    assert declined(answer(venue, 50, "BUY")) == ("ignored", "already_in")


def test_a_waiting_buy_counts_as_an_entry() -> None:
    venue = trader()
    play(venue, [candle(0)], [signal("BUY", 0)])
    assert declined(venue.book.decide(signal("BUY", 1), START + timedelta(minutes=1))) == ("ignored", "already_in")


def test_entries_without_a_maximum_go_on() -> None:
    venue = trader(0)
    buy_at(venue, *range(0, 40, 2))
    assert len(venue.book.accounts[ALPHA].holding.entries) == 20


@pytest.mark.parametrize(
    ("max_entries", "sold", "left"),
    [(3, 3, (1, 2)), (0, 1, (1, 2, 2)), (4, 3, (1, 2))],
)
def test_a_sell_closes_the_newest_entry_or_its_own_quantity(max_entries: int, sold: int, left: tuple[int, ...]) -> None:
    venue = trader(max_entries)
    for number, quantity in ((0, 1), (2, 2), (4, 3)):
        buy_at(venue, number, quantity=quantity)
    placed = answer(venue, 10, "SELL")
    assert isinstance(placed, Placed)
    assert placed.order.quantity == sold
    play(venue, [candle(11)])
    assert venue.book.accounts[ALPHA].holding.entries == left


def test_a_sell_closes_the_whole_position_when_one_entry_is_allowed() -> None:
    venue = trader()
    buy_at(venue, 0, quantity=7)
    placed = answer(venue, 10, "SELL", quantity=1)
    assert isinstance(placed, Placed)
    assert placed.order.quantity == 7


def test_a_sell_is_cut_to_what_is_held_less_working_sells() -> None:
    venue = trader(0)
    buy_at(venue, 0, quantity=5)
    first = venue.book.decide(signal("SELL", 5, quantity=3), START + timedelta(minutes=6))
    second = venue.book.decide(signal("SELL", 6, quantity=3), START + timedelta(minutes=7))
    third = venue.book.decide(signal("SELL", 7, quantity=3), START + timedelta(minutes=8))
    assert isinstance(first, Placed)
    assert isinstance(second, Placed)
    assert (first.order.quantity, second.order.quantity) == (3, 2)
    assert declined(third) == ("ignored", "nothing_held")
    play(venue, [candle(9)])
    assert venue.book.accounts[ALPHA].holding.quantity == 0


def test_a_sell_with_nothing_held_is_ignored() -> None:
    assert declined(answer(trader(), 0, "SELL")) == ("ignored", "nothing_held")


def test_another_strategys_position_is_not_mine_to_sell() -> None:
    venue = PaperVenue(book({ALPHA: instance_rules(), BETA: instance_rules()}))
    buy_at(venue, 0)
    (effect,) = play(venue, [candle(5)], [signal("SELL", 5, instance=BETA)])
    assert declined(effect) == ("ignored", "nothing_held")
    assert venue.book.held(BTC) == 1


def test_what_a_received_fee_leaves_over_is_dust_and_blocks_no_new_entry() -> None:
    rules = BookRules(fees=FeeSchedule(asset=FeeAsset.RECEIVED), slippage_bps=D(0))
    instrument = Instrument(symbol=BTC, step_size=D("0.01"), notional_min=D(5))
    venue = PaperVenue(book({ALPHA: instance_rules(instrument=instrument)}, rules=rules))
    buy_at(venue, 0)
    placed = answer(venue, 5, "SELL")
    assert isinstance(placed, Placed)
    assert placed.order.quantity == D("0.99")  # of 0.999
    play(venue, [candle(6)])
    account = venue.book.accounts[ALPHA]
    assert (account.holding.quantity, account.holding.entries) == (D("0.009"), ())
    assert declined(answer(venue, 7, "SELL")) == ("ignored", "nothing_held")
    buy_at(venue, 8)
    assert account.holding.quantity == D("1.008")
    assert account.holding.entries == (D("0.999"),)
    placed = answer(venue, 20, "SELL")
    assert isinstance(placed, Placed)
    assert placed.order.quantity == D("1.00")


def test_an_entry_that_fell_below_the_minimum_notional_cannot_be_sold_and_says_dust() -> None:
    venue = trader(instrument=Instrument(symbol=BTC, notional_min=D(50)))
    buy_at(venue, 0)
    assert declined(answer(venue, 5, "SELL", price=49)) == ("refused", "dust")


def test_a_signal_of_an_unknown_instance_is_refused() -> None:
    assert declined(trader().book.decide(signal("BUY", 0, instance=BETA), START)) == ("refused", "no_account")


def test_a_holding_a_hair_below_the_step_is_not_oversold() -> None:
    rules = BookRules(fees=FeeSchedule(taker=D("0.00000000000001"), asset=FeeAsset.RECEIVED), slippage_bps=D(0))
    coarse = Instrument(symbol=BTC, step_size=D(1))
    venue = PaperVenue(book({ALPHA: instance_rules(instrument=coarse, stop_loss_pct=D(5))}, rules=rules))
    buy_at(venue, 0, quantity=2)
    effects = play(venue, [candle(5, 90)])
    assert [effect.fill.quantity for effect in effects if isinstance(effect, Filled)] == [1]


# --- cool-down and expiry


@pytest.mark.parametrize(("candles", "first_allowed"), [(0, 2), (1, 3), (3, 5)])
def test_after_a_stop_entries_wait_their_cooldown_candles(candles: int, first_allowed: int) -> None:
    venue = trader(stop_loss_pct=D(5), stop_cooldown_candles=candles)
    buy_at(venue, 0)
    allowed = []
    for number in range(2, 8):
        effects = play(venue, [candle(number, 90)], [signal("BUY", number, 90)])
        last = effects[-1]
        if isinstance(last, Placed):
            allowed.append(number)
            break
        assert declined(last) == ("refused", "stop_cooldown")
    assert allowed == [first_allowed]


def test_the_cooldown_needs_no_candle_time_in_the_signal() -> None:
    venue = trader(stop_loss_pct=D(5))
    buy_at(venue, 0)
    bare = msgspec.structs.replace(signal("BUY", 2, 90), candle_open_time=None)
    assert declined(play(venue, [candle(2, 90)], [bare])[-1]) == ("refused", "stop_cooldown")


def test_an_expired_buy_is_refused_and_an_expired_sell_is_not() -> None:
    venue = trader(2)
    buy_at(venue, 0)
    late = START + timedelta(hours=1)
    buy, sell = (
        msgspec.structs.replace(signal(side, 5), expires_at=START + timedelta(minutes=11)) for side in ("BUY", "SELL")
    )
    assert declined(venue.book.decide(buy, late)) == ("refused", "expired")
    assert isinstance(venue.book.decide(sell, late), Placed)
    assert isinstance(venue.book.decide(buy, START + timedelta(minutes=11)), Placed)


# --- limits through the book


@pytest.mark.parametrize(("other", "reason"), [(4, None), (5, "position_size")])
def test_the_symbol_cap_counts_all_strategies_and_what_they_wait_for(other: int, reason: str | None) -> None:
    both = {ALPHA: instance_rules(), BETA: instance_rules(), OTHER: instance_rules(OTHER)}
    venue = PaperVenue(book(both, rules=with_limits(position_size_max=D("0.2")), cash=1000))  # 600 of 3,000
    play(venue, [candle(0), candle(1)], [signal("BUY", 0)])  # held: 1
    waiting = signal("BUY", 2, quantity=other, instance=BETA)  # beta sorts after alpha: it is asked second
    again = msgspec.structs.replace(venue.book.accounts[ALPHA].rules, max_entries=2)
    venue.book.accounts[ALPHA].rules = again
    first, second = play(venue, [candle(2)], [signal("BUY", 2), waiting])
    assert isinstance(first, Placed)
    assert (None if isinstance(second, Placed) else declined(second)[1]) == reason


def test_gross_exposure_counts_every_symbol_at_its_mark() -> None:
    both = {ALPHA: instance_rules(), OTHER: instance_rules(OTHER)}
    venue = PaperVenue(book(both, rules=with_limits(gross_exposure_max=D("0.5")), cash=1000))
    eth = [candle(n, 200, symbol=ETH) for n in range(2)]
    play(venue, [*eth, candle(0), candle(1)], [signal("BUY", 0, 200, 4, instance=OTHER)])  # 800 of 2,000
    assert isinstance(venue.book.decide(signal("BUY", 5, quantity=2), START + timedelta(minutes=6)), Placed)
    effect = venue.book.decide(signal("BUY", 6, quantity=1), START + timedelta(minutes=7))
    assert declined(effect) == ("ignored", "already_in")
    third = PaperVenue(book(both, rules=with_limits(gross_exposure_max=D("0.5")), cash=1000))
    play(third, [*eth, candle(0), candle(1)], [signal("BUY", 0, 200, 4, instance=OTHER)])
    effect = third.book.decide(signal("BUY", 5, quantity="2.01"), START + timedelta(minutes=6))
    assert declined(effect) == ("refused", "gross_exposure")


def test_order_rate_and_hourly_notional_count_increasing_orders_of_the_whole_account() -> None:
    many = {InstanceKey(f"s{n}", BTC, "1m"): instance_rules() for n in range(5)}
    rate = PaperVenue(book(many, rules=with_limits(order_rate_max=3)))
    effects = play(rate, [candle(0)], [signal("BUY", 0, instance=key) for key in many])
    assert [type(effect) for effect in effects] == [Placed, Placed, Placed, Declined, Declined]
    assert declined(effects[3]) == ("refused", "order_rate")
    notional = PaperVenue(book(many, rules=with_limits(notional_per_hour_max=D(250))))
    effects = play(notional, [candle(0)], [signal("BUY", 0, instance=key) for key in many])
    assert [type(effect) for effect in effects] == [Placed, Placed, Declined, Declined, Declined]
    assert declined(effects[2]) == ("refused", "notional_rate")
    later = play(notional, [candle(70)], [signal("BUY", 70, instance=key) for key in many])
    assert sum(isinstance(effect, Placed) for effect in later) == 2


def test_unknown_equity_refuses_new_risk_and_lets_the_exit_pass() -> None:
    both = {ALPHA: instance_rules(max_entries=2), OTHER: instance_rules(OTHER)}
    venue = PaperVenue(book(both, rules=with_limits()))
    buy_at(venue, 0)
    eth = candle(1, symbol=ETH)
    play(venue, [candle(0, symbol=ETH), eth], [signal("BUY", 0, instance=OTHER)])
    del venue.book.marks[ETH]
    assert venue.book.equity() is None
    assert declined(answer(venue, 5, "BUY")) == ("refused", "unknown_figure")
    assert isinstance(answer(venue, 6, "SELL"), Placed)


def test_the_signals_price_decides_the_symbol_cap() -> None:
    venue = PaperVenue(book(rules=with_limits(position_size_max=D("0.01"))))  # 100 of 10,000
    assert isinstance(answer(venue, 0, "BUY", price=100), Placed)
    venue = PaperVenue(book(rules=with_limits(position_size_max=D("0.01"))))
    assert declined(answer(venue, 0, "BUY", price=101)) == ("refused", "position_size")


# --- every limit at once, and the exit still goes out

TIGHT = Limits(
    position_size_max=D("1e-9"),
    gross_exposure_max=D("1e-9"),
    daily_loss_pct_max=D("1e-6"),
    drawdown_pct_max=D("1e-6"),
    order_rate_max=1,
    notional_per_hour_max=D("1e-9"),
)


def pressed(control: ControlState, **rules: object) -> PaperVenue:
    """Return a venue that holds 1 of alpha's and in which every limit is broken and equity unknown."""
    both = {ALPHA: instance_rules(max_entries=2, **rules), OTHER: instance_rules(OTHER)}
    venue = PaperVenue(book(both))
    eth = [candle(n, symbol=ETH) for n in range(2)]
    signals = [signal("BUY", 0), signal("BUY", 0, instance=OTHER)]
    play(venue, [candle(0), candle(1), *eth], signals)
    venue.book.rules = msgspec.structs.replace(FREE_OF_COST, limits=TIGHT)
    play(venue, [candle(2, 99)])
    assert venue.book.figures.state is ControlState.REDUCE_ONLY
    del venue.book.marks[ETH]
    venue.book.control = control
    return venue


@pytest.mark.parametrize("control", [ControlState.ACTIVE, ControlState.REDUCE_ONLY, ControlState.FLATTEN])
def test_with_every_limit_tripped_a_buy_is_refused_and_the_exit_goes_out(control: ControlState) -> None:
    venue = pressed(control)
    assert declined(answer(venue, 3, "BUY"))[0] == "refused"
    assert isinstance(answer(venue, 4, "SELL"), Placed)
    (filled,) = play(venue, [candle(500, 42)])
    assert isinstance(filled, Filled)
    assert filled.order.late
    assert venue.book.accounts[ALPHA].holding.quantity == 0


@pytest.mark.parametrize("control", list(ControlState))
@pytest.mark.parametrize(
    ("rules", "reason"), [({"stop_loss_pct": D(5)}, "stop_loss"), ({"trailing_pct": D(5)}, "trailing_stop")]
)
def test_with_every_limit_tripped_a_stop_still_sells_in_every_state(
    control: ControlState, rules: dict[str, object], reason: str
) -> None:
    venue = pressed(control, **rules)
    effects = play(venue, [candle(3, 90)])
    assert [effect.fill.reason for effect in effects if isinstance(effect, Filled)] == [reason]


def test_halt_holds_signals_of_both_sides() -> None:
    venue = pressed(ControlState.HALT)
    assert declined(answer(venue, 3, "BUY")) == ("refused", "halted")
    assert declined(answer(venue, 4, "SELL")) == ("refused", "halted")
    assert venue.book.accounts[ALPHA].holding.quantity == 1


def test_a_sell_that_waits_when_halt_comes_is_held_and_goes_out_late_after_it() -> None:
    venue = trader()
    buy_at(venue, 0)
    play(venue, [candle(2)], [signal("SELL", 2)])
    venue.book.control = ControlState.HALT
    assert play(venue, [candle(3), candle(4)]) == []
    venue.book.control = ControlState.ACTIVE
    (filled,) = play(venue, [candle(60, 88)])
    assert isinstance(filled, Filled)
    assert (filled.fill.price, filled.order.late) == (88, True)


def test_a_held_sell_finds_nothing_left_after_the_stop() -> None:
    venue = trader(stop_loss_pct=D(5))
    buy_at(venue, 0)
    play(venue, [candle(2)], [signal("SELL", 2)])
    venue.book.control = ControlState.HALT
    play(venue, [candle(3, 80)])
    assert venue.book.held(BTC) == 0
    venue.book.control = ControlState.ACTIVE
    (closed,) = play(venue, [candle(4, 80)])
    assert isinstance(closed, Closed)
    assert (closed.order.status, closed.order.reason) == (OrderStatus.CANCELED, "nothing_held")


@pytest.mark.parametrize(
    ("control", "reason"),
    [
        (ControlState.HALT, "halted"),
        (ControlState.REDUCE_ONLY, "reduce_only"),
        (ControlState.FLATTEN, "reduce_only"),
    ],
)
def test_a_buy_that_waits_when_the_kill_switch_is_thrown_never_fills(control: ControlState, reason: str) -> None:
    venue = trader()
    play(venue, [candle(0)], [signal("BUY", 0)])
    venue.book.control = control
    (closed,) = play(venue, [candle(1)])
    assert isinstance(closed, Closed)
    assert (closed.order.status, closed.order.reason) == (OrderStatus.CANCELED, reason)
    assert venue.book.cash == 10_000


# --- accounts


def test_an_instance_is_opened_once() -> None:
    one = book()
    with pytest.raises(AssertionError, match="opened twice"):
        one.open_account(ALPHA, instance_rules(), D(1))


def test_one_accounts_poverty_is_not_paid_by_another() -> None:
    venue = PaperVenue(book({ALPHA: instance_rules(), BETA: instance_rules()}, cash=150))
    play(venue, [candle(0)], [signal("BUY", 0, quantity=2)])
    (closed,) = play(venue, [candle(1)])
    assert isinstance(closed, Closed)
    assert closed.order.reason == "insufficient_cash"
    assert venue.book.accounts[BETA].cash == 150


def test_equity_is_cash_and_positions_at_their_last_close() -> None:
    venue = trader()
    buy_at(venue, 0, quantity=3)
    play(venue, [candle(5, 100, 107)])
    assert venue.book.equity() == 10_021
    assert venue.book.accounts[ALPHA].equity(D(107)) == 10_021


def test_a_late_candle_does_not_price_a_position_anew() -> None:
    venue = trader()
    buy_at(venue, 0)
    play(venue, [candle(10, 120)])
    late = candle(5, 50)
    venue.advance(late.close_time, [late])
    assert venue.book.marks[BTC] == 120

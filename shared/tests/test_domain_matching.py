from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.book import BookRules
from shared.domain.effects import Closed, Filled, Placed
from shared.domain.fees import FeeAsset, FeeSchedule
from shared.domain.matching import fill_price, is_late, match_exits, signal_age_max, stop_price, trailing_price
from shared.domain.paper import PaperVenue
from shared.domain.rounding import Instrument
from shared.models import OrderSide, OrderStatus, OrderType
from shared.testing.builders import ALPHA, BTC, FREE_OF_COST, START, book, candle, instance_rules, play, signal

D = Decimal
BUY, SELL = OrderSide.BUY, OrderSide.SELL
PENNY = Instrument(symbol=BTC, tick_size=D("0.01"))
FREE = Instrument(symbol=BTC)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("price", "side", "bps", "instrument", "expected"),
    [
        ("100", BUY, "2", FREE, "100.02"),
        ("100", SELL, "2", FREE, "99.98"),
        ("100", BUY, "0", FREE, "100"),
        ("123.4", BUY, "2", PENNY, "123.43"),  # 123.42468
        ("123.4", SELL, "2", PENNY, "123.37"),  # 123.37532
        ("123.455", BUY, "0", PENNY, "123.46"),
        ("123.455", SELL, "0", PENNY, "123.45"),
        ("0.00000003", BUY, "50", FREE, "0.00000003015"),
    ],
)
def test_slippage_and_tick_work_against_us(
    price: str, side: OrderSide, bps: str, instrument: Instrument, expected: str
) -> None:
    assert fill_price(D(price), side=side, slippage_bps=D(bps), instrument=instrument) == D(expected)


@pytest.mark.parametrize(("timeframe", "minutes"), [("1m", 5), ("3m", 6), ("5m", 10), ("1h", 120), ("1d", 2880)])
def test_a_signal_ages_two_timeframes_but_never_less_than_five_minutes(timeframe: str, minutes: int) -> None:
    assert signal_age_max(timeframe) == timedelta(minutes=minutes)


def test_a_stated_signal_age_wins() -> None:
    assert signal_age_max("1h", timedelta(seconds=90)) == timedelta(seconds=90)


@pytest.mark.parametrize(("minutes", "late"), [(0, False), (5, False), (6, True)])
def test_the_gap_rule_counts_from_the_close(minutes: int, late: bool) -> None:
    assert is_late(START, START + minutes * MINUTE, timedelta(minutes=5)) is late


# open, high, low, stop, trailing, target -> price, purpose, at the open
EXITS = [
    ((100, 101, 96, 95, None, None), None),
    ((100, 101, 95, 95, None, None), (95, "stop_loss", False)),
    ((100, 101, 94, 95, None, None), (95, "stop_loss", False)),
    ((93, 94, 92, 95, None, None), (93, "stop_loss", True)),
    ((95, 96, 94, 95, None, None), (95, "stop_loss", True)),
    ((100, 110, 99, None, None, 110), (110, "take_profit", False)),
    ((100, 109, 99, None, None, 110), None),
    ((112, 113, 111, None, None, 110), (112, "take_profit", True)),
    ((100, 120, 90, 95, None, 110), (95, "stop_loss", False)),
    ((112, 113, 90, 95, None, 110), (95, "stop_loss", False)),
    ((100, 101, 97, 95, 98, None), (98, "trailing_stop", False)),
    ((100, 101, 90, 95, 98, None), (98, "trailing_stop", False)),
    ((96, 101, 90, 95, 98, None), (96, "trailing_stop", True)),
    ((100, 101, 90, 98, 95, None), (98, "stop_loss", False)),
    ((100, 120, 97, None, 98, 110), (98, "trailing_stop", False)),
    ((100, 120, 1, None, None, None), None),
]


@pytest.mark.parametrize(("levels", "expected"), EXITS)
def test_a_candle_triggers_the_worst_exit_it_touches(
    levels: tuple[int | None, ...], expected: tuple[int, str, bool] | None
) -> None:
    open_, high, low, *rest = levels
    stop, trailing, target = (None if level is None else D(level) for level in rest)
    hit = match_exits(candle(0, open_, high=high, low=low), stop=stop, trailing_stop=trailing, target=target)
    assert (None if hit is None else (hit.price, hit.purpose, hit.at_open)) == expected


def test_stop_and_trailing_prices_by_hand() -> None:
    assert stop_price(D(100), D(5)) == 95
    assert stop_price(D(100), D(5), D(80)) == 76
    assert stop_price(D(100), D(0)) is None
    assert trailing_price(D(110), D(10)) == 99
    assert trailing_price(D(0), D(10)) is None
    assert trailing_price(D(110), D(0)) is None


PRICES = st.integers(50, 150)


@settings(deadline=None)
@given(st.lists(PRICES, min_size=4, max_size=4), st.none() | PRICES, st.none() | PRICES, st.none() | PRICES)
def test_an_exit_never_gets_a_price_the_candle_did_not_offer(
    prices: list[int], stop: int | None, trailing: int | None, target: int | None
) -> None:
    low, *middle, high = sorted(prices)
    one = candle(0, middle[0], middle[1], high=high, low=low)
    levels = [None if level is None else D(level) for level in (stop, trailing, target)]
    hit = match_exits(one, stop=levels[0], trailing_stop=levels[1], target=levels[2])
    stops = [level for level in levels[:2] if level is not None]
    if hit is None:
        assert all(one.low > level for level in stops)
        assert levels[2] is None or one.high < levels[2]
        return
    assert one.low <= hit.price <= one.high
    if any(one.low <= level for level in stops):
        assert hit.purpose != "take_profit"
        assert hit.price == min(max(stops), one.open)


# --- the same rules through the paper venue


def test_an_order_fills_at_the_next_open_and_is_dated_by_it() -> None:
    venue = PaperVenue(book())
    placed, filled = play(venue, [candle(0, 100, 101), candle(1, 103, 104)], [signal("BUY", 0, 101)])
    assert isinstance(placed, Placed)
    assert placed.order.status is OrderStatus.PENDING
    assert isinstance(filled, Filled)
    assert (filled.order.status, filled.fill.price) == (OrderStatus.FILLED, 103)
    assert filled.fill.traded_at == filled.order.filled_at == START + MINUTE
    assert filled.order.price == 101


def test_an_order_on_the_last_candle_stays_pending_and_goes_on_later() -> None:
    one = book()
    venue = PaperVenue(one)
    (placed,) = play(venue, [candle(0)], [signal("BUY", 0)])
    assert isinstance(placed, Placed)
    assert one.accounts[ALPHA].working == [placed.order]
    (filled,) = play(venue, [candle(1, 99)])
    assert isinstance(filled, Filled)


def test_only_the_signals_own_symbol_and_timeframe_fills_it() -> None:
    venue = PaperVenue(book())
    play(venue, [candle(0)], [signal("BUY", 0)])
    assert play(venue, [candle(1, symbol="ETH/USDT"), candle(0, timeframe="5m")]) == []
    (filled,) = play(venue, [candle(5, 97)])
    assert isinstance(filled, Filled)


def test_close_fills_take_the_signals_own_close() -> None:
    rules = BookRules(fees=FeeSchedule(), slippage_bps=D(10))
    venue = PaperVenue(book(rules=rules), fills_at_close=True)
    placed, filled = play(venue, [candle(0, 100, 110)], [signal("BUY", 0, 110)])
    assert isinstance(placed, Placed)
    assert isinstance(filled, Filled)
    assert filled.fill.price == D("110.11")
    assert filled.fill.traded_at == START + MINUTE


def held(**rules: object) -> tuple[PaperVenue, list[Filled]]:
    """Return a venue that bought 1 at the open 100 of candle 1, whose low was 99.5."""
    venue = PaperVenue(book({ALPHA: instance_rules(**rules)}))
    effects = play(venue, [candle(0), candle(1, 100, 100, high="100.5", low="99.5")], [signal("BUY", 0)])
    return venue, [effect for effect in effects if isinstance(effect, Filled)]


@pytest.mark.parametrize(
    ("open_", "high", "low", "price", "at_open"),
    [(99, 99, 95, 95, False), (99, 99, 94, 95, False), (90, 99, 89, 90, True)],
)
def test_a_stop_sells_everything_at_the_stop_or_the_worse_open(
    open_: int, high: int, low: int, price: int, at_open: bool
) -> None:
    venue, _ = held(stop_loss_pct=D(5))
    placed, filled = play(venue, [candle(2, open_, low, high=high, low=low)])
    assert isinstance(placed, Placed)
    assert isinstance(filled, Filled)
    assert (placed.order.type, filled.fill.reason) == (OrderType.STOP_LOSS, "stop_loss")
    assert (filled.fill.price, filled.fill.quantity) == (price, 1)
    assert filled.fill.traded_at == START + (2 if at_open else 3) * MINUTE
    assert venue.book.accounts[ALPHA].holding.quantity == 0


def test_the_entry_candle_can_stop_its_own_entry() -> None:
    venue = PaperVenue(book({ALPHA: instance_rules(stop_loss_pct=D(5))}))
    effects = play(venue, [candle(0), candle(1, 100, 96, low=94)], [signal("BUY", 0)])
    fills = [effect.fill for effect in effects if isinstance(effect, Filled)]
    assert [(one.side, one.price) for one in fills] == [(BUY, 100), (SELL, 95)]


def test_slippage_is_taken_off_the_stop_too() -> None:
    rules = BookRules(fees=FREE_OF_COST.fees, slippage_bps=D(100))
    venue = PaperVenue(book({ALPHA: instance_rules(stop_loss_pct=D(5))}, rules=rules))
    effects = play(venue, [candle(0), candle(1, 100), candle(2, 97, 97, low=90)], [signal("BUY", 0)])
    fills = [effect.fill for effect in effects if isinstance(effect, Filled)]
    assert fills[0].price == 101
    assert fills[1].price == D("101") * D("0.95") * D("0.99")


def test_stop_and_target_in_one_candle_is_the_stop() -> None:
    venue, _ = held(stop_loss_pct=D(5), take_profit_pct=D(5))
    effects = play(venue, [candle(2, 100, 100, high=120, low=80)])
    assert [effect.fill.reason for effect in effects if isinstance(effect, Filled)] == ["stop_loss"]


def test_a_target_sells_at_its_price_or_the_better_open() -> None:
    venue, _ = held(take_profit_pct=D(5))
    _, filled = play(venue, [candle(2, 101, 101, high=106)])
    assert isinstance(filled, Filled)
    assert (filled.fill.price, filled.fill.reason) == (105, "take_profit")
    venue, _ = held(take_profit_pct=D(5))
    _, filled = play(venue, [candle(2, 107)])
    assert isinstance(filled, Filled)
    assert filled.fill.price == 107


def test_a_trailing_stop_follows_highs_of_earlier_candles_only() -> None:
    venue, _ = held(trailing_pct=D(10))
    assert play(venue, [candle(2, 100, 118, high=120, low=99)]) == []  # 120 counts from the next candle on
    _, filled = play(venue, [candle(3, 118, 107, low=107)])
    assert isinstance(filled, Filled)
    assert (filled.fill.price, filled.fill.reason) == (108, "trailing_stop")


def test_a_new_position_trails_its_own_entry_not_the_last_ones_high() -> None:
    venue, _ = held(trailing_pct=D(10))
    play(venue, [candle(2, 120, 105, high=200, low=105), candle(3, 105)], [signal("SELL", 2, 105)])
    play(venue, [candle(4, 105), candle(5, 105, 100, low=100)], [signal("BUY", 4, 105)])
    assert venue.book.accounts[ALPHA].high_water_price == 105
    assert venue.book.accounts[ALPHA].trailing_stop == D("94.5")


def test_dust_of_the_last_position_does_not_lend_its_high_to_the_next() -> None:
    rules = BookRules(fees=FeeSchedule(asset=FeeAsset.RECEIVED), slippage_bps=D(0))
    coarse = Instrument(symbol=BTC, step_size=D("0.01"), notional_min=D(5))
    venue = PaperVenue(book({ALPHA: instance_rules(trailing_pct=D(10), instrument=coarse)}, rules=rules))
    play(venue, [candle(0), candle(1, 100, 100, high=200)], [signal("BUY", 0)])
    play(venue, [candle(2, 170, 100, high=300)])  # sold at the open: 170 is below 180
    assert venue.book.held(BTC) == D("0.009")
    play(venue, [candle(3), candle(4)], [signal("BUY", 3)])
    account = venue.book.accounts[ALPHA]
    assert (account.high_water_price, account.trailing_stop) == (100, 90)


def test_the_stop_follows_the_average_when_an_entry_is_added() -> None:
    venue, _ = held(stop_loss_pct=D(5), max_entries=2)
    play(venue, [candle(2, 110), candle(3, 120)], [signal("BUY", 2, 110)])
    account = venue.book.accounts[ALPHA]
    assert account.holding.avg_entry_price == 110
    assert account.stop_price == D("104.5")


def test_a_grids_stop_hangs_below_its_lower_price() -> None:
    venue, _ = held(stop_loss_pct=D(5), stop_anchor_price=D(80))
    assert play(venue, [candle(2, 90, 78, low="76.5")]) == []
    _, filled = play(venue, [candle(3, 78, 75, low=70)])
    assert isinstance(filled, Filled)
    assert filled.fill.price == 76


def test_an_entry_after_a_gap_is_refused_and_an_exit_goes_out_late() -> None:
    venue = PaperVenue(book())
    play(venue, [candle(0)], [signal("BUY", 0)])
    (closed,) = play(venue, [candle(7)])
    assert isinstance(closed, Closed)
    assert (closed.order.status, closed.order.reason) == (OrderStatus.EXPIRED, "gap")
    play(venue, [candle(8), candle(9)], [signal("BUY", 8)])
    play(venue, [candle(10)], [signal("SELL", 10)])
    (filled,) = play(venue, [candle(1000, 50)])
    assert isinstance(filled, Filled)
    assert (filled.order.late, filled.fill.price) == (True, 50)
    assert venue.book.accounts[ALPHA].holding.quantity == 0


@pytest.mark.parametrize(("number", "late"), [(6, False), (7, True)])
def test_the_gap_may_be_as_long_as_the_age_and_no_longer(number: int, late: bool) -> None:
    venue = PaperVenue(book())
    play(venue, [candle(0)], [signal("BUY", 0)])  # decided at minute 1, may wait until minute 6
    (effect,) = play(venue, [candle(number)])
    assert isinstance(effect, Closed if late else Filled)


def test_a_gap_may_be_filled_by_option_and_says_late() -> None:
    rules = BookRules(fees=FREE_OF_COST.fees, slippage_bps=D(0), gap_refuses=False)
    venue = PaperVenue(book(rules=rules))
    play(venue, [candle(0)], [signal("BUY", 0)])
    (filled,) = play(venue, [candle(70, 90)])
    assert isinstance(filled, Filled)
    assert (filled.order.late, filled.fill.price) == (True, 90)


@pytest.mark.parametrize(("quantity", "status"), [("99", OrderStatus.FILLED), ("99.9", OrderStatus.REJECTED)])
def test_cash_is_asked_once_at_the_fill_with_fee_and_slippage(quantity: str, status: OrderStatus) -> None:
    rules = BookRules(fees=FeeSchedule(), slippage_bps=D(2))
    venue = PaperVenue(book(rules=rules))
    _, effect = play(venue, [candle(0), candle(1)], [signal("BUY", 0, quantity=quantity)])
    assert isinstance(effect, Filled | Closed)
    assert effect.order.status is status
    if isinstance(effect, Closed):
        assert effect.order.reason == "insufficient_cash"
        assert venue.book.cash == 10_000
        assert venue.book.accounts[ALPHA].working == []


def test_a_buy_that_costs_exactly_all_cash_fills() -> None:
    venue = PaperVenue(book(cash=100))
    _, filled = play(venue, [candle(0), candle(1)], [signal("BUY", 0, quantity=1)])
    assert isinstance(filled, Filled)
    assert venue.book.cash == 0

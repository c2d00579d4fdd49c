"""What size costs, what cash covers, and which of two exits came first."""

from __future__ import annotations

import statistics
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.book import BookRules
from shared.domain.effects import Closed, Filled
from shared.domain.fees import FeeAsset, FeeSchedule, compute_fee
from shared.domain.matching import first_reached, match_exits
from shared.domain.paper import PaperVenue
from shared.domain.sizing import affordable_quantity
from shared.domain.slippage import (
    PARTICIPATION_MAX,
    ImpactModel,
    RecentVolumes,
    market_slippage_bps,
    median_volume,
    participation,
)
from shared.models import Candle, OrderSide, OrderStatus
from shared.testing.builders import ALPHA, BTC, FREE_OF_COST, book, candle, instance_rules, play, signal

D = Decimal
MODEL = ImpactModel(half_spread_bps=D(1), impact_bps=D(10))


@given(st.lists(st.decimals(0, 10**9, places=8), min_size=1, max_size=20))
def test_the_median_volume_is_the_standard_librarys(volumes: list[Decimal]) -> None:
    assert median_volume(volumes) == statistics.median(volumes)


@pytest.mark.parametrize(
    ("quantity", "volume", "share", "bps"),
    [("0.5", "2", "0.25", "6"), ("2", "2", "1", "11"), ("8", "2", "4", "21"), ("0.02", "2", "0.01", "2")],
)
def test_slippage_is_half_the_spread_and_the_root_of_the_share(
    quantity: str, volume: str, share: str, bps: str
) -> None:
    assert participation(D(quantity), D(volume)) == D(share)
    assert market_slippage_bps(MODEL, D(share)) == D(bps)


@pytest.mark.parametrize("volume", ["0", "0.000001"])
def test_a_market_without_volume_is_the_dearest_there_is(volume: str) -> None:
    assert participation(D(1), D(volume)) == PARTICIPATION_MAX
    assert market_slippage_bps(MODEL, PARTICIPATION_MAX) == D(101)


@pytest.mark.parametrize(("half_spread", "impact"), [("-1", "0"), ("0", "NaN"), ("10000", "0"), ("0", "1000")])
def test_a_model_that_could_take_the_whole_price_is_refused(half_spread: str, impact: str) -> None:
    with pytest.raises(ValueError, match=r"half_spread_bps|impact_bps"):
        ImpactModel(half_spread_bps=D(half_spread), impact_bps=D(impact))


def with_volume(number: int, volume: int, price: int = 100) -> Candle:
    return msgspec.structs.replace(candle(number, price), volume=D(volume))


def test_an_order_is_priced_by_candles_that_had_closed_before_it() -> None:
    volumes = [1, 4, 9, 1_000_000]  # the fill is at the open of the last one, whose volume nobody knows yet
    rules = msgspec.structs.replace(FREE_OF_COST, impact=MODEL)
    venue = PaperVenue(book(rules=rules))
    effects = play(venue, [with_volume(n, volume) for n, volume in enumerate(volumes)], [signal("BUY", 2)])
    filled = next(effect for effect in effects if isinstance(effect, Filled))
    assert filled.fill.price == D("100.06")  # 1 of a median 4: half spread 1 + 10 x 0.5
    assert venue.volumes is not None
    assert venue.volumes.participation_max == D("0.25")


def test_only_the_last_twenty_candles_count() -> None:
    volumes = RecentVolumes(MODEL)
    for number in range(60):
        volumes.observe(BTC, "1m", D(1) if number < 50 else D(99))
        volumes.observe("ETH/USDT", "1m", D(7))
        volumes.observe(BTC, "1h", D(8))
    assert volumes.share(BTC, "1m", D(1)) == D("0.02")  # ten candles of 1, ten of 99


@settings(deadline=None)
@given(
    cash=st.decimals("0", "1e7", places=10),
    price=st.decimals("0.01", "1e6", places=6),
    rate=st.decimals("0", "0.02", places=5),
    asset=st.sampled_from(FeeAsset),
    step=st.sampled_from([D("1e-8"), D("0.001"), D("0.3"), D(1)]),
)
def test_what_cash_covers_is_covered_and_one_step_more_is_not(
    cash: Decimal, price: Decimal, rate: Decimal, asset: FeeAsset, step: Decimal
) -> None:
    fees = FeeSchedule(taker=rate, asset=asset)

    def cost(quantity: Decimal) -> Decimal:
        fee = compute_fee(fees, symbol=BTC, side=OrderSide.BUY, quantity=quantity, price=price)
        return quantity * price + fee.cash

    most = affordable_quantity(cash, price=price, fees=fees, step_size=step)
    assert most % step == 0
    assert cost(most) <= cash + D("1e-15")
    assert cost(most + step) > cash - D("1e-9") * step * price


@pytest.mark.parametrize(("partial", "quantity"), [(True, 2), (False, None)])
def test_a_buy_that_cash_does_not_cover_is_cut_only_where_that_is_asked_for(
    partial: bool, quantity: int | None
) -> None:
    rules = msgspec.structs.replace(FREE_OF_COST, partial_cash=partial)
    whole = msgspec.structs.replace(instance_rules().instrument, step_size=D(1))
    venue = PaperVenue(book({ALPHA: instance_rules(instrument=whole)}, rules=rules, cash=250))
    effects = play(venue, [candle(0), candle(1)], [signal("BUY", 0, quantity=3)])
    end = effects[-1]
    if quantity is None:
        assert isinstance(end, Closed)
        assert (end.order.status, end.order.reason) == (OrderStatus.REJECTED, "insufficient_cash")
    else:
        assert isinstance(end, Filled)
        assert (end.fill.quantity, end.order.status, venue.entries_cut) == (D(quantity), OrderStatus.FILLED, 1)


def test_what_is_cut_to_nothing_is_still_rejected() -> None:
    rules = msgspec.structs.replace(FREE_OF_COST, partial_cash=True)
    dear = msgspec.structs.replace(instance_rules().instrument, notional_min=D(5))
    venue = PaperVenue(book({ALPHA: instance_rules(instrument=dear)}, rules=rules, cash="4.9"))
    end = play(venue, [candle(0), candle(1)], [signal("BUY", 0, quantity=1)])[-1]
    assert isinstance(end, Closed)
    assert end.order.reason == "insufficient_cash"


FINE = {
    "target first": [(99, 111), (90, 100)],
    "stop first": [(94, 105), (100, 115)],
    "both at once": [(100, 101), (90, 115)],
    "neither": [(100, 101)],
}


@pytest.mark.parametrize(
    ("case", "purpose", "resolved"),
    [
        ("target first", "take_profit", True),
        ("stop first", "stop_loss", True),
        ("both at once", "stop_loss", False),
        ("neither", "stop_loss", False),
    ],
)
def test_finer_candles_say_which_exit_came_first_and_else_it_was_the_worse(
    case: str, purpose: str, resolved: bool
) -> None:
    fine = [candle(number, 100, low=low, high=high) for number, (low, high) in enumerate(FINE[case])]
    coarse = candle(0, 100, low=90, high=115, timeframe="5m")
    hit = match_exits(coarse, stop=D(95), trailing_stop=None, target=D(110), detail=fine)
    assert hit is not None
    assert (hit.purpose, hit.is_contested, hit.is_resolved) == (purpose, True, resolved)
    assert hit.price == (110 if purpose == "take_profit" else 95)
    assert (first_reached(fine, level=D(95), target=D(110)) is not None) == resolved


def test_a_take_profit_rests_in_the_book_and_pays_the_makers_fee() -> None:
    rules = BookRules(fees=FeeSchedule(maker=D("0.001"), taker=D("0.002")), slippage_bps=D(0))
    exits = ((instance_rules(take_profit_pct=D(10)), "0.001"), (instance_rules(stop_loss_pct=D(10)), "0.002"))
    for own, rate in exits:
        venue = PaperVenue(book({ALPHA: own}, rules=rules))
        candles = [candle(0), candle(1), candle(2, 100, low=90, high=110)]
        fills = [e.fill for e in play(venue, candles, [signal("BUY", 0)]) if isinstance(e, Filled)]
        assert [fill.fee_quote / fill.price for fill in fills] == [D("0.002"), D(rate)]

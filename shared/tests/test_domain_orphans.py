from __future__ import annotations

from decimal import Decimal

from shared.domain.effects import Declined, Filled
from shared.domain.orphans import find_orphans
from shared.domain.paper import PaperVenue
from shared.domain.positions import FLAT, Holding
from shared.domain.risk import ControlState
from shared.domain.rounding import Instrument
from shared.models import InstanceKey
from shared.testing.builders import ALPHA, BETA, BTC, ETH, book, candle, instance_rules, play, signal

D = Decimal
HELD = Holding(quantity=D(1), avg_entry_price=D(100), entries=(D(1),))


def orphaned(**rules: object) -> PaperVenue:
    """Return a venue whose only instance bought 1 at 100 and was then switched off."""
    venue = PaperVenue(book({ALPHA: instance_rules(**rules)}))
    play(venue, [candle(0), candle(1)], [signal("BUY", 0)])
    venue.book.accounts[ALPHA].is_orphan = True
    return venue


def test_holdings_without_a_running_instance_are_orphans_in_business_order() -> None:
    other = InstanceKey("alpha", ETH, "1m")
    slow = InstanceKey("alpha", BTC, "5m")
    holdings = {other: HELD, slow: HELD, BETA: HELD, ALPHA: HELD}
    assert find_orphans(holdings, [BETA]) == [ALPHA, slow, other]
    assert find_orphans(holdings, holdings) == []


def test_a_flat_instance_is_no_orphan() -> None:
    assert find_orphans({ALPHA: FLAT}, []) == []


def test_the_same_strategy_on_another_timeframe_does_not_look_after_it() -> None:
    assert find_orphans({ALPHA: HELD}, [ALPHA._replace(timeframe="5m")]) == [ALPHA]


def test_an_orphans_stop_stays_armed_and_it_never_buys() -> None:
    venue = orphaned(stop_loss_pct=D(5), max_entries=2)
    (declined,) = play(venue, [candle(2)], [signal("BUY", 2)])
    assert isinstance(declined, Declined)
    assert declined.reason == "orphan"
    _, filled = play(venue, [candle(3, 100, 90)])
    assert isinstance(filled, Filled)
    assert (filled.fill.price, filled.fill.reason) == (95, "stop_loss")


def test_closing_an_orphan_sells_all_of_it_at_the_next_open() -> None:
    venue = orphaned()
    account = venue.book.accounts[ALPHA]
    placed = venue.close_orphan(account, D(100), candle(1).close_time)
    assert placed is not None
    assert placed.order.purpose == "orphan"
    assert venue.close_orphan(account, D(100), candle(1).close_time) is None  # it is on its way already
    (filled,) = play(venue, [candle(2, 97)])
    assert isinstance(filled, Filled)
    assert (filled.fill.price, account.holding.quantity) == (97, 0)


def test_an_orphans_end_passes_reduce_only_and_waits_under_halt() -> None:
    venue = orphaned()
    venue.book.control = ControlState.HALT
    venue.close_orphan(venue.book.accounts[ALPHA], D(100), candle(1).close_time)
    assert play(venue, [candle(2)]) == []
    venue.book.control = ControlState.REDUCE_ONLY
    (filled,) = play(venue, [candle(3)])
    assert isinstance(filled, Filled)


def test_an_orphan_of_dust_is_left_alone() -> None:
    venue = orphaned(instrument=Instrument(symbol=BTC, notional_min=D(5)))
    assert venue.close_orphan(venue.book.accounts[ALPHA], D(4), candle(1).close_time) is None

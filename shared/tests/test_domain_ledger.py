from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.domain.book import BookRules
from shared.domain.effects import Filled
from shared.domain.fees import FeeAsset, FeeSchedule
from shared.domain.ledger import balances, ledger_entries
from shared.domain.paper import PaperVenue
from shared.domain.positions import FLAT, apply_fill, fold_fills, unrealized_pnl
from shared.domain.rounding import Instrument, minus, plus, times
from shared.models import Fill, InstanceKey, OrderSide
from shared.testing.builders import ALPHA, BETA, ETH, book, candle, fill, instance_rules, signal
from shared.testing.examples import examples

D = Decimal
TINY = Instrument(symbol="BTC/USDT", step_size=D("1e-18"))
QUANTITIES = st.one_of(
    st.decimals("1e-18", "1e-9", places=18),
    st.decimals("1e-8", "1000", places=8),
    st.decimals("1e6", "1e12", places=18),
)
PRICES = st.one_of(st.decimals("1e-9", "1e-3", places=12), st.decimals("0.01", "1e6", places=8))
RATES = st.sampled_from([D(0), D("0.001"), D("0.00075"), D("0.0123456789")])
BNB_USDT = InstanceKey("gamma", "BNB/USDT", "1m")
OWNERS = [ALPHA, BETA, InstanceKey("alpha", ETH, "1m"), BNB_USDT]
STEPS = st.lists(
    st.tuples(st.sampled_from(OWNERS), st.booleans(), QUANTITIES, PRICES, st.integers(0, 100)), min_size=1, max_size=25
)
calm = settings(deadline=None, max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow])
Step = tuple[InstanceKey, bool, Decimal, Decimal, int]


def trade(steps: Sequence[Step], asset: FeeAsset, rate: Decimal) -> tuple[PaperVenue, list[Fill]]:
    """Return a venue after buying and selling (a percent of what is held) at those prices, and its fills."""
    rules = BookRules(fees=FeeSchedule(taker=rate, asset=asset), slippage_bps=D(3))
    own = instance_rules(instrument=TINY, max_entries=0)
    venue = PaperVenue(book(dict.fromkeys(OWNERS, own), rules=rules, cash=D("1e19")), fills_at_close=True)
    fills: list[Fill] = []
    for number, (owner, buys, quantity, price, percent) in enumerate(steps):
        wanted = quantity
        if not buys:
            wanted = times(venue.book.accounts[owner].holding.quantity, D(percent) / 100)
        one = candle(number, price, symbol=owner.symbol)
        made = signal("BUY" if buys else "SELL", number, price, wanted, instance=owner)
        effects = venue.advance(one.close_time, [one], [made])
        fills += [effect.fill for effect in effects if isinstance(effect, Filled)]
    return venue, fills


def assert_conserved(venue: PaperVenue, fills: Sequence[Fill]) -> None:
    one = venue.book
    totals = balances(entry for made in fills for entry in ledger_entries(made))
    assert totals.get("USDT", D(0)) == minus(one.cash, one.initial_balance)
    for symbol in {owner.symbol for owner in OWNERS}:
        assert totals.get(symbol.split("/")[0], D(0)) == one.held(symbol)
    assert set(totals) <= {"USDT", "BTC", "ETH", "BNB"}
    assert sum(map(Fraction, (account.cash for account in one.accounts.values()))) == Fraction(one.cash)


@calm
@given(STEPS, st.sampled_from(FeeAsset), RATES)
def test_any_sequence_of_fills_conserves_cash_and_inventory_to_the_last_digit(
    steps: list[Step], asset: FeeAsset, rate: Decimal
) -> None:
    venue, fills = trade(steps, asset, rate)
    assert_conserved(venue, fills)
    for key, account in venue.book.accounts.items():
        own = [made for made in fills if made.instance == key]
        assert fold_fills(own, TINY) == account.holding
        assert account.cash == plus(D("1e19"), account.holding.cash_flow)
        assert account.holding.quantity >= 0


@calm
@given(STEPS, st.sampled_from(FeeAsset), RATES)
def test_equity_is_what_was_paid_in_plus_realised_plus_unrealised(
    steps: list[Step], asset: FeeAsset, rate: Decimal
) -> None:
    venue, fills = trade(steps, asset, rate)
    for key, account in venue.book.accounts.items():
        mark = venue.book.marks.get(key.symbol, D(0))
        held = account.holding
        left = Fraction(account.equity(mark)) - Fraction(D("1e19"))
        right = Fraction(held.realized_pnl) + Fraction(unrealized_pnl(held, mark))
        # the average is rounded to 1e-18 at every BUY: each can be off by half of that on everything held
        turned = sum(Fraction(made.quantity) for made in fills if made.instance == key)
        tolerance = Fraction(1, 10**18) * (turned + 4) * (len(fills) + 2)
        assert abs(left - right) <= tolerance


def test_entries_of_one_fill_by_hand() -> None:
    entries = ledger_entries(fill("BUY", 2, 100, fee="0.2"))
    assert [(one.leg, one.asset, one.delta) for one in entries] == [
        ("base", "BTC", D(2)),
        ("quote", "USDT", D(-200)),
        ("fee", "USDT", D("-0.2")),
    ]
    assert balances(entries) == {"BTC": D(2), "USDT": D("-200.2")}


@pytest.mark.parametrize(
    ("fee", "asset", "worth", "expected"),
    [
        ("0.002", "BTC", "0.2", {"BTC": D("1.998"), "USDT": D(-200)}),
        ("0.0005", "BNB", "0.2", {"BTC": D(2), "USDT": D("-200.2")}),  # cash buys the BNB that pays it
        ("0", "USDT", "0", {"BTC": D(2), "USDT": D(-200)}),
    ],
)
def test_the_fee_leg_takes_from_what_really_pays(
    fee: str, asset: str, worth: str, expected: dict[str, Decimal]
) -> None:
    assert balances(ledger_entries(fill("BUY", 2, 100, fee=fee, fee_asset=asset, fee_quote=worth))) == expected


def test_booking_a_fill_twice_collides_and_two_fills_do_not() -> None:
    first, second = fill("BUY", 1, fee=1), fill("BUY", 1, fee=1, sequence=2)
    assert ledger_entries(first) == ledger_entries(first)
    ids = [entry.entry_id for made in (first, second) for entry in ledger_entries(made)]
    assert len(set(ids)) == 6
    legs = {(entry.cause_type, entry.cause_id, entry.leg) for made in (first, second) for entry in ledger_entries(made)}
    assert len(legs) == 6


def test_a_huge_fill_keeps_its_last_digit_on_both_sides() -> None:
    quantity, price = D("999999999999.999999999999999999"), D("999999.123456789123456789")
    entries = ledger_entries(fill("SELL", quantity, price)) + ledger_entries(fill("BUY", quantity, price, sequence=2))
    assert all(not total for total in balances(entries).values())
    notional = times(quantity, price)
    assert len(notional.as_tuple().digits) == 36
    assert entries[1].delta == notional


def test_selling_all_bnb_with_fees_in_bnb_leaves_nothing_owed() -> None:
    steps = [(BNB_USDT, True, D(1), D(300), 0), (BNB_USDT, False, D(1), D(310), 100)]
    venue, fills = trade(steps, FeeAsset.BNB, D("0.001"))
    assert [made.side for made in fills] == [OrderSide.BUY, OrderSide.SELL]
    assert venue.book.held("BNB/USDT") == 0
    assert_conserved(venue, fills)


def test_a_fee_too_small_for_a_bnb_is_still_booked() -> None:
    dust = fill("BUY", 1, 100, fee=0, fee_asset="BNB", fee_quote="1e-18")
    assert balances(ledger_entries(dust))["USDT"] == D("-100.000000000000000001")


def test_a_sell_above_what_is_held_is_a_broken_invariant() -> None:
    with pytest.raises(AssertionError, match="exceeds the 1 held"):
        apply_fill(apply_fill(FLAT, fill("BUY", 1), TINY), fill("SELL", "1.000000000000000001", sequence=2), TINY)

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.positions import FLAT, Holding, apply_fill, fill_effect, fold_fills, is_dust, unrealized_pnl
from shared.domain.rounding import Instrument
from shared.models import Fill
from shared.testing.builders import BTC, fill

D = Decimal
FREE = Instrument(symbol=BTC)
BINANCE = Instrument(symbol=BTC, step_size=D("0.00001"), notional_min=D(5))


def fold(*fills: Fill, instrument: Instrument = FREE) -> Holding:
    return fold_fills(fills, instrument)


def test_nothing_bought_is_flat() -> None:
    assert fold() == FLAT == Holding()


def test_average_cost_and_pnl_by_hand() -> None:
    # buy 1 at 100, 3 at 120: average 115; sell 2 at 130: +30 less 0.26; 0.1 + 0.36 paid before
    held = fold(
        fill("BUY", 1, 100, fee="0.1"),
        fill("BUY", 3, 120, fee="0.36", sequence=2),
        fill("SELL", 2, 130, fee="0.26", sequence=3),
    )
    assert (held.quantity, held.avg_entry_price) == (2, 115)
    assert held.fees == D("0.72")
    assert held.realized_pnl == D("30") - D("0.72")
    assert held.cash_flow == -100 - 360 + 260 - D("0.72")
    assert unrealized_pnl(held, D(118)) == 6


def test_fees_never_enter_the_average() -> None:
    assert fold(fill("BUY", 1, 100, fee=5)).avg_entry_price == 100
    received = fold(fill("BUY", 2, 100, fee="0.002", fee_asset="BTC", fee_quote="0.2"))
    assert (received.quantity, received.avg_entry_price) == (D("1.998"), 100)
    assert received.realized_pnl == D("-0.2")


def test_a_closed_position_forgets_its_average_and_keeps_its_pnl() -> None:
    held = fold(fill("BUY", 1, 100), fill("SELL", 1, 110, fee="0.11", sequence=2))
    assert (held.quantity, held.avg_entry_price, held.entries) == (0, 0, ())
    assert held.realized_pnl == D("9.89")
    again = apply_fill(held, fill("BUY", 1, 50, sequence=3), FREE)
    assert (again.avg_entry_price, again.realized_pnl) == (50, D("9.89"))


def test_realised_and_unrealised_add_up_to_what_fifo_says() -> None:
    fills = [fill("BUY", 1, 100), fill("BUY", 1, 200, sequence=2), fill("SELL", 1, 180, sequence=3)]
    held = fold(*fills)
    fifo = (180 - 100) + (190 - 200)
    assert held.realized_pnl + unrealized_pnl(held, D(190)) == fifo


def test_a_sell_closes_the_newest_entry_first() -> None:
    held = fold(fill("BUY", 1), fill("BUY", 2, sequence=2), fill("BUY", 3, sequence=3), fill("SELL", 3, sequence=4))
    assert held.entries == (1, 2)
    assert apply_fill(held, fill("SELL", "2.5", sequence=5), FREE).entries == (D("0.5"),)


@pytest.mark.parametrize(
    ("sold", "entries"),
    [
        ("0.0009", (D("0.0001"),)),  # 6 of 60,000: still an entry
        ("0.00092", ()),  # 4.8 left: below the minimum notional
        ("0.000999", ()),  # below the step
        ("0.001", ()),
    ],
)
def test_an_entry_ends_when_what_is_left_of_it_is_dust(sold: str, entries: tuple[Decimal, ...]) -> None:
    held = fold(fill("BUY", "0.001", 60000), fill("SELL", sold, 60000, sequence=2), instrument=BINANCE)
    assert held.entries == entries


@pytest.mark.parametrize(
    ("quantity", "price", "dust"),
    [
        ("0.00001", 60000, True),
        ("0.0001", 60000, False),
        ("0.000009", 600000, True),
        ("0.00005", 100000, False),
        ("0", 1, True),
    ],
)
def test_dust_is_below_the_step_or_the_minimum_notional(quantity: str, price: int, dust: bool) -> None:
    assert is_dust(D(quantity), D(price), BINANCE) is dust


@pytest.mark.parametrize(
    ("side", "asset", "expected"),
    [
        ("BUY", "USDT", (D(1), D("-100.1"))),
        ("SELL", "USDT", (D(-1), D("99.9"))),
        ("BUY", "BTC", (D("0.999"), D(-100))),
        ("BUY", "BNB", (D(1), D("-100.1"))),
        ("SELL", "BNB", (D(-1), D("99.9"))),
    ],
)
def test_what_a_fill_does_to_base_and_cash(side: str, asset: str, expected: tuple[Decimal, Decimal]) -> None:
    fee = {"USDT": "0.1", "BTC": "0.001", "BNB": "0.0003"}[asset]
    assert fill_effect(fill(side, 1, 100, fee=fee, fee_asset=asset, fee_quote="0.1")) == expected


TRADES = st.lists(
    st.tuples(st.booleans(), st.decimals("0.00001", "10", places=5), st.decimals("1", "100000", places=2)), max_size=30
)


@settings(deadline=None)
@given(TRADES, st.integers(0, 30))
def test_a_fold_may_be_cut_anywhere_and_continued(trades: list[tuple[bool, Decimal, Decimal]], cut: int) -> None:
    fills, held = [], D(0)
    for sequence, (buys, quantity, price) in enumerate(trades, start=1):
        part = quantity if buys else min(quantity, held)
        if part:
            fills.append(fill("BUY" if buys else "SELL", part, price, fee="0.01", sequence=sequence))
            held += part if buys else -part
    whole = fold_fills(fills, BINANCE)
    assert fold_fills(fills[cut:], BINANCE, fold_fills(fills[:cut], BINANCE)) == whole
    assert whole.quantity == held
    assert sum(map(Fraction, whole.entries)) <= Fraction(held)
    prices = [made.price for made in fills if made.side == "BUY"]
    if held:
        assert min(prices) - D("1e-12") <= whole.avg_entry_price <= max(prices) + D("1e-12")

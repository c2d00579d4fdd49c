"""`PortfolioTracker`: positions and profit as a fold over what was filled."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_manager.portfolio import PortfolioTracker
from shared.models import Order, OrderSide, OrderStatus
from shared.testing.builders import ALPHA, BETA, BTC, ETH, START, candle, fill

D = Decimal


def order(side: str, quantity: str, filled: str, price: str | None = "100", **more: Any) -> Order:
    """Return an order in the state in which `filled` of it is filled at an average of `price`."""
    words = {
        "id": "one",
        "symbol": BTC,
        "side": OrderSide(side),
        "price": D(100),
        "quantity": D(quantity),
        "filled_quantity": D(filled),
        "avg_fill_price": D(price) if price else None,
        "status": OrderStatus.FILLED if filled == quantity else OrderStatus.PARTIAL,
        "created_at": START,
        "strategy": "alpha",
    }
    return Order(**{**words, **more})


def test_a_filled_order_becomes_a_position() -> None:
    tracker = PortfolioTracker(10_000)

    position = tracker.apply_order(order("BUY", "2", "2"))

    assert (position.symbol, position.quantity, position.avg_entry_price) == (BTC, 2, 100)
    assert tracker.positions == [position]
    assert tracker.totals().cash == 9_800
    assert tracker.total_value == 10_000


def test_partial_fills_are_counted_once_each() -> None:
    tracker = PortfolioTracker(10_000)

    tracker.apply_order(order("BUY", "4", "1", "100"))
    tracker.apply_order(order("BUY", "4", "1", "100"))
    tracker.apply_order(order("BUY", "4", "3", "102"))
    position = tracker.apply_order(order("BUY", "4", "4", "103"))

    assert (position.quantity, position.avg_entry_price) == (4, 103)
    assert tracker.totals().cash == 10_000 - 4 * 103


def test_a_state_that_comes_late_takes_nothing_back() -> None:
    tracker = PortfolioTracker(10_000)
    tracker.apply_order(order("BUY", "4", "4"))

    position = tracker.apply_order(order("BUY", "4", "1"))

    assert position.quantity == 4


def test_only_filled_quantity_counts() -> None:
    tracker = PortfolioTracker(10_000)

    for number, status in enumerate(OrderStatus):
        if status is not OrderStatus.FILLED:
            tracker.apply_order(order("BUY", "5", "0", None, id=str(number), status=status))
    tracker.apply_order(order("BUY", "5", "2", id="ended", status=OrderStatus.CANCELED))

    assert tracker.position(BTC).quantity == 2


def test_a_filled_order_without_numbers_is_filled_wholly_at_its_price() -> None:
    tracker = PortfolioTracker(10_000)
    plain = Order(symbol=BTC, side=OrderSide.BUY, price=D(50), quantity=D(3), status=OrderStatus.FILLED)

    position = tracker.apply_order(plain)

    assert (position.quantity, position.avg_entry_price) == (3, 50)


def test_average_cost_is_without_fees_and_profit_is_net_of_them() -> None:
    tracker = PortfolioTracker(10_000)
    tracker.apply_order(order("BUY", "1", "1", "100", id="a"), fee=D(1))
    tracker.apply_order(order("BUY", "1", "1", "120", id="b"), fee=D(1))
    position = tracker.apply_order(order("SELL", "1", "1", "130", id="c"), fee=D(2))

    totals = tracker.totals()

    assert (position.quantity, position.avg_entry_price) == (1, 110)
    assert totals.realized_pnl == 20 - 4
    assert totals.cash == 10_000 - 220 + 130 - 4
    tracker.mark(BTC, D(115))
    assert tracker.totals().unrealized_pnl == 5
    assert tracker.total_value == totals.cash + 115


def test_strategies_and_symbols_are_kept_apart_and_summed() -> None:
    tracker = PortfolioTracker(10_000)
    tracker.apply_fill(fill("BUY", 1, 100, sequence=1))
    tracker.apply_fill(fill("BUY", 3, 120, sequence=2, instance=BETA))
    tracker.apply_fill(fill("BUY", 5, 10, sequence=3, instance=BETA._replace(symbol=ETH)))

    assert tracker.holdings[ALPHA].avg_entry_price == 100
    assert tracker.holdings[BETA].avg_entry_price == 120
    assert (tracker.position(BTC).quantity, tracker.position(BTC).avg_entry_price) == (4, 115)
    assert [position.symbol for position in tracker.positions] == [BTC, ETH]


def test_a_fill_that_comes_twice_counts_once() -> None:
    tracker = PortfolioTracker(10_000)

    for _ in range(2):
        tracker.apply_fill(fill("BUY", 1, 100, sequence=1))

    assert tracker.position(BTC).quantity == 1


def test_a_mark_older_than_the_one_there_is_left_out() -> None:
    tracker = PortfolioTracker(10_000)
    tracker.apply_fill(fill("BUY", 1, 100))

    tracker.mark(BTC, D(110), candle(5).close_time)
    tracker.mark(BTC, D(90), candle(4).close_time)

    assert tracker.position(BTC).current_price == 110
    assert tracker.position(BTC).updated_at == candle(5).close_time


def test_a_sell_of_more_than_is_held_is_a_broken_invariant() -> None:
    with pytest.raises(AssertionError, match="exceeds"):
        PortfolioTracker(10_000).apply_order(order("SELL", "1", "1"))


steps = st.lists(st.decimals(min_value="0.001", max_value="2", places=3), min_size=1, max_size=8)
prices = st.lists(st.decimals(min_value="1", max_value="500", places=2), min_size=8, max_size=8)


@given(quantities=steps, at=prices)
def test_pieces_of_an_order_give_what_its_fills_give(quantities: Sequence[Decimal], at: Sequence[Decimal]) -> None:
    by_order, by_fills = PortfolioTracker(1_000_000), PortfolioTracker(1_000_000)
    whole = sum(quantities, D(0))
    filled, paid = D(0), D(0)
    for number, (quantity, price) in enumerate(zip(quantities, at, strict=False), start=1):
        filled, paid = filled + quantity, paid + quantity * price
        by_order.apply_order(order("BUY", str(whole), str(filled), str(paid / filled)))
        by_fills.apply_fill(fill("BUY", quantity, price, sequence=number))

    assert by_order.position(BTC).quantity == by_fills.position(BTC).quantity == whole
    assert abs(by_order.totals().cash - by_fills.totals().cash) < D("1e-12")


@given(
    trades=st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.integers(1, 300), st.integers(0, 3)), max_size=30)
)
def test_worth_is_opening_balance_plus_realized_plus_unrealized(trades: Sequence[tuple[bool, int, int, int]]) -> None:
    tracker = PortfolioTracker(10_000)
    for sequence, (is_buy, quantity, price, fee) in enumerate(trades, start=1):
        held = tracker.position(BTC).quantity
        if not is_buy and held < quantity:
            continue
        tracker.apply_fill(fill("BUY" if is_buy else "SELL", quantity, price, fee=fee, sequence=sequence))
        tracker.mark(BTC, D(price))

    totals = tracker.totals()

    assert abs(totals.total_value - (10_000 + totals.realized_pnl + totals.unrealized_pnl)) < D("1e-12")

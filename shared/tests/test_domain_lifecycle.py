from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.domain.book import Book
from shared.domain.order_lifecycle import LEGAL_MOVES, TERMINAL_STATUSES, WORKING_STATUSES, is_legal_move, move
from shared.models import Order, OrderSide, OrderStatus
from shared.testing.builders import ALPHA, BTC, book, fill
from shared.testing.examples import examples

D = Decimal
S = OrderStatus
FORBIDDEN = [
    (S.PARTIAL, S.PENDING), (S.PARTIAL, S.REJECTED), (S.PARTIAL, S.FAILED), (S.PENDING, S.PENDING), (S.FILLED, S.CANCELED),
    (S.REJECTED, S.PENDING), (S.EXPIRED, S.FILLED), (S.CANCELED, S.PARTIAL), (S.FAILED, S.UNKNOWN), (S.FILLED, S.FILLED),
]  # fmt: skip


def test_every_status_is_either_working_or_terminal() -> None:
    assert set(OrderStatus) == TERMINAL_STATUSES | WORKING_STATUSES
    assert not TERMINAL_STATUSES & WORKING_STATUSES
    assert set(LEGAL_MOVES) == set(OrderStatus)


@pytest.mark.parametrize("terminal", sorted(TERMINAL_STATUSES))
@pytest.mark.parametrize("new", list(OrderStatus))
def test_a_terminal_order_never_reopens(terminal: OrderStatus, new: OrderStatus) -> None:
    assert not is_legal_move(terminal, new)
    with pytest.raises(AssertionError, match=f"{terminal} -> {new}"):
        move(terminal, new)


@pytest.mark.parametrize(("current", "new"), FORBIDDEN)
def test_moves_that_would_undo_a_fact_are_a_broken_invariant(current: OrderStatus, new: OrderStatus) -> None:
    with pytest.raises(AssertionError, match="no legal move"):
        move(current, new)


@pytest.mark.parametrize("new", [S.PENDING, S.PARTIAL, S.FILLED, S.CANCELED, S.EXPIRED, S.REJECTED, S.FAILED])
def test_an_unknown_order_may_turn_out_to_be_anything(new: OrderStatus) -> None:
    assert move(S.UNKNOWN, new) is new


class OrderLife(RuleBasedStateMachine):
    """One order in a book: placed, filled piece by piece, lost from sight, ended."""

    @initialize(quantity=st.integers(1, 20))
    def place(self, quantity: int) -> None:
        self.book: Book = book(cash=10**6)
        self.order = Order(
            id="one",
            symbol=BTC,
            side=OrderSide.BUY,
            price=D(100),
            quantity=D(quantity),
            strategy="alpha",
            timeframe="1m",
        )
        self.book.place(self.order, None)
        self.paid, self.sequence = D(0), 0

    @property
    def is_open(self) -> bool:
        return self.order.status in WORKING_STATUSES

    @precondition(lambda self: self.is_open)
    @rule(part=st.integers(1, 20), price=st.integers(90, 110))
    def fill_some(self, part: int, price: int) -> None:
        quantity = min(D(part), self.order.quantity - self.order.filled_quantity)
        self.sequence += 1
        self.paid += quantity * price
        filled = self.book.book_fill(self.order, fill("BUY", quantity, price, sequence=self.sequence))
        assert filled.order.filled_quantity == self.order.filled_quantity + quantity
        assert filled.order.avg_fill_price is not None
        assert abs(filled.order.avg_fill_price * filled.order.filled_quantity - self.paid) < D("1e-14")
        self.order = filled.order

    @precondition(lambda self: self.is_open)
    @rule(status=st.sampled_from(sorted(TERMINAL_STATUSES - {S.FILLED})))
    def end(self, status: OrderStatus) -> None:
        if not is_legal_move(self.order.status, status):
            with pytest.raises(AssertionError, match="no legal move"):
                self.book.close(self.order, status, "test")
            return
        self.order = self.book.close(self.order, status, "test").order

    @precondition(lambda self: self.order.status in (S.PENDING, S.PARTIAL))
    @rule()
    def lose_sight(self) -> None:
        self.order = msgspec.structs.replace(self.order, status=move(self.order.status, S.UNKNOWN))

    @precondition(lambda self: not self.is_open)
    @rule(status=st.sampled_from(OrderStatus))
    def try_to_reopen(self, status: OrderStatus) -> None:
        with pytest.raises(AssertionError, match="no legal move"):
            self.book.close(self.order, status, "test")

    @precondition(lambda self: not self.is_open)
    @rule()
    def fill_after_the_end(self) -> None:
        before = self.book.cash
        with pytest.raises(AssertionError, match="no legal move"):
            self.book.book_fill(self.order, fill("BUY", 1, 100, sequence=99))
        assert self.book.cash == before

    @invariant()
    def only_open_orders_work_and_only_fills_move_money(self) -> None:
        account = self.book.accounts[ALPHA]
        assert [order.id for order in account.working] == (["one"] if self.is_open else [])
        assert account.holding.quantity == self.order.filled_quantity <= self.order.quantity
        assert self.book.cash == 10**6 - self.paid
        assert (self.order.status is S.FILLED) == (self.order.filled_quantity == self.order.quantity)


OrderLife.TestCase.settings = settings(deadline=None, max_examples=examples(60), stateful_step_count=20)
TestOrderLife = OrderLife.TestCase

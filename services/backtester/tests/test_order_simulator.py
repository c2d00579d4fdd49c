"""The simplest venue: at the signal's price, never short, never on credit."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtester.simulator import OrderSimulator
from shared.errors import ConfigError
from shared.models import OrderSide, Signal
from shared.testing.examples import examples

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def signal(side: OrderSide, quantity: object, price: object, symbol: str = "BTC/USDT") -> Signal:
    return Signal(strategy="test", symbol=symbol, side=side, price=price, quantity=quantity, created_at=NOON)  # type: ignore[arg-type]


def test_a_buy_fills_at_the_signals_price() -> None:
    simulator = OrderSimulator(1000)
    assert simulator.execute(signal(OrderSide.BUY, 2, 100)) is True
    assert simulator.balance == 800
    assert simulator.positions["BTC/USDT"] == 2
    (trade,) = simulator.trades
    assert (trade.side, trade.price, trade.quantity, trade.balance_after, trade.timestamp) == ("BUY", 100, 2, 800, NOON)


def test_a_buy_of_exactly_the_balance_fills_and_one_above_is_refused() -> None:
    simulator = OrderSimulator(Decimal(1000))
    assert not simulator.execute(signal(OrderSide.BUY, "10.00000001", 100))
    assert (simulator.balance, simulator.trades, dict(simulator.positions)) == (1000, [], {})
    assert simulator.execute(signal(OrderSide.BUY, 10, 100))
    assert simulator.balance == 0


def test_a_sell_is_cut_to_what_is_held() -> None:
    simulator = OrderSimulator(1000)
    simulator.execute(signal(OrderSide.BUY, 2, 100))
    assert simulator.execute(signal(OrderSide.SELL, 5, 110), NOON)
    assert simulator.trades[-1].quantity == 2
    assert simulator.balance == 1020
    assert simulator.positions["BTC/USDT"] == 0


def test_a_sell_of_nothing_held_is_refused() -> None:
    simulator = OrderSimulator(1000)
    simulator.execute(signal(OrderSide.BUY, 1, 10, "ETH/USDT"))
    assert simulator.execute(signal(OrderSide.SELL, 1, 100)) is False
    assert len(simulator.trades) == 1


@pytest.mark.parametrize(
    ("quantity", "price"), [(0, 100), (-1, 100), (1, 0), (1, -5), (float("nan"), 1), (1, "Infinity")]
)
def test_a_signal_without_a_real_price_and_quantity_is_refused(quantity: object, price: object) -> None:
    simulator = OrderSimulator(1000)
    assert not simulator.execute(signal(OrderSide.BUY, quantity, price))
    assert not simulator.execute(signal(OrderSide.SELL, quantity, price))


def test_without_money_nothing_is_bought_and_a_debt_is_no_beginning() -> None:
    assert not OrderSimulator(0).execute(signal(OrderSide.BUY, 1, 1))
    with pytest.raises(ConfigError, match="initial balance"):
        OrderSimulator(-1)


orders = st.lists(
    st.tuples(
        st.sampled_from(list(OrderSide)), st.decimals("0.001", "20", places=3), st.decimals("0.01", "200", places=2)
    ),
    max_size=40,
)


@settings(max_examples=examples(150), deadline=None)
@given(placed=orders)
def test_cash_and_position_follow_the_trades_and_never_fall_below_zero(
    placed: list[tuple[OrderSide, Decimal, Decimal]],
) -> None:
    simulator = OrderSimulator(1000)
    for side, quantity, price in placed:
        before = len(simulator.trades)
        assert simulator.execute(signal(side, quantity, price)) is (len(simulator.trades) > before)
        assert simulator.balance >= 0
        assert simulator.positions["BTC/USDT"] >= 0
    signed = [(1 if trade.side == "BUY" else -1, trade) for trade in simulator.trades]
    assert simulator.positions["BTC/USDT"] == sum(sign * trade.quantity for sign, trade in signed)
    assert simulator.balance == 1000 - sum(sign * trade.quantity * trade.price for sign, trade in signed)

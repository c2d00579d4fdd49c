from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.fees import Fee, FeeAsset, FeeSchedule, compute_fee
from shared.models import OrderSide

D = Decimal
BUY, SELL = OrderSide.BUY, OrderSide.SELL


@pytest.mark.parametrize(
    ("asset", "side", "symbol", "bnb_price", "expected"),
    [
        # 2 at 100, 0.1 %: 0.2 quote, 0.002 base, 0.0005 BNB at 400
        (FeeAsset.QUOTE, BUY, "BTC/USDT", None, Fee(D("0.2"), "USDT", D("0.2"), D("0.2"), D(0))),
        (FeeAsset.QUOTE, SELL, "BTC/USDT", None, Fee(D("0.2"), "USDT", D("0.2"), D("0.2"), D(0))),
        (FeeAsset.RECEIVED, BUY, "BTC/USDT", None, Fee(D("0.002"), "BTC", D("0.2"), D(0), D("0.002"))),
        (FeeAsset.RECEIVED, SELL, "BTC/USDT", None, Fee(D("0.2"), "USDT", D("0.2"), D("0.2"), D(0))),
        (FeeAsset.BNB, BUY, "BTC/USDT", D(400), Fee(D("0.0005"), "BNB", D("0.2"), D("0.2"), D(0))),
        (FeeAsset.BNB, SELL, "BTC/USDT", D(400), Fee(D("0.0005"), "BNB", D("0.2"), D("0.2"), D(0))),
        (FeeAsset.BNB, BUY, "BTC/USDT", None, Fee(D("0.2"), "USDT", D("0.2"), D("0.2"), D(0))),
        (FeeAsset.BNB, SELL, "BNB/USDT", D(400), Fee(D("0.2"), "USDT", D("0.2"), D("0.2"), D(0))),
        (FeeAsset.BNB, BUY, "BNB/USDT", D(400), Fee(D("0.2"), "USDT", D("0.2"), D("0.2"), D(0))),
    ],
)
def test_a_fee_is_taken_where_the_schedule_says(
    asset: FeeAsset, side: OrderSide, symbol: str, bnb_price: Decimal | None, expected: Fee
) -> None:
    schedule = FeeSchedule(taker=D("0.001"), asset=asset)
    fee = compute_fee(schedule, symbol=symbol, side=side, quantity=D(2), price=D(100), bnb_price=bnb_price)
    assert fee == expected


@settings(deadline=None)
@given(
    asset=st.sampled_from(FeeAsset),
    side=st.sampled_from(OrderSide),
    quantity=st.decimals("1e-8", "1e9", places=8),
    price=st.decimals("0.01", "1e6", places=2),
    rate=st.decimals("0", "0.01", places=6),
)
def test_the_fee_is_worth_the_same_in_every_asset(
    asset: FeeAsset, side: OrderSide, quantity: Decimal, price: Decimal, rate: Decimal
) -> None:
    schedule = FeeSchedule(taker=rate, asset=asset)
    fee = compute_fee(schedule, symbol="BTC/USDT", side=side, quantity=quantity, price=price, bnb_price=D(300))
    assert abs(fee.value_quote - quantity * price * rate) <= D("1e-12")
    assert fee.amount >= 0
    assert (fee.cash, fee.base).count(D(0)) >= 1


@pytest.mark.parametrize("rate", ["-0.001", "1", "1.5", "NaN"])
def test_a_rate_outside_0_to_1_is_refused_by_name(rate: str) -> None:
    with pytest.raises((ValueError, ArithmeticError)):
        FeeSchedule(taker=D(rate))


def test_a_percent_given_as_a_fraction_is_explained() -> None:
    with pytest.raises(ValueError, match=r"fee taker.*0.1 % is 0.001"):
        FeeSchedule(taker=D(10))

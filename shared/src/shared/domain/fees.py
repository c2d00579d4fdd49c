"""What a fill costs: rate, and in which asset the venue takes it."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec

from shared.domain.rounding import ONE, ZERO, ratio, times
from shared.models import OrderSide, split_symbol

BNB = "BNB"


class FeeAsset(StrEnum):
    """Where the fee comes from.

    quote: cash, on both sides. received: what the fill brings in (base on a BUY, quote on a SELL). bnb: BNB bought
    for the fee at the fill, so that cash pays its value; the quantity of BNB is known where its price is. When BNB
    itself is traded the fee is booked by its value in quote, or a SELL of all that is held could not pay it.
    """

    QUOTE = "quote"
    RECEIVED = "received"
    BNB = "bnb"


class FeeSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """Fee rates as fractions of the notional.

    `taker` is paid by every order that meets the market: signals at the next open, stops, what is closed at the end.
    `maker` is paid by the one order that rests in the book until the price comes to it, the take-profit.
    """

    maker: Decimal = Decimal("0.001")
    taker: Decimal = Decimal("0.001")
    asset: FeeAsset = FeeAsset.QUOTE

    def __post_init__(self) -> None:
        """Refuse rates outside [0, 1)."""
        for name, rate in (("taker", self.taker), ("maker", self.maker)):
            if not ZERO <= rate < ONE:
                raise ValueError(f"fee {name}: must be a fraction in [0, 1), was {rate}; 0.1 % is 0.001")


class Fee(msgspec.Struct, frozen=True, gc=False):
    """A fee as it is booked: `amount` of `asset`, worth `value_quote` at the fill; cash and base it takes away."""

    amount: Decimal
    asset: str
    value_quote: Decimal
    cash: Decimal
    base: Decimal


def compute_fee(
    schedule: FeeSchedule,
    *,
    symbol: str,
    side: OrderSide,
    quantity: Decimal,
    price: Decimal,
    bnb_price: Decimal | None = None,
    is_maker: bool = False,
    notional: Decimal | None = None,
) -> Fee:
    """Return the fee of one fill.

    Parameters
    ----------
    schedule : FeeSchedule
        Rates and fee asset.
    symbol : str
        BASE/QUOTE.
    side : OrderSide
        Side of the order.
    quantity : Decimal
        Base units filled, > 0.
    price : Decimal
        Quote per base, > 0.
    bnb_price : Decimal, optional
        Quote per BNB at the fill; without it a BNB fee is booked by its value, in quote.
    is_maker : bool
        The order rested in the book: the maker's rate, else the taker's.
    notional : Decimal, optional
        `quantity x price`, where it is known already.

    Returns
    -------
    Fee
        Amounts >= 0, 18 decimals half to even. Uses nothing of the past.

    Example: BUY 2 at 100, 0.1 %, received -> 0.002 base, worth 0.2 quote.
    """
    base_asset, quote_asset = split_symbol(symbol)
    rate = schedule.maker if is_maker else schedule.taker
    if schedule.asset is FeeAsset.RECEIVED and side is OrderSide.BUY:
        amount = times(quantity, rate)
        return Fee(amount, base_asset, times(amount, price), ZERO, amount)
    value = times(times(quantity, price) if notional is None else notional, rate)
    if schedule.asset is FeeAsset.BNB and base_asset != BNB and bnb_price is not None and bnb_price > 0:
        return Fee(ratio(value, bnb_price), BNB, value, value, ZERO)
    return Fee(value, quote_asset, value, value, ZERO)

"""Signals as a book can decide on them, and what is wrong with the others: pure."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from shared.domain.rounding import money
from shared.models import TIMEFRAME_DELTA, OrderSide, Signal, split_symbol

AMOUNT_MAX = Decimal(10) ** 18


class SignalRefusal(msgspec.Struct, frozen=True):
    """What is wrong with a signal; a number that no table can hold leaves nothing to store."""

    detail: str
    is_storable: bool = True


def refusal_of(signal: Signal, quote_asset: str) -> SignalRefusal | None:
    """Return why `signal` cannot be read, None when it can."""
    for name, value in (("price", signal.price), ("quantity", signal.quantity)):
        if not (value.is_finite() and value.copy_abs() < AMOUNT_MAX):
            return SignalRefusal(f"{name} must be a number below {AMOUNT_MAX:g}, was {value}", is_storable=False)
        if value <= 0:
            return SignalRefusal(f"{name} must be above 0, was {value}")
    if signal.side not in tuple(OrderSide):
        return SignalRefusal(f"side must be BUY or SELL, was {signal.side!r}", is_storable=False)
    if signal.timeframe not in TIMEFRAME_DELTA:
        return SignalRefusal(f"timeframe {signal.timeframe!r} is unknown; use one of {', '.join(TIMEFRAME_DELTA)}")
    try:
        quote = split_symbol(signal.symbol)[1]
    except ValueError as error:
        return SignalRefusal(str(error))
    if quote != quote_asset:
        return SignalRefusal(f"{signal.symbol} is not valued in {quote_asset}, the account's one currency")
    return None


def exact(signal: Signal) -> Signal:
    """Return `signal` with its money quantized to 18 decimals and its side as the enum, also if it came as a word."""
    return msgspec.structs.replace(
        signal, side=OrderSide(signal.side), price=money(signal.price), quantity=money(signal.quantity)
    )

"""The path from a candle to its fill as log records: each bears the id of the candle at its beginning."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from structlog.stdlib import BoundLogger

from shared.domain.effects import REFUSED, Closed, Declined, Effect, Filled, Placed, StateChanged
from shared.events import correlation_of
from shared.models import Candle, Order, Signal


def note_candles(log: BoundLogger, event: str, candles: Iterable[Candle]) -> None:
    """Record what became of each candle (`candle.stored`, `candle.handled`), where anyone listens at DEBUG."""
    if log.is_enabled_for(logging.DEBUG):
        for candle in candles:
            log.debug(event, correlation_id=correlation_of(candle), close=str(candle.close))


def note_signals(log: BoundLogger, signals: Iterable[Signal]) -> None:
    """Record each signal that was stored."""
    if not log.is_enabled_for(logging.INFO):
        return
    log = log.bind()  # a logger that is not bound yet binds itself anew for each record
    for signal in signals:
        log.info(
            "signal.stored",
            correlation_id=correlation_of(signal),
            signal_id=signal.id,
            instance=str(signal.instance),
            side=signal.side,
            price=str(signal.price),
            reason=signal.reason,
        )


def note_effects(log: BoundLogger, effects: Iterable[Effect]) -> None:
    """Record what the book decided; ignored signals at DEBUG, as they concern nobody."""
    log = log.bind()  # a logger that is not bound yet binds itself anew for each record
    if not log.is_enabled_for(logging.INFO):
        effects = [effect for effect in effects if isinstance(effect, StateChanged)]
    for effect in effects:
        if isinstance(effect, Placed):
            log.info("order.placed", **_order(effect.order))
        elif isinstance(effect, Filled):
            fill = effect.fill
            figures = {"fill_id": fill.id, "fill_quantity": str(fill.quantity), "fill_price": str(fill.price)}
            log.info("order.filled", **_order(effect.order), **figures, fee=str(fill.fee), fee_asset=fill.fee_asset)
        elif isinstance(effect, Closed):
            log.info("order.closed", **_order(effect.order))
        elif isinstance(effect, Declined):
            declined = {"signal_id": effect.signal.id, "instance": str(effect.signal.instance)}
            level = logging.INFO if effect.outcome == REFUSED else logging.DEBUG
            log.log(
                level,
                f"signal.{effect.outcome}",
                correlation_id=correlation_of(effect.signal),
                **declined,
                reason=effect.reason,
                detail=effect.detail,
            )
        elif isinstance(effect, StateChanged):
            log.warning("account.state", state=effect.state, reason=effect.reason, detail=effect.detail)


def _order(order: Order) -> dict[str, Any]:
    return {
        "correlation_id": correlation_of(order),
        "order_id": order.id,
        "signal_id": order.signal_id,
        "instance": f"{order.strategy} {order.symbol} {order.timeframe}",
        "side": order.side,
        "status": order.status,
        "quantity": str(order.quantity),
        "purpose": order.purpose,
        "reason": order.reason,
    }

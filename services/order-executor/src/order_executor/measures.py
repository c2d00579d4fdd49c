"""Effects and the account's figures as metrics, once a batch."""

from __future__ import annotations

from collections.abc import Sequence

from shared.domain.book import Book
from shared.domain.effects import REFUSED, Closed, Declined, Effect, Filled, Placed
from shared.domain.risk import ControlState
from shared.domain.rounding import times
from shared.metrics import ServiceMetrics
from shared.models import OrderStatus


def count_effects(metrics: ServiceMetrics, effects: Sequence[Effect]) -> None:
    """Count orders by status, fills, and signals refused or ignored by reason."""
    for effect in effects:
        if isinstance(effect, Declined):
            (metrics.refused if effect.outcome == REFUSED else metrics.ignored)(effect.reason)
        elif isinstance(effect, Placed):
            metrics.order(OrderStatus.PENDING)
        elif isinstance(effect, Filled):
            metrics.order(effect.order.status)
            metrics.fill(effect.fill.strategy, effect.fill.side)
        elif isinstance(effect, Closed):
            metrics.order(effect.order.status)
            if effect.order.status is OrderStatus.EXPIRED:
                metrics.refused(effect.order.reason)


def show_account(metrics: ServiceMetrics, book: Book) -> None:
    """Set equity, drawdown, the day's profit and loss, what the account may do, and the exposure of every symbol."""
    figures = book.figures
    peak = figures.equity_peak
    metrics.equity(float(figures.equity), float(1 - figures.equity / peak) if peak > 0 else 0.0)
    metrics.pnl("day", float(figures.day_pnl))
    metrics.control(figures.state if book.control is ControlState.ACTIVE else book.control)
    if figures.equity > 0:
        for symbol, mark in book.marks.items():
            metrics.exposure(symbol, float(times(book.held(symbol), mark) / figures.equity))

"""An order's legal moves; everything else is a broken invariant."""

from __future__ import annotations

from shared.models import OrderStatus

_S = OrderStatus
TERMINAL_STATUSES = frozenset({_S.FILLED, _S.CANCELED, _S.EXPIRED, _S.REJECTED, _S.FAILED})
WORKING_STATUSES = frozenset({_S.PENDING, _S.PARTIAL, _S.UNKNOWN})
LEGAL_MOVES: dict[OrderStatus, frozenset[OrderStatus]] = {
    _S.PENDING: frozenset({_S.PARTIAL, _S.FILLED, _S.CANCELED, _S.EXPIRED, _S.REJECTED, _S.FAILED, _S.UNKNOWN}),
    _S.UNKNOWN: frozenset({_S.PENDING, _S.PARTIAL, _S.FILLED, _S.CANCELED, _S.EXPIRED, _S.REJECTED, _S.FAILED}),
    _S.PARTIAL: frozenset({_S.FILLED, _S.CANCELED, _S.EXPIRED, _S.UNKNOWN}),
    **dict.fromkeys(TERMINAL_STATUSES, frozenset()),
}


def is_legal_move(current: OrderStatus, new: OrderStatus) -> bool:
    """Return whether an order may go from `current` to `new`.

    Parameters
    ----------
    current, new : OrderStatus
        Staying where one is counts as no move and is not legal.

    Returns
    -------
    bool
        A terminal status (filled, canceled, expired, rejected, failed) never reopens.

    Example: PENDING -> FILLED is legal, FILLED -> PENDING is not.
    """
    return new in LEGAL_MOVES[current]


def move(current: OrderStatus, new: OrderStatus) -> OrderStatus:
    """Return `new`, or crash: an illegal move means that our own books are wrong.

    Parameters
    ----------
    current, new : OrderStatus
        Where the order is and where it should go.

    Raises
    ------
    AssertionError
        Naming both.

    Example: move(PENDING, FILLED) -> FILLED.
    """
    if current is _S.PENDING and new is not _S.PENDING:
        return new  # what nearly every order does; it may become anything else
    if not is_legal_move(current, new):
        raise AssertionError(f"order lifecycle: {current} -> {new} is no legal move")
    return new

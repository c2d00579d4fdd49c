"""The records that the loop reads and writes: how a run trades, the sub-account twice, one entry, one trade.

The loop keeps a book in plain floats and steps of the instrument, which is quick, and trusts it only where it is far
from a border; else the ledger, exact money in pairs of floats, is brought up to the last trade and asked. An AMOUNT is
such a pair, in units of 1e-18.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shared.domain.slippage import VOLUME_WINDOW

AMOUNT = (np.float64, (2,))

# why a signal made no order, by its place among the counts
INSUFFICIENT_CASH, GAP, STOP_COOLDOWN, BELOW_MIN_NOTIONAL, BELOW_STOP, DUST = 0, 1, 2, 3, 4, 5
NOTHING_HELD, ALREADY_IN = 6, 7
REASONS = (
    "insufficient_cash",
    "gap",
    "stop_cooldown",
    "below_min_notional",
    "below_stop",
    "dust",
    "nothing_held",
    "already_in",
)
IGNORED_REASONS = frozenset({"nothing_held", "already_in"})

FIXED, QUOTE, EQUITY_FRACTION, RISK = 0, 1, 2, 3
NONE, BUY_SIDE, SELL_SIDE = 0, 1, 2  # as a step answers
BY_SIGNAL, BY_STOP, BY_TRAILING, BY_TARGET, BY_END = 0, 1, 2, 3, 4
PURPOSES = ("", "stop_loss", "trailing_stop", "take_profit", "end_of_data")

RULES = np.dtype(
    [
        ("taker", *AMOUNT),
        ("maker", *AMOUNT),
        ("unit_cost", *AMOUNT),
        ("half_spread", *AMOUNT),
        ("impact", *AMOUNT),
        ("slip_buy", *AMOUNT),
        ("slip_sell", *AMOUNT),
        ("tick", *AMOUNT),
        ("step", *AMOUNT),
        ("notional_min", *AMOUNT),
        ("amount", *AMOUNT),
        ("signal_quantity", *AMOUNT),
        ("stop_keep", *AMOUNT),
        ("stop_share", *AMOUNT),
        ("anchor_stop", *AMOUNT),
        ("target_rise", *AMOUNT),
        ("trailing_keep", *AMOUNT),
        ("balance", np.float64),
        ("step_size", np.float64),
        ("sizing_amount", np.float64),
        ("signal_steps", np.int64),
        ("sizing", np.int64),
        ("max_entries", np.int64),
        ("first_speaking", np.int64),
        ("timeframe_ms", np.int64),
        ("age_max_ms", np.int64),
        ("cooldown_ms", np.int64),
        ("is_received", np.int64),
        ("is_close", np.int64),
        ("is_gap_refused", np.int64),
        ("has_impact", np.int64),
        ("is_partial", np.int64),
        ("has_stop", np.int64),
        ("has_anchor", np.int64),
        ("has_target", np.int64),
        ("has_trailing", np.int64),
    ]
)

BOOK = np.dtype(
    [
        ("cash", np.float64),
        ("doubt", np.float64),
        ("held", np.float64),
        ("average", np.float64),
        ("high_water", np.float64),
        ("candle_high", np.float64),
        ("held_steps", np.int64),
        ("depth", np.int64),
        ("cooldown_until", np.int64),
        ("order_side", np.int64),
        ("order_steps", np.int64),
        ("order_time", np.int64),
        ("order_purpose", np.int64),
        ("is_level", np.int64),
        ("row", np.int64),
        ("time", np.int64),
        ("trades", np.int64),
        ("signals", np.int64),
        ("contested", np.int64),
        ("cut", np.int64),
        ("participation", np.float64),
        ("recent", np.float64, (VOLUME_WINDOW,)),
        ("recent_seen", np.int64),
        ("is_overflown", np.int64),
        ("declined", np.int64, (len(REASONS),)),
    ]
)

LEDGER = np.dtype(
    [
        ("cash", *AMOUNT),
        ("held", *AMOUNT),
        ("average", *AMOUNT),
        ("fill_high", *AMOUNT),
        ("fees", *AMOUNT),
        ("depth", np.int64),
        ("settled", np.int64),
    ]
)

ENTRY = np.dtype([("steps", np.int64), ("quantity", *AMOUNT)])

TRADE = np.dtype(  # two lines of a processor's cache: what the loop writes, and what the ledger adds later
    [
        ("time", np.int64),
        ("row", np.int32),
        ("side", np.int8),
        ("purpose", np.int8),
        ("is_level", np.int8),
        ("spare", np.int8),
        ("steps", np.int64),
        ("market", np.float64),
        ("price", np.float64),
        ("fee", np.float64),
        ("cash", np.float64),
        ("held", np.float64),
        ("exact_market", *AMOUNT),
        ("exact_price", *AMOUNT),
        ("exact_fee", *AMOUNT),
        ("exact_cash", *AMOUNT),
    ]
)
CACHE_LINE_BYTES = 64


def trade_lines(count: int) -> npt.NDArray[np.void]:
    """Return room for so many trades, each beginning on a line of the cache."""
    room = np.empty(count * TRADE.itemsize + CACHE_LINE_BYTES, dtype=np.uint8)
    start = -room.ctypes.data % CACHE_LINE_BYTES
    return room[start : start + count * TRADE.itemsize].view(TRADE)

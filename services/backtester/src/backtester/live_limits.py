"""What the account limits of live trading would have said to a run's entries, without having said it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from backtester.data import CandleData
from backtester.ratios import sorted_marks
from backtester.result import BacktestResult, to_record
from shared.domain.performance import EquityCurve, FloatArray, IntArray
from shared.domain.risk import Limits
from shared.models import OrderSide, to_milliseconds

DAY_MS, HOUR_MS, MINUTE_MS = 86_400_000, 3_600_000, 60_000

type Flags = npt.NDArray[np.bool_]


def live_refusals(result: BacktestResult, data: CandleData, limits: Limits) -> dict[str, int]:
    """Return how many of the run's entries each limit would have refused.

    Parameters
    ----------
    result : BacktestResult
        A run of one stream without account limits; its BUYs are asked one by one, at the account as it then was.
    data : CandleData
        The candles it ran on.
    limits : Limits
        Those of `trading up`.

    Returns
    -------
    dict of str to int
        By the first reason that binds (`shared.domain.risk.check_increase`). What is refused is not taken out of the
        run, so a day or drawdown that live trading would have avoided still counts. float64: an entry within a
        billionth of a limit may count on either side.

    Example: equity 10,000, limit 0.1 of it, a BUY worth 1,500 -> {"position_size": 1}.
    """
    entries = _entries(result, data)
    if entries is None or result.equity is None:
        return {}
    moments, notionals, held_values = entries
    curve = sorted_marks(result.equity, None).curve
    rows = np.maximum(np.searchsorted(curve.time_ms, moments, side="right") - 1, 0)
    equity = curve.value[rows]
    lost, fallen = _breaches(curve, float(result.initial_balance), limits)
    position = np.zeros(len(rows), dtype=np.bool_)
    if limits.position_size_max < 1:
        position = held_values + notionals > float(limits.position_size_max) * equity
    gross = held_values + notionals > (float(limits.gross_exposure_max) or np.inf) * equity
    rate, hourly = _rates(moments, notionals, limits)
    reasons = ("daily_loss", "drawdown", "position_size", "gross_exposure", "order_rate", "notional_rate")
    flags = np.stack([lost[rows], fallen[rows], position, gross, rate, hourly])
    first = flags.argmax(axis=0)
    return dict(Counter(reasons[int(place)] for place in first[flags.any(axis=0)]))


def _entries(result: BacktestResult, data: CandleData) -> tuple[IntArray, FloatArray, FloatArray] | None:
    """Return decision time, notional at the decision price, and worth of what was held, of every BUY."""
    records = [to_record(trade) for trade in result.trades]
    is_buy = np.array([trade.side is OrderSide.BUY for trade in records], dtype=np.bool_)
    if not is_buy.any():
        return None
    quantities = np.array([float(trade.quantity) for trade in records])
    decided = np.array([to_milliseconds(trade.signal_time or trade.time) for trade in records], dtype=np.int64)
    held = np.cumsum(np.where(is_buy, quantities, -quantities)) - np.where(is_buy, quantities, -quantities)
    rows = np.searchsorted(data.open_time_ms + data.timeframe_ms, decided, side="right") - 1
    price = data.close[np.maximum(rows, 0)]
    return decided[is_buy], (quantities * price)[is_buy], (np.maximum(held, 0.0) * price)[is_buy]


def _breaches(curve: EquityCurve, start: float, limits: Limits) -> tuple[Flags, Flags]:
    """Return at which marks the day's loss and the drawdown limit were in force; the latter stays."""
    days = curve.time_ms // DAY_MS
    before = np.concatenate(([start], curve.value[:-1]))
    opens = np.concatenate(([True], np.diff(days) > 0))
    at_midnight = curve.time_ms % DAY_MS == 0
    first_base = np.where(at_midnight, curve.value, before)
    first_base[0] = start
    base = first_base[np.maximum.accumulate(np.where(opens, np.arange(len(days)), 0))]
    lost = np.zeros(len(days), dtype=np.bool_)
    if limits.daily_loss_pct_max > 0:
        now = curve.value - base <= -base * float(limits.daily_loss_pct_max) / 100
        last = np.maximum.accumulate(np.where(now, days, days.min() - 1))
        lost = last == days
    peak = np.maximum(np.maximum.accumulate(curve.value), start)
    fallen = np.zeros(len(days), dtype=np.bool_)
    if limits.drawdown_pct_max > 0:
        fallen = np.logical_or.accumulate(curve.value - peak <= -peak * float(limits.drawdown_pct_max) / 100)
    return lost, fallen


def _rates(moments: IntArray, notionals: FloatArray, limits: Limits) -> tuple[Flags, Flags]:
    count = np.arange(len(moments))
    too_many = np.zeros(len(moments), dtype=np.bool_)
    if limits.order_rate_max > 0:
        too_many = count - np.searchsorted(moments, moments - MINUTE_MS, side="right") >= limits.order_rate_max
    too_much = np.zeros(len(moments), dtype=np.bool_)
    if limits.notional_per_hour_max > 0:
        spent = np.concatenate(([0.0], np.cumsum(notionals)))
        hour = spent[count + 1] - spent[np.searchsorted(moments, moments - HOUR_MS, side="right")]
        too_much = hour > float(limits.notional_per_hour_max)
    return too_many, too_much

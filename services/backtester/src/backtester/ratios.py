"""The groups of figures that `backtester.metrics` is made of: pairs, annual ratios, exposure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backtester.statistics.bootstrap import sharpe_interval
from shared.domain.performance import (
    DAILY_RETURNS_MIN,
    EquityCurve,
    FloatArray,
    annual_growth,
    daily_equity,
    drawdown_series,
    sharpe_ratio,
    simple_returns,
    sortino_ratio,
)
from shared.domain.rounding import ZERO, plus, ratio
from shared.domain.trade_records import Pairing, TradePair, TradeRecord
from shared.models import OrderSide, to_milliseconds

type EquityMarks = EquityCurve | Sequence[tuple[datetime, Decimal | float]]
_NO_TIME = timedelta(0)


class Marks(NamedTuple):
    """The account at candle closes, oldest first, and what of it was in positions (None: not known)."""

    curve: EquityCurve
    position_value: npt.NDArray[np.float64] | None


class PairFigures(NamedTuple):
    """What closed pairs say."""

    winning_trades: int
    losing_trades: int
    win_rate: float
    profit_factor: float | None
    avg_win: Decimal
    avg_loss: Decimal
    largest_win: Decimal
    largest_loss: Decimal
    avg_holding_period: timedelta


class AnnualFigures(NamedTuple):
    """What the daily series says; the ratios are None below 30 daily returns, 0 without a trade."""

    sharpe_ratio: float | None
    sharpe_ci95: tuple[float, float] | None
    sortino_ratio: float | None
    calmar_ratio: float | None
    cagr: float | None
    too_short: bool
    daily_returns: int


def sorted_marks(equity: EquityMarks, position_values: Iterable[float] | None) -> Marks:
    """Return the marks oldest first, the holdings with them.

    Parameters
    ----------
    equity : EquityCurve or sequence of (close time, value)
        In any order; a time without zone is read as UTC.
    position_values : iterable of float, optional
        Quote, >= 0, one for each mark in the same order.

    Returns
    -------
    Marks
        Marks of one instant keep their order: the last one counts.

    Raises
    ------
    ValueError
        If a mark is not finite or the lengths differ.

    Example: [(Tue, 2), (Mon, 1)] -> values [1, 2].
    """
    if isinstance(equity, EquityCurve):
        curve = equity
    else:
        curve = EquityCurve(
            np.array([to_milliseconds(t if t.tzinfo else t.replace(tzinfo=UTC)) for t, _ in equity], dtype=np.int64),
            np.array([float(value) for _, value in equity], dtype=np.float64),
        )
    held = _floats(position_values)
    if held is not None and len(held) != len(curve.value):
        raise ValueError(f"position_values: expected {len(curve.value)}, one for each mark, was {len(held)}")
    ordered = curve.sorted()
    if held is not None and ordered is not curve:
        held = held[np.argsort(curve.time_ms, kind="stable")]
    return Marks(ordered, held)


def _floats(values: Iterable[float] | None) -> FloatArray | None:
    if values is None or isinstance(values, np.ndarray):
        return values
    return np.array(list(values), dtype=np.float64)


def realised_curve(pairing: Pairing, records: list[TradeRecord], initial_balance: Decimal) -> EquityCurve:
    """Return the account value in realised money at the first fill, at each exit and at the last fill.

    Parameters
    ----------
    pairing : Pairing
        Of `records`.
    records : list of TradeRecord
        Sorted by time.
    initial_balance : Decimal
        Quote.

    Returns
    -------
    EquityCurve
        Fees of an entry count at its exit. A fill at 00:00 belongs to the day that begins, a mark there to the day
        that ends, so each stands one millisecond later.

    Example: start 100, one pair of +5 -> values [100, 105, 105].
    """
    if not records:
        return EquityCurve(np.empty(0, dtype=np.int64), np.empty(0))
    balance = initial_balance
    points = [(records[0].time, float(balance))]
    for pair in pairing.pairs:
        balance = plus(balance, pair.pnl)
        points.append((pair.exit_time, float(balance)))
    points.append((records[-1].time, float(balance)))
    times = np.array([to_milliseconds(moment) + 1 for moment, _ in points], dtype=np.int64)
    return EquityCurve(times, np.array([value for _, value in points]))


def pair_figures(pairs: Sequence[TradePair], *, traded: bool) -> PairFigures:
    """Return what closed pairs say.

    Parameters
    ----------
    pairs : sequence of TradePair
        A pair wins when its PnL net of both legs' fees is above 0 and loses below 0.
    traded : bool
        Whether there was any fill: without one the ratios are 0, with one an undefined ratio is None.

    Returns
    -------
    PairFigures
        `win_rate` in 0..100; `avg_loss` and `largest_loss` are negative; amounts of nothing are 0.

    Example: PnL +3, -1 -> win_rate 50, profit_factor 3.
    """
    wins = [pair.pnl for pair in pairs if pair.pnl > 0]
    losses = [pair.pnl for pair in pairs if pair.pnl < 0]
    won, lost = sum(wins, ZERO), sum(losses, ZERO)
    undefined = None if traded else 0.0
    return PairFigures(
        winning_trades=len(wins),
        losing_trades=len(losses),
        win_rate=100 * len(wins) / len(pairs) if pairs else 0.0,
        profit_factor=float(won / -lost) if lost else undefined,
        avg_win=ratio(won, Decimal(len(wins))) if wins else ZERO,
        avg_loss=ratio(lost, Decimal(len(losses))) if losses else ZERO,
        largest_win=max(wins, default=ZERO),
        largest_loss=min(losses, default=ZERO),
        avg_holding_period=sum((pair.holding_period for pair in pairs), _NO_TIME) / len(pairs) if pairs else _NO_TIME,
    )


def annual_figures(curve: EquityCurve, initial: float, final: float, *, traded: bool) -> AnnualFigures:
    """Return the annual ratios of the daily series.

    Parameters
    ----------
    curve : EquityCurve
        Marks, oldest first.
    initial, final : float
        Account values in quote at the start, > 0, and at the end.
    traded : bool
        Whether there was any fill.

    Returns
    -------
    AnnualFigures
        365 days a year, risk-free rate 0. calmar = cagr / largest drawdown of the daily series; None without one.
        The interval is bootstrapped (`statistics.bootstrap`): None below 60 daily returns and without a trade.

    Example: 12 marked days -> all None, too_short.
    """
    daily = daily_equity(curve, initial)
    returns = simple_returns(daily)
    too_short = len(returns) < DAILY_RETURNS_MIN
    if not traded or too_short:
        none = None if traded else 0.0
        return AnnualFigures(none, None, none, none, none, too_short, len(returns))
    growth = annual_growth(initial, final, len(returns))
    depth = float(drawdown_series(daily).max())
    return AnnualFigures(
        sharpe_ratio=sharpe_ratio(returns),
        sharpe_ci95=sharpe_interval(returns),
        sortino_ratio=sortino_ratio(returns),
        calmar_ratio=growth / depth if growth is not None and depth > 0 else None,
        cagr=growth,
        too_short=False,
        daily_returns=len(returns),
    )


def exposure_share(pairing: Pairing, records: list[TradeRecord], marks: Marks | None) -> float:
    """Return the share of candles with a position; without marks, of the time from the first fill to the last.

    Parameters
    ----------
    pairing : Pairing
        Of `records`.
    records : list of TradeRecord
        Sorted by time.
    marks : Marks or None
        A mark at t counts when something was held just before t.

    Returns
    -------
    float
        0..1. Example: in from 00:01 to 00:03, marks at 00:01 .. 00:04 -> 0.5.
    """
    if not records:
        return 0.0
    if marks is not None and marks.position_value is not None:
        return float((marks.position_value > 0).mean()) if len(marks.position_value) else 0.0
    end_ms = to_milliseconds(records[-1].time) if marks is None else 2**62
    stays = [
        (to_milliseconds(trip.entry_time), end_ms if trip.exit_time is None else to_milliseconds(trip.exit_time))
        for trip in pairing.round_trips
    ]
    if marks is None:
        span = records[-1].time - records[0].time
        return _covered_ms(stays) / (span / timedelta(milliseconds=1)) if span else 0.0
    times = marks.curve.time_ms
    if len(times) == 0:
        return 0.0
    steps = np.zeros(len(times) + 1, dtype=np.int64)
    begins, ends = (np.array(side, dtype=np.int64) for side in zip(*stays, strict=True))
    np.add.at(steps, np.searchsorted(times, begins, side="right"), 1)
    np.add.at(steps, np.searchsorted(times, ends, side="right"), -1)
    return float((np.cumsum(steps[:-1]) > 0).mean())


def exposure_peak(records: list[TradeRecord], curve: EquityCurve, initial: float, marks: Marks | None) -> float:
    """Return the largest share of the account that was in positions.

    Parameters
    ----------
    records : list of TradeRecord
        Sorted by time.
    curve : EquityCurve
        Account values, oldest first.
    initial : float
        Quote, > 0; the account before the first mark.
    marks : Marks or None
        With position values: their largest share at a mark; else holdings at their last fill price, at fills.

    Returns
    -------
    float
        >= 0, 1 = everything. Example: 500 held of 2,000 -> 0.25.
    """
    if marks is not None and marks.position_value is not None:
        alive = marks.curve.value > 0
        shares = marks.position_value[alive] / marks.curve.value[alive]
        return float(shares.max()) if len(shares) else 0.0
    held: dict[str, float] = {}
    price: dict[str, float] = {}
    peak = 0.0
    rows = np.searchsorted(curve.time_ms, [to_milliseconds(trade.time) for trade in records], side="right") - 1
    for trade, row in zip(records, rows.tolist(), strict=True):
        sign = 1 if trade.side == OrderSide.BUY else -1
        held[trade.symbol] = max(held.get(trade.symbol, 0.0) + sign * float(trade.quantity), 0.0)
        price[trade.symbol] = float(trade.price)
        account = float(curve.value[row]) if row >= 0 else initial
        if account > 0:
            peak = max(peak, sum(quantity * price[symbol] for symbol, quantity in held.items()) / account)
    return peak


def _covered_ms(stays: list[tuple[int, int]]) -> int:
    covered, reached = 0, -(2**62)
    for begin, end in sorted(stays):
        covered += max(0, end - max(begin, reached))
        reached = max(reached, end)
    return covered

"""The figures of a run: what was won, by which pairs, at what risk, against what cost."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal

import msgspec

from backtester.benchmark import mean_exposure
from backtester.ratios import (
    EquityMarks,
    annual_figures,
    exposure_peak,
    exposure_share,
    pair_figures,
    realised_curve,
    sorted_marks,
)
from shared.domain.pairing import open_positions, pair_trades
from shared.domain.performance import measure_drawdown, monthly_equity
from shared.domain.rounding import ZERO, minus, money, plus, times
from shared.domain.trade_records import OpenLot, OpenPosition, Pairing, TradePair, TradeRecord
from shared.errors import ConfigError
from shared.models import to_decimal

__all__ = ["DetailedMetrics", "OpenPosition", "RunFacts", "TradePair", "TradeRecord", "compute_detailed_metrics"]

BPS = Decimal(10_000)
PERCENT = Decimal(100)


class DetailedMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Every figure of a run. Money is Decimal in quote, percentages are 0..100, ratios and shares are floats.

    `max_drawdown` is a positive percentage and, like `max_drawdown_duration` (the longest time from a peak to its
    recovery or the end), seen at candle closes only. Amounts of nothing are 0, undefined ratios None; `too_short`
    tells that the annual ones are None for want of 30 daily returns (there are `daily_returns`). `exposure_mean` is the
    mean share of the account in positions, None where holdings were not marked. The defaults are those of a run that
    never began.
    """

    total_return: float = 0.0
    total_trades: int = 0
    winning_trades: int = 0
    losing_trades: int = 0
    win_rate: float = 0.0
    profit_factor: float | None = None
    sharpe_ratio: float | None = None
    sortino_ratio: float | None = None
    calmar_ratio: float | None = None
    max_drawdown: float = 0.0
    max_drawdown_duration: timedelta = timedelta(0)
    monthly_returns: dict[str, float] = {}
    avg_win: Decimal = ZERO
    avg_loss: Decimal = ZERO
    largest_win: Decimal = ZERO
    largest_loss: Decimal = ZERO
    avg_holding_period: timedelta = timedelta(0)
    trade_pairs: tuple[TradePair, ...] = ()
    round_trips: int = 0
    cagr: float | None = None
    sharpe_ci95: tuple[float, float] | None = None
    exposure: float = 0.0
    exposure_peak: float = 0.0
    entries_max: int = 0
    turnover: Decimal = ZERO
    gross_pnl: Decimal = ZERO
    fees_paid: Decimal = ZERO
    breakeven_cost_bps: float | None = None
    monthly_pnl: dict[str, Decimal] = {}
    open_positions: tuple[OpenPosition, ...] = ()
    final_balance_closed: Decimal = ZERO
    too_short: bool = True
    daily_returns: int = 0
    exposure_mean: float | None = None


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What trades and marks alone do not say; each fact is optional.

    `last_prices` value what is open, `closing_fee` (fraction) and `closing_slippage_bps` cost its closing,
    `position_values` are the marked holdings in quote, one for each equity mark, `newest_first` pairs a SELL with the
    newest entry (strategies that may hold several).
    """

    last_prices: dict[str, Decimal] = {}
    closing_fee: Decimal = ZERO
    closing_slippage_bps: Decimal = ZERO
    position_values: Iterable[float] | None = None
    newest_first: bool = False


def compute_detailed_metrics(
    trades: Iterable[TradeRecord],
    initial_balance: Decimal | int | float | str,
    final_balance: Decimal | int | float | str,
    equity: EquityMarks | None = None,
    facts: RunFacts | None = None,
) -> DetailedMetrics:
    """Return every figure of a run.

    Parameters
    ----------
    trades : iterable of TradeRecord
        The fills, in any order.
    initial_balance, final_balance : Decimal
        Account value in quote before the first and after the last candle, the first > 0.
    equity : EquityCurve or sequence of (close time, value), optional
        The marks of the account, one a candle; without them the realised equity (pairs at their exits) stands in.
    facts : RunFacts, optional
        Last prices, closing costs, marked holdings, the order of pairing.

    Returns
    -------
    DetailedMetrics
        `gross_pnl` is before fees at fill prices, open positions included when their last price is known. `exposure`
        is the share of marks with a position (of the time, without marks); `exposure_peak` the largest share of the
        account in positions (measured at fills, where `position_values` is not given).

    Raises
    ------
    ConfigError
        If the initial balance is not a number above 0.
    ValueError
        If a mark is not finite, or marks and `position_values` differ in number.

    Example: 10,000, BUY 1 at 100, SELL 1 at 110, fees 0.1 each -> win_rate 100, gross 10, fees 0.2, 1 round trip.
    """
    facts = facts or RunFacts()
    start, end = _starting_money(initial_balance), to_decimal(final_balance)
    records = sorted(trades, key=lambda trade: trade.time)
    pairing = pair_trades(records, newest_first=facts.newest_first)
    marks = None if equity is None else sorted_marks(equity, facts.position_values)
    curve = realised_curve(pairing, records, start) if marks is None else marks.curve
    months = monthly_equity(curve, float(start))
    fall = measure_drawdown(curve, float(start))
    still_open = open_positions(pairing, facts.last_prices)
    turnover = sum((times(trade.price, trade.quantity) for trade in records), ZERO)
    gross = _gross(pairing, facts.last_prices)
    return DetailedMetrics(
        total_return=float(minus(end, start) / start * PERCENT),
        total_trades=len(records),
        **pair_figures(pairing.pairs, traded=bool(records))._asdict(),
        **annual_figures(curve, float(start), float(end), traded=bool(records))._asdict(),
        max_drawdown=100 * fall.depth,
        max_drawdown_duration=fall.longest,
        monthly_returns={month: _percent(begin, close) for month, (begin, close) in months.items()},
        trade_pairs=pairing.pairs,
        round_trips=sum(trip.exit_time is not None for trip in pairing.round_trips),
        exposure=exposure_share(pairing, records, marks),
        exposure_peak=exposure_peak(records, curve, float(start), marks),
        entries_max=pairing.entries_max,
        turnover=turnover,
        gross_pnl=gross,
        fees_paid=sum((trade.fee for trade in records), ZERO),
        breakeven_cost_bps=float(gross / turnover * BPS) if turnover else 0.0,
        monthly_pnl={month: _change(begin, close) for month, (begin, close) in months.items()},
        open_positions=still_open,
        final_balance_closed=money(minus(end, _closing_cost(still_open, records, facts))),
        exposure_mean=None if marks is None or marks.position_value is None else mean_exposure(marks),
    )


def _gross(pairing: Pairing, last_prices: dict[str, Decimal]) -> Decimal:
    closed = sum((pair.gross_pnl for pair in pairing.pairs), ZERO)
    return plus(closed, sum((_lot_gain(lot, last_prices) for lot in pairing.lots), ZERO))


def _starting_money(balance: Decimal | int | float | str) -> Decimal:
    start = to_decimal(balance)
    if not (start.is_finite() and start > 0):
        raise ConfigError(f"initial balance: must be > 0, was {start}; give the money the run starts with")
    return start


def _lot_gain(lot: OpenLot, last_prices: dict[str, Decimal]) -> Decimal:
    """Return what an open lot gained; first in, first out like the pairs, so that both together are the whole gain."""
    return times(minus(last_prices.get(lot.symbol, lot.price), lot.price), lot.quantity)


def _percent(begin: float, close: float) -> float:
    return 100 * (close / begin - 1) if begin > 0 else 0.0


def _change(begin: float, close: float) -> Decimal:
    return minus(to_decimal(close), to_decimal(begin))


def _closing_cost(still_open: tuple[OpenPosition, ...], records: list[TradeRecord], facts: RunFacts) -> Decimal:
    """Return what selling everything now would cost; a symbol without a last price goes at its last fill's."""
    last_fills = {trade.symbol: trade.price for trade in records}
    keep = (1 - facts.closing_slippage_bps / BPS) * (1 - facts.closing_fee)
    value = sum((times(p.quantity, p.price if p.price is not None else last_fills[p.symbol]) for p in still_open), ZERO)
    return minus(value, times(value, keep))

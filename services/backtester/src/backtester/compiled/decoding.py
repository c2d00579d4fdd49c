"""What the loop wrote, as a result that people and programs read: exact money, times, reasons."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

import numpy as np

from backtester.benchmark import hold_balance, mean_exposure
from backtester.compiled.encoding import to_amounts
from backtester.compiled.layout import BUY_SIDE, BY_SIGNAL, IGNORED_REASONS, NONE, PURPOSES, REASONS
from backtester.compiled.run import LoopOutcome, Records
from backtester.data import CandleData
from backtester.metrics import RunFacts, compute_detailed_metrics
from backtester.options import BacktestOptions
from backtester.ratios import Marks
from backtester.result import BacktestResult
from shared.domain.book import InstanceRules
from shared.domain.fees import FeeAsset
from shared.domain.performance import EquityCurve, FloatArray, IntArray
from shared.domain.rounding import MONEY_CONTEXT, ZERO, minus, plus, ratio, times
from shared.domain.slippage import BPS_BELOW
from shared.domain.trade_records import TradeRecord
from shared.models import OrderSide, from_milliseconds, to_decimal
from shared.strategy import CompiledStrategy


class Finished(NamedTuple):
    """A run that has been made, with all that it was made of."""

    strategy: CompiledStrategy
    options: BacktestOptions
    rules: InstanceRules
    balance: Decimal
    data: CandleData
    outcome: LoopOutcome
    reasons: list[str]


def to_result(finished: Finished) -> BacktestResult:
    """Return the result, equal to the event engine's of the same run."""
    options, outcome, data, start = finished.options, finished.outcome, finished.data, finished.balance
    trades = trade_records(finished)
    close = to_decimal(float(data.close[-1]))
    equity = plus(outcome.cash, times(outcome.held, close))
    values = held_values(outcome, data)
    curve = EquityCurve(data.open_time_ms + data.timeframe_ms, outcome.equity)
    slippage, bps = slippage_paid(outcome.trades, finished.rules.instrument.step_size, options)
    facts = RunFacts(
        last_prices={data.symbol: close},
        closing_fee=options.fee,
        closing_slippage_bps=bps,
        position_values=values,
        newest_first=finished.rules.max_entries > 1,
    )
    detailed = compute_detailed_metrics(trades, start, equity, curve, facts)
    return BacktestResult(
        strategy_name=finished.strategy.name,
        symbol=data.symbol,
        total_trades=len(trades),
        initial_balance=start,
        final_balance=equity,
        profit=minus(equity, start),
        profit_pct=float(minus(equity, start) / start * 100),
        trades=list(trades),
        detailed=detailed,
        engine="compiled",
        timeframe=data.timeframe,
        params=finished.strategy.params.model_dump(mode="json"),
        fill=options.fill,
        fee=options.fee,
        fee_asset=FeeAsset(options.fee_asset).value,
        slippage_bps=bps,
        sizing=str(options.sizing),
        max_entries=finished.rules.max_entries,
        risk="off" if options.limits is None else "live",
        fees_paid=outcome.fees,
        slippage_paid=slippage,
        signals=int(outcome.book["signals"][0]),
        refused=declined(outcome.book, ignored=False),
        ignored=declined(outcome.book, ignored=True),
        equity=curve,
        open_positions=detailed.open_positions,
        benchmarks=_benchmarks(finished, Marks(curve, values), bps),
        notes=_notes(finished),
        exits_contested=int(outcome.book["contested"][0]),
        entries_cut=int(outcome.book["cut"][0]),
        participation_max=None if options.impact is None else float(outcome.book["participation"][0]),
    )


def trade_records(finished: Finished) -> list[TradeRecord]:
    """Return the fills, oldest first, with money to the last of 18 decimals."""
    outcome, symbol, name = finished.outcome, finished.data.symbol, finished.strategy.name
    lines, step = outcome.trades, finished.rules.instrument.step_size
    sides = [OrderSide.BUY if side == BUY_SIDE else OrderSide.SELL for side in lines["side"].tolist()]
    quantities = [MONEY_CONTEXT.multiply(Decimal(steps), step) for steps in lines["steps"].tolist()]
    if finished.options.fee_asset is FeeAsset.RECEIVED:
        taker = finished.options.fee
        quantities = [
            minus(quantity, times(quantity, taker)) if side is OrderSide.BUY else quantity
            for side, quantity in zip(sides, quantities, strict=True)
        ]
    purposes = [PURPOSES[purpose] for purpose in lines["purpose"].tolist()]
    rows = zip(
        map(from_milliseconds, lines["time"].tolist()),
        sides,
        to_amounts(lines["exact_price"]),
        quantities,
        to_amounts(lines["exact_fee"]),
        map(from_milliseconds, signal_times(finished).tolist()),
        to_amounts(lines["exact_cash"]),
        (purpose or reason for purpose, reason in zip(purposes, finished.reasons, strict=True)),
        strict=True,
    )
    return [
        TradeRecord(time, symbol, side, price, quantity, fee, name, signal_time, cash, reason)
        for time, side, price, quantity, fee, signal_time, cash, reason in rows
    ]


def signal_times(finished: Finished) -> IntArray:
    """Return when each fill was decided, in milliseconds: the close of the candle that signalled or met a level."""
    lines, data = finished.outcome.trades, finished.data
    waited = (lines["purpose"] == BY_SIGNAL) & (finished.options.fill != "close")
    times: IntArray = data.open_time_ms[lines["row"] - waited] + data.timeframe_ms
    return times


def held_values(outcome: LoopOutcome, data: CandleData) -> FloatArray:
    """Return what was in positions at each close, in quote."""
    held = _stretched(np.concatenate([[0.0], outcome.trades["held"]]), outcome.trades["row"], data.rows)
    return held * data.close


def _stretched(after: FloatArray, rows: IntArray, count: int) -> FloatArray:
    """Return for each candle the figure after its last trade; `after` begins with the figure before any."""
    return after[np.searchsorted(rows, np.arange(count), side="right")]


def slippage_paid(lines: Records, step_size: Decimal, options: BacktestOptions) -> tuple[Decimal, Decimal]:
    """Return what slippage and tick cost against the market price that each fill met, in quote, and as a rate in bps.

    The rate is the option's, or what a run with slippage by size paid on average.
    """
    paid, worth = ZERO, ZERO
    levels = zip(lines["is_level"].tolist(), to_amounts(lines["exact_market"]), lines["market"].tolist(), strict=True)
    markets = [level if is_level else to_decimal(price) for is_level, level, price in levels]
    rows = zip(to_amounts(lines["exact_price"]), markets, lines["steps"].tolist(), strict=True)
    for price, market, steps in rows:
        quantity = MONEY_CONTEXT.multiply(Decimal(steps), step_size)
        paid = plus(paid, times(quantity, abs(minus(price, market))))
        if options.impact is not None:
            worth = plus(worth, times(quantity, market))
    if options.impact is None:
        return paid, options.slippage_bps
    return paid, ratio(times(paid, BPS_BELOW), worth) if worth else options.impact.half_spread_bps


def declined(book: Records, *, ignored: bool) -> dict[str, int]:
    """Return the counts of signals that made no trade, by reason."""
    counts = dict(zip(REASONS, book["declined"][0].tolist(), strict=True))
    return {
        reason: count for reason, count in sorted(counts.items()) if count and (reason in IGNORED_REASONS) is ignored
    }


def _benchmarks(finished: Finished, marks: Marks, slippage_bps: Decimal) -> dict[str, Decimal]:
    options, data = finished.options, finished.data
    prices = {
        "first_open": to_decimal(float(data.open[0])),
        "last_close": to_decimal(float(data.close[-1])),
        "fee": options.fee,
        "slippage_bps": slippage_bps,
    }
    share = to_decimal(mean_exposure(marks))
    return {
        "hold": hold_balance(finished.balance, **prices),
        "hold at mean exposure": hold_balance(finished.balance, **prices, share=share),
    }


def _notes(finished: Finished) -> tuple[str, ...]:
    notes = []
    if finished.options.fill == "close":
        notes.append("fills at the same candle's close: a price that was gone when the signal was known")
    if contested := int(finished.outcome.book["contested"][0]):
        notes.append(f"{contested} candle(s) reached a stop and the target: decided none by finer ones, else the stop")
    if cut := int(finished.outcome.book["cut"][0]):
        notes.append(f"{cut} BUY(s) were cut to what cash covered")
    if finished.outcome.book["order_side"][0] != NONE:
        notes.append("1 order(s) of the last candle wait for an open that the data does not have")
    return tuple(notes)

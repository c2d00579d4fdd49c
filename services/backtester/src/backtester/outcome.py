"""What a pass over candles comes to: trades, counts, costs and figures of one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from backtester.benchmark import hold_balance, mean_exposure
from backtester.metrics import RunFacts, compute_detailed_metrics
from backtester.options import BacktestOptions
from backtester.playback import Played
from backtester.ratios import sorted_marks
from backtester.result import BacktestResult, RunSeconds
from shared.domain.effects import IGNORED, Closed, Declined, Effect, Filled, Placed
from shared.domain.fees import FeeAsset
from shared.domain.paper import PaperVenue
from shared.domain.rounding import ZERO, minus, plus, ratio, times
from shared.domain.slippage import BPS_BELOW
from shared.domain.trade_records import TradeRecord
from shared.models import Candle, OrderStatus, to_decimal
from shared.strategy_runner import StrategyRunner


class Setup(NamedTuple):
    """One run as it was set up; book and venue hold its end state once it has been played."""

    strategy: Any
    options: BacktestOptions
    candles: Sequence[Candle]
    paper: PaperVenue
    runners: Mapping[tuple[str, str], StrategyRunner]


class Costs(NamedTuple):
    """What trading cost: the taker's fee as a fraction, slippage as a rate, and what both came to in quote."""

    fee: Decimal
    slippage_bps: Decimal
    fees_paid: Decimal
    slippage_paid: Decimal


def make_result(setup: Setup, played: Played, seconds: float) -> BacktestResult:
    """Return the result of a run that has been played."""
    book, options = setup.paper.book, setup.options
    filled = [effect for effect in played.effects if type(effect) is Filled]
    trades, costs = [_trade(effect) for effect in filled], _costs(options, filled)
    equity, start = book.equity(), book.initial_balance
    assert equity is not None, "backtest: everything held has been marked"
    detailed = compute_detailed_metrics(trades, start, equity, played.curve, _facts(setup, played, costs))
    return BacktestResult(
        strategy_name=setup.strategy.name,
        symbol=", ".join(sorted({stream[0] for stream in setup.runners})),
        total_trades=len(trades),
        initial_balance=start,
        final_balance=equity,
        profit=minus(equity, start),
        profit_pct=float(minus(equity, start) / start * 100),
        trades=list(trades),
        detailed=detailed,
        timeframe=setup.candles[0].timeframe if setup.candles else "",
        params=_params(setup.strategy),
        equity=played.curve,
        open_positions=detailed.open_positions,
        benchmarks=_benchmarks(setup, played, costs),
        seconds=RunSeconds(run=seconds),
        **_terms(setup, costs),
        **_counts(setup, played),
    )


def _facts(setup: Setup, played: Played, costs: Costs) -> RunFacts:
    book = setup.paper.book
    return RunFacts(
        last_prices=dict(book.marks),
        closing_fee=costs.fee,
        closing_slippage_bps=costs.slippage_bps,
        position_values=played.position_values,
        newest_first=any(account.rules.max_entries > 1 for account in book.accounts.values()),
    )


def _terms(setup: Setup, costs: Costs) -> dict[str, Any]:
    """Return how the run traded and what that cost, by the result's names."""
    options = setup.options
    entries = {account.rules.max_entries for account in setup.paper.book.accounts.values()}
    return {
        "fill": options.fill,
        "fee": costs.fee,
        "fee_asset": FeeAsset(options.fee_asset).value,
        "slippage_bps": costs.slippage_bps,
        "sizing": str(options.sizing),
        "max_entries": entries.pop() if len(entries) == 1 else 0,
        "risk": "off" if options.limits is None else "live",
        "fees_paid": costs.fees_paid,
        "slippage_paid": costs.slippage_paid,
    }


def _counts(setup: Setup, played: Played) -> dict[str, Any]:
    """Return what was counted on the way, by the result's names."""
    paper = setup.paper
    refused, ignored = _declined(played.effects)
    return {
        "signals": played.signals,
        "refused": refused,
        "ignored": ignored,
        "notes": _notes(setup),
        "faults": _faults(setup),
        "exits_contested": paper.exits_contested,
        "exits_resolved": paper.exits_resolved,
        "entries_cut": paper.entries_cut,
        "participation_max": None if paper.volumes is None else float(paper.volumes.participation_max),
    }


def _trade(effect: Filled) -> TradeRecord:
    fill = effect.fill
    return TradeRecord(
        fill.traded_at,
        fill.symbol,
        fill.side,
        fill.price,
        effect.base_change.copy_abs(),
        fill.fee_quote,
        fill.strategy,
        effect.order.created_at,
        effect.cash,
        fill.reason,
    )


def _costs(options: BacktestOptions, filled: Sequence[Filled]) -> Costs:
    fees, slippage = ZERO, ZERO
    for effect in filled:
        fill, arrival = effect.fill, effect.order.arrival_price
        fees = plus(fees, fill.fee_quote)
        if arrival is not None and arrival != fill.price:  # the tick is part of it
            slippage = plus(slippage, times(fill.quantity, abs(minus(fill.price, arrival))))
    bps = options.slippage_bps
    if options.impact is not None:  # what is closed or held instead pays what the run's own orders paid on average
        market = sum((times(e.fill.quantity, e.order.arrival_price or e.fill.price) for e in filled), ZERO)
        bps = ratio(times(slippage, BPS_BELOW), market) if market else options.impact.half_spread_bps
    return Costs(options.fee, bps, fees, slippage)


def _declined(effects: Iterable[Effect]) -> tuple[dict[str, int], dict[str, int]]:
    refused: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    for effect in effects:
        kind = type(effect)  # most of many are orders and their fills
        if kind is Filled or kind is Placed:
            continue
        if isinstance(effect, Declined):
            (ignored if effect.outcome == IGNORED else refused)[effect.reason] += 1
        elif isinstance(effect, Closed) and effect.order.status is not OrderStatus.CANCELED:
            refused[effect.order.reason] += 1
    return dict(sorted(refused.items())), dict(sorted(ignored.items()))


def _benchmarks(setup: Setup, played: Played, costs: Costs) -> dict[str, Decimal]:
    if len(setup.runners) != 1 or not setup.candles:
        return {}
    share = to_decimal(mean_exposure(sorted_marks(played.curve, played.position_values)))
    prices = {
        "first_open": setup.candles[0].open,
        "last_close": setup.candles[-1].close,
        "fee": costs.fee,
        "slippage_bps": costs.slippage_bps,
    }
    start = setup.paper.book.initial_balance
    return {
        "hold": hold_balance(start, **prices),
        "hold at mean exposure": hold_balance(start, **prices, share=share),
    }


def _faults(setup: Setup) -> tuple[str, ...]:
    return tuple(f"{runner.key}: {runner.fault}" for runner in setup.runners.values() if runner.fault)


def _notes(setup: Setup) -> tuple[str, ...]:
    paper = setup.paper
    notes = [f"put aside after a fault: {fault}" for fault in _faults(setup)]
    if setup.options.fill == "close":
        notes.append("fills at the same candle's close: a price that was gone when the signal was known")
    if paper.exits_contested:
        resolved = f"{paper.exits_resolved} of them by finer candles" if paper.exits_resolved else "none by finer ones"
        notes.append(
            f"{paper.exits_contested} candle(s) reached a stop and the target: decided {resolved}, else the stop"
        )
    if paper.entries_cut:
        notes.append(f"{paper.entries_cut} BUY(s) were cut to what cash covered")
    waiting = sum(len(account.working) for account in paper.book.accounts.values())
    if waiting:
        notes.append(f"{waiting} order(s) of the last candle wait for an open that the data does not have")
    return tuple(notes)


def _params(strategy: Any) -> dict[str, object]:
    params = getattr(strategy, "params", None)
    dump = getattr(params, "model_dump", None)
    return dict(dump(mode="json")) if dump is not None else {}

"""One backtest from request to result: strategy found and configured, candles loaded, run, counted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from backtester.data import DATABASE_SOURCE, CandleData, DataFacts, load_candles, odd_candles
from backtester.detail import DetailCandles, load_detail
from backtester.engines import EngineJob, check_engine, run_on
from backtester.history import history_start
from backtester.live_limits import live_refusals
from backtester.options import BacktestOptions, checked_balance
from backtester.participation import largest_participation
from backtester.ratios import sorted_marks
from backtester.reruns import exact_ladder
from backtester.result import BacktestResult, option_values, to_record
from backtester.statistics.probabilistic import probabilistic_sharpe
from backtester.trials import Trial, record_trials
from backtester.wording import counted
from shared.candle_files import check_stream
from shared.clock import Clock, SystemClock
from shared.domain.performance import DAYS_A_YEAR, FloatArray, daily_equity, sharpe_ratio, simple_returns
from shared.domain.risk import Limits
from shared.errors import ConfigError, PluginError
from shared.instruments import FREE, load_instruments
from shared.plugins import StrategyPlugin, config_hash, discover
from shared.strategy import BaseStrategy

BPS = Decimal(10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestRequest:
    """What a person asks for.

    `data` is a file or `db:`, `detail` a file of finer candles, `trials` the directory of the trial ledger (None:
    none), `live_limits` the account limits that are tried on the run's entries where none are in force.
    """

    strategy: str
    data: str
    symbol: str
    timeframe: str
    params: Mapping[str, Any] = field(default_factory=dict)
    initial_balance: Decimal = Decimal(10_000)
    options: BacktestOptions = field(default_factory=BacktestOptions)
    instrument: str = FREE
    engine: str = "auto"
    start: datetime | None = None
    end: datetime | None = None
    strategies_dir: Path | None = None
    database_url: str | None = None
    trials: Path | None = None
    command: str = ""
    detail: str | None = None
    live_limits: Limits = field(default_factory=Limits)


def run_backtest(
    request: BacktestRequest, *, clock: Clock | None = None, on_progress: Callable[[int, int], None] | None = None
) -> BacktestResult:
    """Return the outcome of a request; every mistake in it is a TradingError that names the place and the remedy.

    `on_progress` is told how many of all candles are done.
    """
    clock = clock or SystemClock()
    check_engine(request.engine)
    check_stream(request.symbol, request.timeframe)
    balance = checked_balance(request.initial_balance)
    plugin = discover(request.strategies_dir).get(request.strategy)
    strategy = plugin.create(request.symbol, request.params)
    notes = list(strategy.check_start(request.timeframe, _round_trip_cost(request.options)))
    instruments = load_instruments(request.instrument, [request.symbol])
    options = replace(request.options, instrument=instruments[request.symbol])

    started = clock.monotonic()
    data = _candles(request)
    detail = None if request.detail is None else load_detail(Path(request.detail).expanduser(), data)
    loaded = clock.monotonic() - started
    fed_from = history_start(strategy, data)
    job = EngineJob(
        strategy=strategy,
        balance=balance,
        options=options,
        data=data,
        clock=clock,
        history_start=fed_from,
        detail=detail if options.has_contested_exits else None,
        on_progress=None if on_progress is None else lambda done: on_progress(done, data.rows),
    )
    result = run_on(request.engine, job)
    if result.faults:
        raise PluginError(f"{plugin.path}: {result.faults[0]}; correct the strategy")
    notes += _data_notes(job, detail)
    made = _how_it_was_made(request, strategy, plugin)
    result = msgspec.structs.replace(
        result,
        live_limits=None if options.limits else live_refusals(result, data, request.live_limits),
        **made,
        data=DataFacts.of(data),
        notes=(*notes, *strategy.notices(), *result.notes),
        options={**option_values(options), "detail": request.detail},
        probabilistic_sharpe=_probabilistic_sharpe(result),
        candles=data,
        participation_max=_participation(result, data),
        ladder=exact_ladder(job, result),
        seconds=msgspec.structs.replace(result.seconds, load=loaded + result.seconds.load),
    )
    return _counted(result, request, plugin, clock)


def _data_notes(job: EngineJob, detail: DetailCandles | None) -> list[str]:
    """Return what a person should know of the candles that the run saw."""
    notes, past, fed = odd_candles(job.data), job.data.history, 0
    if job.history_start is not None and past is not None:
        fed = past.rows - job.history_start
        notes.append(f"fed {counted(fed, 'candle')} of history from before the start")
    warmup, name = job.strategy.warmup_period, job.strategy.name
    if warmup > fed + job.data.rows:
        notes.append(f"{name} may speak from candle {warmup:,} on, and the data holds {fed + job.data.rows:,}")
    if detail is not None:
        is_needed = job.options.has_contested_exits
        notes.append(detail.note if is_needed else "detail: no stop meets a target; not needed")
    return notes


def _candles(request: BacktestRequest) -> CandleData:
    return load_candles(
        DATABASE_SOURCE if request.data == DATABASE_SOURCE else Path(request.data).expanduser(),
        request.symbol,
        request.timeframe,
        request.start,
        request.end,
        database_url=request.database_url,
    )


def _how_it_was_made(request: BacktestRequest, strategy: BaseStrategy, plugin: StrategyPlugin) -> dict[str, Any]:
    """Return what a result says of its making, besides data and options."""
    return {
        "params": strategy.params.model_dump(mode="json") | _own_params(strategy),
        "command": request.command,
        "config_hash": config_hash(strategy),
        "code_hash": plugin.code_hash,
    }


def _round_trip_cost(options: BacktestOptions) -> Decimal:
    """Return what buying and selling costs at least, as a fraction of the notional."""
    bps = options.slippage_bps if options.impact is None else options.impact.half_spread_bps
    return 2 * (options.fee + bps / BPS)


def _own_params(strategy: BaseStrategy) -> dict[str, Any]:
    """Return the parameters of a plug-in that declares none and reads what it is given."""
    if type(strategy).Params is not BaseStrategy.Params:
        return {}
    return {
        name: value for name, value in strategy.given_params.items() if name not in type(strategy).Params.model_fields
    }


def _counted(result: BacktestResult, request: BacktestRequest, plugin: StrategyPlugin, clock: Clock) -> BacktestResult:
    """Return the result with its number in the trial ledger; a ledger that fails is a note, not the loss of the run."""
    if request.trials is None or result.data is None:
        return result
    trial = Trial(
        recorded_at=clock.now(),
        strategy=result.strategy_name,
        code_hash=plugin.code_hash,
        config_hash=result.config_hash,
        params=json.dumps(result.params, sort_keys=True, default=str),
        data_sha256=result.data.sha256,
        symbol=result.symbol,
        timeframe=result.timeframe,
        first=result.data.first,
        last=result.data.last,
        candles=result.data.rows,
        engine=result.engine,
        costs=request.options.cost_words,
        trades=result.total_trades,
        initial_balance=float(result.initial_balance),
        final_balance=float(result.final_balance),
        sharpe_daily=_sharpe_daily(result),
    )
    try:
        recorded = record_trials(request.trials, [trial])
    except ConfigError as error:
        return msgspec.structs.replace(result, notes=(*result.notes, str(error)))
    notes = (*result.notes, recorded.notice) if recorded.notice else result.notes
    return msgspec.structs.replace(result, trial=recorded.number, notes=notes)


def _participation(result: BacktestResult, data: CandleData) -> float | None:
    """Return what the engine counted; one that does not price by size counts nothing, so the fills tell."""
    if result.participation_max is not None:
        return result.participation_max
    return largest_participation([to_record(trade) for trade in result.trades], data)


def _probabilistic_sharpe(result: BacktestResult) -> float | None:
    returns = _daily_returns(result)
    return None if returns is None or not result.total_trades else probabilistic_sharpe(returns)


def _sharpe_daily(result: BacktestResult) -> float | None:
    returns = _daily_returns(result)
    annual = None if returns is None else sharpe_ratio(returns)
    return None if annual is None else annual / math.sqrt(DAYS_A_YEAR)


def _daily_returns(result: BacktestResult) -> FloatArray | None:
    if result.equity is None:
        return None
    return simple_returns(daily_equity(sorted_marks(result.equity, None).curve, float(result.initial_balance)))

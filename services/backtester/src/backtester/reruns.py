"""The same run at other costs, made again by machine code: what the cost ladder calls exact."""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from backtester.compiled.run import CompiledRun, Records, StepsOverflowError
from backtester.engines import COMPILED, EngineJob
from backtester.ladder import COST_FACTORS, cost_ladder, scaled_costs
from backtester.result import BacktestResult, CostRung
from shared.domain.performance import EquityCurve
from shared.domain.rounding import ZERO, money, plus, times
from shared.errors import ConfigError
from shared.models import InstanceKey, to_decimal
from shared.strategy import CompiledStrategy


def exact_ladder(job: EngineJob, result: BacktestResult) -> tuple[CostRung, ...]:
    """Return the run at each multiple of its costs; none where only the event engine can run it, which takes too long.

    Costs that cannot be (a fee of 100 %) leave their rung to the same trades at other prices.
    """
    if result.engine != COMPILED or not isinstance(job.strategy, CompiledStrategy):
        return ()
    found = {factor: _rung(job, job.strategy, factor) for factor in COST_FACTORS if factor != 1}
    return cost_ladder(result, found.get)


def _rung(job: EngineJob, strategy: CompiledStrategy, factor: int) -> CostRung | None:
    try:
        options = scaled_costs(job.options, factor)
        outcome = CompiledRun(strategy, job.balance, options).play(job.data, job.history_start)
    except (ConfigError, StepsOverflowError):
        return None
    key = InstanceKey(strategy.name, job.data.symbol, job.data.timeframe)
    step_size = options.instance_rules(key, strategy).instrument.step_size
    return CostRung(
        factor=factor,
        paid=plus(outcome.fees, _slippage(outcome.trades, step_size)),
        final_balance=plus(outcome.cash, times(outcome.held, to_decimal(float(job.data.close[-1])))),
        is_exact=True,
        equity=EquityCurve(job.data.open_time_ms + job.data.timeframe_ms, outcome.equity),
    )


def _slippage(trades: Records, step_size: Decimal) -> Decimal:
    """Return what slippage cost, as closely as float64 sums it."""
    if not len(trades):
        return ZERO
    quantities = trades["steps"] * float(step_size)
    return money(to_decimal(float(np.sum(quantities * np.abs(trades["price"] - trades["market"])))))

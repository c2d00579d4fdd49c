"""The cost ladder: the same idea at no costs, at its costs, at twice and at three times them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

import numpy as np

from backtester.options import BacktestOptions
from backtester.ratios import sorted_marks
from backtester.result import BacktestResult, CostRung, to_record
from shared.domain.performance import EquityCurve, FloatArray
from shared.domain.rounding import ZERO, minus, plus, times
from shared.models import to_milliseconds

COST_FACTORS = (0, 1, 2, 3)
COST_OPTIONS = ("fee", "fee_maker", "slippage_bps", "half_spread_bps", "impact_bps")


def cost_ladder(
    result: BacktestResult, run_again: Callable[[int], CostRung | None] | None = None
) -> tuple[CostRung, ...]:
    """Return the run at each of `COST_FACTORS`.

    Parameters
    ----------
    result : BacktestResult
        The run at its own costs.
    run_again : callable, optional
        Gives the run at a multiple of its costs; where it gives None, and without it, the same trades are priced anew.

    Returns
    -------
    tuple of CostRung
        Each says whether it is exact. Priced anew, entries that dearer costs would have made impossible still happen,
        and an account that they use up ends with nothing.
    """
    return tuple(_rung(result, factor, run_again) for factor in COST_FACTORS)


def rungs(result: BacktestResult) -> tuple[CostRung, ...]:
    """Return the ladder that the result carries, else the one of the same trades."""
    return result.ladder or cost_ladder(result)


def scaled_costs(options: BacktestOptions, factor: int) -> BacktestOptions:
    """Return run options whose every cost is `factor` times as high; a ConfigError where that cannot be."""
    names = {field.name for field in fields(options)} & set(COST_OPTIONS)
    changes: dict[str, Any] = {
        name: factor * getattr(options, name) for name in names if getattr(options, name) is not None
    }
    return replace(options, **changes)


def _rung(result: BacktestResult, factor: int, run_again: Callable[[int], CostRung | None] | None) -> CostRung:
    paid = plus(result.fees_paid, result.slippage_paid)
    if factor == 1:
        return CostRung(factor=1, paid=paid, final_balance=result.final_balance, is_exact=True)
    exact = None if run_again is None else run_again(factor)
    if exact is not None:
        return exact
    return CostRung(
        factor=factor,
        paid=factor * paid,
        final_balance=max(ZERO, minus(result.final_balance, times(Decimal(factor - 1), paid))),
        is_exact=False,
        equity=_repriced(result, factor, float(paid)),
    )


def _repriced(result: BacktestResult, factor: int, paid: float) -> EquityCurve | None:
    """Return the marks less what the trades up to each would have cost more, spread over them by their notional."""
    if result.equity is None:
        return None
    curve = sorted_marks(result.equity, None).curve
    records = [to_record(trade) for trade in result.trades]
    notionals: FloatArray = np.array([float(trade.price) * float(trade.quantity) for trade in records])
    if not len(notionals) or not len(curve.value):
        return curve
    spent = np.concatenate(([0.0], np.cumsum(notionals) / notionals.sum() * paid))
    moments = np.array([to_milliseconds(trade.time) for trade in records], dtype=np.int64)
    count = np.searchsorted(moments, curve.time_ms, side="left" if result.fill == "next-open" else "right")
    return EquityCurve(curve.time_ms, np.maximum(curve.value - (factor - 1) * spent[count], 0.0))

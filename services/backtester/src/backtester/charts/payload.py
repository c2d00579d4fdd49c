"""The numbers behind a page's charts and its table of trades."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backtester.charts.packing import PackedSeries, pack_closes
from backtester.charts.thinning import draw_candles, thin
from backtester.charts.trips import Excursions, Group, PairColumns, by_holding_time, by_hour, by_size, excursions
from backtester.data import CandleData
from backtester.ladder import rungs
from backtester.metrics import DetailedMetrics
from backtester.participation import PROTECTIVE
from backtester.ratios import sorted_marks
from backtester.result import BacktestResult, to_record
from shared.domain.performance import EquityCurve, FloatArray, IntArray, drawdown_series
from shared.models import OrderSide, to_milliseconds

GROUPS_MAIN, GROUPS_SIDE, CANDLES_DRAWN_MAX = 1_500, 500, 1_500
PAIRS_SHOWN_MAX = 30_000
HISTOGRAM_BINS = 40


def page_payload(
    result: BacktestResult, metrics: DetailedMetrics, *, closes: bool = True, pairs_max: int = PAIRS_SHOWN_MAX
) -> tuple[dict[str, Any], PackedSeries | None]:
    """Return what the page draws, as JSON can hold it, and the packed closes (None: not asked, not known, too many)."""
    candles = result.candles
    pairs = PairColumns.of(metrics.trade_pairs)
    reasons = _exit_reasons(result, metrics)
    inside = np.array([reason in PROTECTIVE for reason in reasons], dtype=np.bool_)
    moves = None if candles is None else excursions(pairs, candles, ended_inside=inside)
    packed = None if candles is None or not closes else pack_closes(candles)
    payload = {
        "quote": result.symbol.rpartition("/")[2],
        "equity": _equity_lines(result, metrics),
        "drawdown": _drawdown(result),
        "candles": None if candles is None else _candles(candles),
        "closes": None if packed is None else packed.facts,
        "fills": _fills(result, 2 * pairs_max),
        "months": _months(metrics),
        "groups": {
            "outcome": _outcomes(pairs),
            "size": _groups(by_size(pairs)),
            "hour": _groups(by_hour(pairs)) if metrics.trade_pairs else [],
            "holding": _groups(by_holding_time(pairs)),
        },
        "stop_pct": _number(result.options.get("stop_loss_pct")),
        "target_pct": _number(result.options.get("take_profit_pct")),
        "pairs": _pair_table(pairs, moves, reasons, pairs_max),
        "pairs_total": len(metrics.trade_pairs),
    }
    return payload, packed


def _equity_lines(result: BacktestResult, metrics: DetailedMetrics) -> list[dict[str, Any]]:
    if result.equity is None:
        return []
    curve = sorted_marks(result.equity, None).curve
    lines = [_line("Strategy", "main", thin(curve, GROUPS_MAIN))]
    lines += (
        [_line(name, kind, thin(other, GROUPS_SIDE)) for name, kind, other in _holds(result, metrics)]
        if len(curve.value)
        else []
    )
    for rung in rungs(result):
        if rung.factor != 1 and rung.equity is not None and len(rung.equity.value):
            lines.append(_line(f"{rung.factor}x costs", "rung", thin(rung.equity, GROUPS_SIDE)))
    return lines


def _holds(result: BacktestResult, metrics: DetailedMetrics) -> list[tuple[str, str, EquityCurve]]:
    """Return what holding brought at every close; its last value is the benchmark's."""
    candles, hold = result.candles, result.benchmarks.get("hold")
    if candles is None or hold is None:
        return []
    start = float(result.initial_balance)
    value = float(hold) / float(candles.close[-1]) * candles.close
    times = candles.open_time_ms + candles.timeframe_ms
    found = [("Hold", "hold", EquityCurve(times, value))]
    if metrics.exposure_mean is not None:
        share = metrics.exposure_mean
        found.append(("Hold at the same exposure", "share", EquityCurve(times, start + share * (value - start))))
    return found


def _drawdown(result: BacktestResult) -> dict[str, Any] | None:
    if result.equity is None:
        return None
    curve = sorted_marks(result.equity, None).curve
    if not len(curve.value):
        return None
    falls = drawdown_series(np.concatenate(([float(result.initial_balance)], curve.value)))[1:]
    return _line("Drawdown", "fall", thin(EquityCurve(curve.time_ms, -100 * falls), GROUPS_SIDE))


def _line(name: str, kind: str, curve: EquityCurve) -> dict[str, Any]:
    return {"name": name, "kind": kind, "x": curve.time_ms.tolist(), "y": _rounded(curve.value)}


def _candles(data: CandleData) -> dict[str, Any]:
    drawn = draw_candles(data, CANDLES_DRAWN_MAX)
    prices = {name: _rounded(getattr(drawn, name)) for name in ("open", "high", "low", "close")}
    return {"step": drawn.step_ms, "own_step": data.timeframe_ms, "x": drawn.time_ms.tolist(), **prices}


def _fills(result: BacktestResult, fills_max: int) -> dict[str, Any]:
    """Return the fills, oldest first; of too many every so many neighbours, mostly a BUY and its SELL."""
    records = sorted((to_record(trade) for trade in result.trades), key=lambda record: record.time)
    each = -(-len(records) // fills_max) or 1
    records = [record for place, record in enumerate(records) if place // 2 % each == 0]
    return {
        "each": each,
        "x": [to_milliseconds(record.time) for record in records],
        "y": _rounded(np.array([float(record.price) for record in records])),
        "buy": [int(record.side == OrderSide.BUY) for record in records],
        "quantity": _rounded(np.array([float(record.quantity) for record in records])),
    }


def _months(metrics: DetailedMetrics) -> list[dict[str, Any]]:
    """Return one row a year: twelve months (None: not traded) and the year in all."""
    rows: dict[str, list[float | None]] = {}
    for month, percent in metrics.monthly_returns.items():
        year, _, number = month.partition("-")
        rows.setdefault(year, [None] * 12)[int(number) - 1] = round(percent, 4)
    years = []
    for year, months in rows.items():
        growth = float(np.prod([1 + percent / 100 for percent in months if percent is not None]))
        years.append({"year": year, "months": months, "total": round(100 * (growth - 1), 4)})
    return years


def _outcomes(pairs: PairColumns) -> dict[str, Any]:
    """Return how many pairs ended in each class of net return; what lies far out is counted in the outermost."""
    if len(pairs.pnl) == 0:
        return {"edges": [], "counts": []}
    net = pairs.pnl_pct
    reach = float(np.quantile(np.abs(net), 0.99)) or 1e-9
    edges = np.linspace(-reach, reach, HISTOGRAM_BINS + 1)
    counts, _ = np.histogram(np.clip(net, -reach, reach), edges)
    return {"edges": _rounded(edges), "counts": counts.tolist()}


def _groups(groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [
        {
            "name": group.name,
            "trips": group.trips,
            "wins": group.wins,
            "pnl": _short(group.pnl),
            "fees": _short(group.fees),
        }
        for group in groups
    ]


def _exit_reasons(result: BacktestResult, metrics: DetailedMetrics) -> list[str]:
    known = {
        (record.time, record.symbol): record.reason
        for record in map(to_record, result.trades)
        if record.side == OrderSide.SELL and record.reason
    }
    return [known.get((pair.exit_time, pair.symbol), "") for pair in metrics.trade_pairs]


def _pair_table(
    pairs: PairColumns, moves: Excursions | None, reasons: list[str], pairs_max: int
) -> dict[str, list[Any]]:
    """Return the newest pairs, a column at a time, oldest first."""
    shown = slice(max(0, len(reasons) - pairs_max), None)
    numbers: dict[str, FloatArray | IntArray] = {
        "entry_price": pairs.entry_price,
        "exit_price": pairs.exit_price,
        "quantity": pairs.quantity,
        "pnl": pairs.pnl,
        "pnl_pct": pairs.pnl_pct,
        "fees": pairs.fees,
    }
    if moves is not None:
        numbers |= {"adverse": moves.adverse, "favourable": moves.favourable}
    columns: dict[str, list[Any]] = {
        "entry_ms": pairs.entry_ms[shown].tolist(),
        "exit_ms": pairs.exit_ms[shown].tolist(),
        **{name: _rounded(values[shown]) for name, values in numbers.items()},
    }
    return columns | {"reason": reasons[shown]}


def _rounded(values: FloatArray | IntArray) -> list[float]:
    return [_short(value) for value in values.tolist()]


def _short(value: float) -> float:
    """Return the number with nine digits, which no chart can show more of."""
    return float(f"{value:.9g}")


def _number(value: Any) -> float:
    return float(value or 0)

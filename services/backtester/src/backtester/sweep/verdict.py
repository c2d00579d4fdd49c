"""What a sweep is worth: the best set of the data beside the best sets of markets in which there is nothing to find.

No best figure leaves here without the range that noise reached; where noise was not measured there is none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from backtester.sweep.run import Swept
from backtester.wording import counted

SCHEMA = "sweep/1"
TITLES = {
    "sharpe": "Sharpe",
    "sortino": "Sortino",
    "calmar": "Calmar",
    "cagr": "growth a year",
    "total_return": "total return %",
}
WITHOUT_NOISE = "noise was not measured (--null 0), so no best set is named: the best of many is good by chance too"


class Noise(NamedTuple):
    """The best figure of each shuffled market; `low` and `high` span them."""

    bests: tuple[float, ...]

    @property
    def low(self) -> float:
        """Return the least of them."""
        return min(self.bests)

    @property
    def high(self) -> float:
        """Return the greatest of them."""
        return max(self.bests)


class Verdict(NamedTuple):
    """The ranking of a sweep by `metric`, best first; without noise there is none, and `why` says so."""

    metric: str
    ranked: pl.DataFrame | None
    noise: Noise | None
    why: str

    @property
    def line(self) -> str:
        """Return the head of the table."""
        if self.ranked is None or self.noise is None:
            return self.why
        best = float(self.ranked[self.metric][0])
        figures = f"best {TITLES[self.metric]} {_figure(best)}; best of noise {_span(self.noise)}"
        shuffles = counted(len(self.noise.bests), "shuffle")
        if not self.ranked["trades"][0]:
            return f"{figures} ({shuffles}): the best set never trades, so nothing was found"
        return f"{figures} ({shuffles}): {'above all of it' if self.is_above else 'not better than noise'}"

    @property
    def is_above(self) -> bool:
        """Return whether the best set traded, and came to more than noise did."""
        if self.ranked is None or self.noise is None:
            return False
        return bool(self.ranked["trades"][0] and self.ranked[self.metric][0] > self.noise.high)


def judge(swept: Swept, metric: str) -> Verdict:
    """Return the ranking of the data's sets by one metric, and what noise reached."""
    table = swept.table
    known = table.filter(pl.col(metric).is_not_nan())
    real = known.filter(pl.col("market") == 0)
    if swept.request.null == 0:
        return Verdict(metric, None, None, WITHOUT_NOISE)
    if not len(real):
        return Verdict(
            metric,
            None,
            None,
            f"no set has a {TITLES[metric]}: the window is too short for it; try --metric total_return",
        )
    if not real["trades"].sum():
        signals = counted(int(real["signals"].sum()), "signal")
        return Verdict(metric, None, None, f"no set made a trade ({signals}), so there is nothing to rank")
    bests = known.filter(pl.col("market") > 0).group_by("market").agg(pl.col(metric).max()).sort("market")
    if not len(bests):
        return Verdict(metric, None, None, f"no shuffled market has a {TITLES[metric]}, so noise is not known")
    ranked = real.sort([metric, "trial"], descending=[True, False])
    return Verdict(metric, ranked, Noise(tuple(bests[metric].to_list())), "")


def with_params(swept: Swept, rows: pl.DataFrame) -> pl.DataFrame:
    """Return trials with the swept parameters in front of their figures."""
    names = list(swept.request.grid)
    given = [swept.sets.given[trial] for trial in rows["trial"].to_list()]
    columns = [pl.Series(name, [values[name] for values in given], strict=False) for name in names]
    return pl.DataFrame([rows["trial"], *columns]).hstack(rows.drop("market", "trial").get_columns())


def head_of(swept: Swept, verdict: Verdict) -> dict[str, Any]:
    """Return what a program is told of a sweep, but for its trials: strict JSON, the best only beside noise."""
    best, noise = None, None
    if verdict.ranked is not None and verdict.noise is not None:
        row = with_params(swept, verdict.ranked.head(1)).row(0, named=True)
        best = {"value": row[verdict.metric], "params": {name: row[name] for name in swept.request.grid}}
        noise = {"best": list(verdict.noise.bests), "low": verdict.noise.low, "high": verdict.noise.high}
    return {
        "schema": SCHEMA,
        "request": swept.identity,
        "command": swept.request.command,
        "metric": verdict.metric,
        "trials": len(swept.sets.given),
        "skipped": swept.sets.skipped,
        "resumed": swept.resumed,
        "shuffles": swept.request.null,
        "noise": noise,
        "best": best,
        "verdict": verdict.line,
        "trials_on_this_data": swept.ledger_number,
        "notices": list(swept.notices),
        "seconds": swept.seconds,
    }


def _figure(value: float) -> str:
    return f"{value:.2f}"


def _span(noise: Noise) -> str:
    low, high = _figure(noise.low), _figure(noise.high)
    return f"{low} to {high}" if noise.low < 0 else f"{low}-{high}"

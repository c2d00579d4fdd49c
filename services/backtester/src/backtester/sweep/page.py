"""A sweep as one page that needs nothing but a browser: its verdict always in sight, its map, its best sets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from backtester.charts.packing import press, press_bytes
from backtester.charts.template import as_text, asset, fill_slots
from backtester.sweep.run import Swept
from backtester.sweep.show import HEADS, figure_cell, figure_columns, largest_fill
from backtester.sweep.verdict import TITLES, Verdict, with_params
from backtester.wording import counted

_ASSETS = "backtester.sweep"
_VALUE_DIGITS = 9


def export_sweep_html(swept: Swept, verdict: Verdict, *, top: int) -> str:
    """Return the sweep as one page that loads nothing; without noise it has no figure of any set."""
    from plotly.offline import get_plotlyjs  # four megabytes, only where a page is wanted

    request, data, is_ranked = swept.request, swept.data, verdict.ranked is not None
    title = f"{request.strategy} on {request.symbol} {request.timeframe}"
    slots = {
        "title": as_text(f"Sweep: {title}"),
        "heading": as_text(title),
        "window": as_text(f"{data.first:%-d %B %Y} to {data.last:%-d %B %Y}, {counted(data.rows, 'candle')}"),
        "verdict": as_text(verdict.line),
        "mood": "bad" if is_ranked and not verdict.is_above else "flat",
        "honesty": "".join(
            f"<div><dt>{as_text(name)}</dt><dd>{as_text(said)}</dd></div>" for name, said in _box(swept)
        ),
        "notes": _notes(swept),
        "command": as_text(request.command or "run from Python, not from the command line"),
        "sections": fill_slots(asset(_ASSETS, "sections.html"), _sections(swept, verdict, top)) if is_ranked else "",
        "footer": as_text(f"trading-backtester {version('trading-backtester')} - compiled engine"),
        "css": asset("backtester.charts", "page.css") + asset(_ASSETS, "sweep.css"),
        "js": asset(_ASSETS, "sweep.js"),
        "plotly": press_bytes(get_plotlyjs().encode()) if is_ranked else "",
        "payload": press(_payload(swept, verdict)),
    }
    return fill_slots(asset(_ASSETS, "sweep.html"), slots)


def _box(swept: Swept) -> Iterator[tuple[str, str]]:
    request, options = swept.request, swept.request.options
    looks = "not counted" if not swept.ledger_number else f"{swept.ledger_number:,} on this data so far"
    yield "Trials", f"{looks}; the best of many is good by chance too"
    yield "Sets", f"{len(swept.sets.given):,}"
    if swept.sets.skipped:
        yield "Not valid", "; ".join(f"{count:,} {reason}" for reason, count in swept.sets.skipped.items())
    yield (
        "Noise",
        (
            f"{counted(request.null, 'shuffle')} of the market, seed {request.seed}: the candles' relative moves in "
            f"another order, first and last price kept. Luck alone beats all of them once in {request.null + 1}."
            if request.null
            else "not measured (--null 0)"
        ),
    )
    yield "Swept", "; ".join(f"{name} {_values(values)}" for name, values in request.grid.items())
    yield "Same in all", ", ".join(f"{name} {value}" for name, value in request.params.items()) or "the defaults"
    costs = f"fee {options.fee} in {options.fee_asset.value}, slippage {options.slippage_words}, fill {options.fill}"
    yield "Costs", f"{costs}, gap {options.gap}"
    if largest_fill(swept):
        yield "Largest fill", f"{largest_fill(swept)}, in any set"
    yield "Sizing", f"{options.sizing} from {request.initial_balance:,f} each"
    yield "Gaps", f"{swept.data.gap_count:,}"
    yield "Data sha256", swept.data.sha256
    yield "Strategy code", str(swept.identity["code_hash"])


def _values(values: tuple[Any, ...]) -> str:
    return f"{values[0]} to {values[-1]} ({counted(len(values), 'value')})" if len(values) > 1 else str(values[0])


def _notes(swept: Swept) -> str:
    notes = [*swept.notices]
    if swept.resumed:
        notes.append(f"{counted(swept.resumed, 'run was', 'runs were')} finished before an interruption")
    lines = "".join(f"<li>{as_text(note)}</li>" for note in notes)
    return f'<ul class="notes">{lines}</ul>' if lines else ""


def _sections(swept: Swept, verdict: Verdict, top: int) -> dict[str, str]:
    """Return the best sets as a table, beside the charts' places."""
    assert verdict.ranked is not None
    names, figures = list(swept.request.grid), figure_columns(verdict)
    heads = [*names, *(HEADS.get(name, TITLES.get(name, name)) for name in figures)]
    rows = with_params(swept, verdict.ranked.head(top)).iter_rows(named=True)
    body = "".join(
        "<tr>" + "".join(f"<td>{as_text(cell)}</td>" for cell in _cells(row, names, figures)) + "</tr>" for row in rows
    )
    return {
        "metric": as_text(TITLES[verdict.metric]),
        "metric_title": as_text(TITLES[verdict.metric][0].upper() + TITLES[verdict.metric][1:]),
        "best_title": f"Best {min(top, len(verdict.ranked)):,} of {counted(len(swept.sets.given), 'set')}",
        "verdict": as_text(verdict.line),
        "heads": "".join(f"<th>{as_text(head)}</th>" for head in heads),
        "rows": body,
    }


def _cells(row: dict[str, Any], names: list[str], figures: list[str]) -> list[str]:
    return [*(str(row[name]) for name in names), *(figure_cell(row[name]) for name in figures)]


def _payload(swept: Swept, verdict: Verdict) -> dict[str, Any]:
    """Return what the charts draw: for every set its place on each axis and its figure (None: not defined)."""
    axes = {name: values for name, values in swept.request.grid.items() if len(values) > 1}
    payload: dict[str, Any] = {
        "metric": TITLES[verdict.metric],
        "axes": [{"name": name, "values": [str(value) for value in values]} for name, values in axes.items()],
        "is_number": [all(isinstance(value, int | float) for value in values) for values in axes.values()],
        "noise": None,
        "places": [],
        "figures": [],
    }
    if verdict.ranked is None or verdict.noise is None:
        return payload
    found = dict(zip(verdict.ranked["trial"].to_list(), verdict.ranked[verdict.metric].to_list(), strict=True))
    for name, values in axes.items():
        place = {value: number for number, value in enumerate(values)}
        payload["places"].append([place[given[name]] for given in swept.sets.given])
    payload["figures"] = [_figure(found.get(trial)) for trial in range(len(swept.sets.given))]
    payload["noise"] = {"low": verdict.noise.low, "high": verdict.noise.high, "bests": list(verdict.noise.bests)}
    return payload


def _figure(value: float | None) -> float | None:
    """Return a figure in few digits, still on the same side of zero."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{_VALUE_DIGITS}g}")

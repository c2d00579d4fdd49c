"""One self-contained page: what the run is worth and what to hold against it on top, its pictures below."""

from __future__ import annotations

from decimal import Decimal
from importlib.metadata import version

from backtester.charts.packing import press, press_bytes
from backtester.charts.payload import PAIRS_SHOWN_MAX, page_payload
from backtester.charts.template import as_text as _text
from backtester.charts.template import asset, fill_slots
from backtester.charts.tiles import tiles
from backtester.ladder import rungs
from backtester.metrics import DetailedMetrics
from backtester.report_rows import Rows, caveats, figure_rows, run_rows, verdict
from backtester.result import BacktestResult
from backtester.wording import counted, show_money, show_signed
from shared.errors import ConfigError

PAGE_BYTES_MAX = 5_000_000
_FRAME_BYTES = 150_000  # what is neither charts nor numbers
_SHRINKING = ((True, PAIRS_SHOWN_MAX), (False, PAIRS_SHOWN_MAX), (False, PAIRS_SHOWN_MAX // 4))
_ASSETS = "backtester.charts"
_BOX = (
    "Fills",
    "Late Fills",
    "Live Limits",
    "Exits",
    "Gaps",
    "Refused",
    "Ignored",
    "Slippage Paid",
    "Largest Fill",
    "P(Sharpe > 0)",
)
_BOX_BELOW = ("Sizing", "Data")


def export_html(result: BacktestResult) -> str:
    """Return the result as one page that loads nothing: charts, their program and their numbers are inside.

    A ConfigError without metrics: there is nothing to draw.
    """
    if result.detailed is None:
        raise ConfigError("html: the run has no metrics to show; run it with them")
    from plotly.offline import get_plotlyjs  # four megabytes, only where a page is wanted

    charts = press_bytes(get_plotlyjs().encode())
    slots = {
        **_head(result),
        **_tables(result, result.detailed),
        "tiles": tiles(result, result.detailed),
        "sections": _asset("sections.html") if result.trades else "",
        "trades_hidden": "" if result.detailed.trade_pairs else "hidden",
        "css": _asset("page.css"),
        "js": _asset("page.js"),
        "plotly": charts,
        "payload": _payload(result, result.detailed, PAGE_BYTES_MAX - len(charts) - _FRAME_BYTES),
    }
    return fill_slots(_asset("page.html"), slots)


def _payload(result: BacktestResult, metrics: DetailedMetrics, bytes_max: int) -> str:
    """Return the page's numbers; where they are too many, without every close, then with the newest pairs only."""
    text = ""
    for closes, pairs_max in _SHRINKING:
        facts, packed = page_payload(result, metrics, closes=closes, pairs_max=pairs_max)
        text = press(facts, b"" if packed is None else packed.planes)
        if len(text) <= bytes_max:
            break
    return text


def _asset(name: str) -> str:
    return asset(_ASSETS, name)


def _head(result: BacktestResult) -> dict[str, str]:
    line = verdict(result)
    head, colon, rest = line.partition(":")
    window = ""
    if result.data is not None:
        data = result.data
        window = f"{data.first:%-d %B %Y} to {data.last:%-d %B %Y}, {counted(data.rows, 'candle')}"
    doubts = caveats(result)
    lost = line.startswith(("DOES", "LOSES"))
    mood = "bad" if lost else "good" if line.startswith("BEATS") and not doubts else "flat"
    but = f'<span class="but">But {_text("; ".join(doubts))}.</span>' if doubts else ""
    title = f"{result.strategy_name} on {result.symbol} {result.timeframe}".strip()
    return {
        "title": _text(f"Backtest: {title}"),
        "heading": _text(title),
        "window": _text(window),
        "verdict": f"<b>{_text(head + colon)}</b>{_text(rest)}{but}",
        "mood": mood,
        "command": _text(result.command or "run from Python, not from the command line"),
        "footer": _text(f"trading-backtester {version('trading-backtester')} - {result.engine} engine"),
    }


def _tables(result: BacktestResult, metrics: DetailedMetrics) -> dict[str, str]:
    steps = rungs(result)
    exact = all(step.is_exact for step in steps)
    how = "The run again at each cost." if exact else "The same trades at other costs: fees and slippage scaled."
    ladder = "".join(
        f"<tr><td>{step.factor}x</td><td>{show_money(step.paid)}</td><td>{show_money(step.final_balance)}</td>"
        f"<td>{_signed(step.final_balance - result.initial_balance)}</td></tr>"
        for step in steps
    )
    notes = "".join(f"<li>{_text(note)}</li>" for note in result.notes)
    return {
        "honesty": "".join(f"<div><dt>{_text(k)}</dt><dd>{v}</dd></div>" for k, v in _honesty(result)),
        "notes": f'<ul class="notes">{notes}</ul>' if notes else "",
        "figures": "".join(f"<tr><td>{_text(k)}</td><td>{_text(v)}</td></tr>" for k, v in _figures(result, metrics)),
        "ladder": ladder,
        "ladder_how": how,
        "reasons": _reasons(result),
    }


def _figures(result: BacktestResult, metrics: DetailedMetrics) -> Rows:
    box = {*_BOX, *_BOX_BELOW, "Trial"}
    return [*figure_rows(metrics), *((label, value) for label, value in run_rows(result) if label not in box)]


def _honesty(result: BacktestResult) -> Rows:
    """Return the rows of the box on top, their values as HTML."""
    known = dict(run_rows(result))
    trial = (
        f"{result.trial} on this data; the more often one looks, the less the best result is worth"
        if result.trial > 1
        else "1 on this data"
        if result.trial
        else "not counted"
    )
    rows = [("Trial", trial), *((label, known[label]) for label in (*_BOX, *_BOX_BELOW) if label in known)]
    rows.append(("Parameters", ", ".join(f"{name} {value}" for name, value in result.params.items()) or "none"))
    found = [(label, _text(value)) for label, value in rows]
    hashes = {
        "Data sha256": "" if result.data is None else result.data.sha256,
        "Strategy code": result.code_hash,
        "Its settings": result.config_hash,
    }
    return found + [(label, f"<code>{_text(value)}</code>") for label, value in hashes.items() if value]


def _reasons(result: BacktestResult) -> str:
    counts = [("refused", *item) for item in sorted(result.refused.items(), key=lambda item: -item[1])]
    counts += [("ignored", *item) for item in sorted(result.ignored.items(), key=lambda item: -item[1])]
    rows = "".join(f"<tr><td>{kind}: {_text(reason)}</td><td>{count:,}</td></tr>" for kind, reason, count in counts)
    return rows or "<tr><td>none</td><td>0</td></tr>"


def _signed(amount: Decimal) -> str:
    mood = "good-text" if amount > 0 else "bad-text" if amount < 0 else ""
    return f'<span class="{mood}">{show_signed(amount)}</span>'

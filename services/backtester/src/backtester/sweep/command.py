"""`trading sweep`: one strategy over a grid of parameters, its best set held against noise."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backtester.data import DATABASE_SOURCE
from backtester.option_types import NumberType, ParameterType, TimeType, parameters
from backtester.options import checked_balance
from backtester.output_paths import STANDARD_OUTPUT, check_outputs
from backtester.sweep.grid import TRIALS_MAX, parse_grid
from backtester.sweep.request import SweepRequest
from backtester.trading_options import DATA_HELP, TRADING_OPTIONS, trading_options
from backtester.trials import TRIALS_FILE
from backtester.wording import counted
from shared.clock import SystemClock
from shared.config import Settings, load_settings
from shared.errors import ConfigError
from shared.redaction import redact_text

if TYPE_CHECKING:
    from backtester.sweep.store import SweepStore

METRIC_NAMES = ("sharpe", "sortino", "calmar", "cagr", "total_return")
NULL_DEFAULT, NULL_MAX, THREADS_MAX = 9, 1000, 256
DATABASE_FILE = "trading.db"
_ARGUMENTS = "sweep.arguments"


class _KeepsArguments(click.Command):
    """Remembers the words it was called with."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse after keeping a copy."""
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--strategy", required=True, help="name of a strategy with a step, for example ema_crossover"),
    click.option("--data", required=True, help=DATA_HELP),
    click.option("--symbol", required=True, help="BASE/QUOTE"),
    click.option("--timeframe", default="1m", show_default=True, help="of the candles"),
    click.option(
        "--grid", "grids", multiple=True, help="name=first:last:step (last included) or name=a,b,c; one a parameter"
    ),
    click.option("--param", "params", multiple=True, type=ParameterType(), help="the same in every set"),
    click.option(
        "--metric", default="sharpe", show_default=True, type=click.Choice(METRIC_NAMES), help="what sets are ranked by"
    ),
    click.option(
        "--null",
        default=NULL_DEFAULT,
        show_default=True,
        type=click.IntRange(0, NULL_MAX),
        help="shuffled markets swept too: what the best of nothing looks like",
    ),
    click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0), help="of the shuffles"),
    click.option("--initial-balance", default="10000", show_default=True, type=NumberType(), help="quote money"),
    *TRADING_OPTIONS,
    click.option("--instrument", default="free", show_default=True, help="venue rules: free, known or a file"),
    click.option(
        "--start", type=TimeType(), help="first open time, UTC; what lies before feeds the strategy's history"
    ),
    click.option("--end", type=TimeType(), help="open times before this one, UTC"),
    click.option("--threads", type=click.IntRange(1, THREADS_MAX), help="[default: one a core]"),
    click.option(
        "--trials-max", default=TRIALS_MAX, show_default=True, type=click.IntRange(min=1), help="combinations at most"
    ),
    click.option("--top", default=10, show_default=True, type=click.IntRange(min=1), help="sets that are listed"),
    click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="[default: sweep.parquet]"),
    click.option("--resume", is_flag=True, help="go on with what an interrupted sweep of the same options left"),
    click.option(
        "--html", "html_out", type=click.Path(dir_okay=False, path_type=Path), help="write one self-contained page"
    ),
    click.option("--json", "json_out", type=click.Path(dir_okay=False, allow_dash=True), help="write it as JSON"),
    click.option("--strategies-dir", type=click.Path(path_type=Path), help="folder of strategy files"),
    click.option(
        "--state", type=click.Path(path_type=Path), help="directory of trial ledger and database [default: var]"
    ),
    click.option("--database-url", help="database that db: reads"),
    click.option("--trials/--no-trials", default=True, show_default=True, help="count the sets in the trial ledger"),
)


def _all_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("sweep", cls=_KeepsArguments)
@_all_options
@click.pass_context
def sweep(ctx: click.Context, /, **given: Any) -> None:
    """Run a strategy with every combination of a grid of parameters.

    The best set is named only beside what the best set of shuffled markets would have been.
    """
    words = redact_text(shlex.join([*ctx.command_path.split(), *ctx.meta[_ARGUMENTS]]))
    request = sweep_request(given, words)
    _check_places(request.out, given)
    from backtester.sweep.page import export_sweep_html
    from backtester.sweep.run import run_sweep  # polars and numba load only for a sweep that can begin
    from backtester.sweep.show import format_sweep, result_table
    from backtester.sweep.store import SweepStore
    from backtester.sweep.verdict import head_of, judge, with_params

    try:
        swept = run_sweep(request, SystemClock(), _progress())
    except KeyboardInterrupt:
        click.echo(f"\n{_interrupted(SweepStore(request.out))}", err=True)
        raise click.Abort from None
    verdict = judge(swept, given["metric"])
    head = head_of(swept, verdict)
    SweepStore(request.out).finish(result_table(swept), head)
    if given["html_out"]:
        given["html_out"].write_text(export_sweep_html(swept, verdict, top=given["top"]), encoding="utf-8")
    ranked = [] if verdict.ranked is None else with_params(swept, verdict.ranked.head(given["top"])).to_dicts()
    report = head | {"out": str(request.out), "top": [_strict(row) for row in ranked]}
    if given["json_out"] == STANDARD_OUTPUT:
        click.echo(json.dumps(report, indent=1, default=str, allow_nan=False))
        return
    if given["json_out"]:
        Path(given["json_out"]).write_text(json.dumps(report, indent=1, default=str, allow_nan=False), encoding="utf-8")
    width, color = min(shutil.get_terminal_size((100, 24)).columns, 160), _color()
    click.echo(format_sweep(swept, verdict, top=given["top"], width=width, color=color), nl=False)
    click.echo(f"every set: {request.out}" + (f", page: {given['html_out']}" if given["html_out"] else ""))


def sweep_request(given: Mapping[str, Any], words: str) -> SweepRequest:
    """Return the request that the options make; a mistake in them is a ConfigError."""
    settings = _settings(given)
    params = parameters(given["params"])
    same = ("strategy", "data", "symbol", "timeframe", "instrument", "start", "end")
    return SweepRequest(
        **{name: given[name] for name in (*same, "null", "seed", "resume")},
        initial_balance=checked_balance(given["initial_balance"]),
        grid=parse_grid(given["grids"], params, given["trials_max"]),
        out=given["out"] or Path("sweep.parquet"),
        params=params,
        options=trading_options(given, settings),
        threads=given["threads"] or os.cpu_count() or 1,
        strategies_dir=Path(settings.strategies_dir) if settings.strategies_dir else None,
        database_url=_database_url(given, settings) if given["data"] == DATABASE_SOURCE else None,
        trials=settings.state if given["trials"] else None,
        command=words,
    )


def _settings(given: Mapping[str, Any]) -> Settings:
    env_file = Path(".env")
    names = ("state", "strategies_dir", "database_url")
    chosen = {key: str(given[key]) for key in names if given[key] is not None}
    return load_settings(chosen, env_file=env_file if env_file.is_file() else None)


def _database_url(given: Mapping[str, Any], settings: Settings) -> str:
    if given["database_url"]:
        return str(given["database_url"])
    if settings.database_url and "state" not in settings.model_fields_set:
        return settings.database_url
    return f"sqlite:///{(settings.state / DATABASE_FILE).absolute()}"


def _check_places(out: Path, given: Mapping[str, Any]) -> None:
    """Refuse, before anything runs, a file that could not be written at the end, or that is read."""
    state = _settings(given).state
    read = (given["data"], given["instrument"], state / TRIALS_FILE, state / DATABASE_FILE)
    check_outputs({"--out": out, "--html": given["html_out"], "--json": given["json_out"]}, read)
    if out.exists() and not out.is_file():
        raise ConfigError(f"--out {out}: is no file that a result could take the place of; give another name")


def _interrupted(store: SweepStore) -> str:
    """Return what an interrupted sweep leaves behind, after removing what would be of no use."""
    store.forsake()
    if not store.folder.is_dir():
        return "interrupted before a trial was finished: nothing is kept"
    return f"interrupted: finished trials are kept in {store.folder}; the same command with --resume goes on with them"


def _strict(row: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def _progress() -> Callable[[int, int], None] | None:
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        filled = 30 * done // total
        line = f"[{'█' * filled}{' ' * (30 - filled)}] {done:,} of {counted(total, 'run')}" if done < total else ""
        click.echo(f"\r\x1b[K{line}", nl=False, err=True)

    return show


def _color() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ

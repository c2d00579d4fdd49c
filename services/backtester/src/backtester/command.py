"""`trading backtest`: the options a person gives, the report a person reads, the files a program reads."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from backtester.data import DATABASE_SOURCE
from backtester.engines import ENGINES
from backtester.option_types import NumberType, ParameterType, TimeType, parameters
from backtester.output_paths import STANDARD_OUTPUT, check_outputs
from backtester.reporter import export_csv, export_json, format_report
from backtester.result import BacktestResult
from backtester.run import BacktestRequest, run_backtest
from backtester.trading_options import DATA_HELP, TRADING_OPTIONS, trading_options
from backtester.trials import TRIALS_FILE
from backtester.verification import (
    OVERRIDES,
    RecordedRun,
    differences,
    read_recorded,
    repeat_words,
    report_lines,
)
from backtester.wording import counted
from shared.config import Settings, load_settings
from shared.errors import ConfigError, TradingError
from shared.instances import account_limits
from shared.redaction import redact_text

DATABASE_FILE = "trading.db"
_ARGUMENTS, _RECORDED = "backtester.arguments", "backtester.recorded"


class _KeepsArguments(click.Command):
    """Remembers the words it was called with: a report says how to make it again."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse after keeping a copy; `--verify` stands for the words that its file recorded."""
        path, others = _named_result(args)
        if path is not None:
            recorded = read_recorded(path)
            ctx.meta[_RECORDED] = recorded
            args = repeat_words(recorded, others)
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)


def _named_result(args: list[str]) -> tuple[Path | None, list[str]]:
    """Return the file that `--verify` names, and the other words."""
    for place, word in enumerate(args):
        option, equals, value = word.partition("=")
        if option == "--verify":
            after = place + (1 if equals else 2)
            if not equals and after > len(args):
                return None, args  # click says that its value is missing
            return Path(value if equals else args[place + 1]), [*args[:place], *args[after:]]
    return None, args


_FILE_OUT = click.Path(dir_okay=False, allow_dash=True)
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--strategy", required=True, help="name of a strategy, for example ema_crossover"),
    click.option("--data", required=True, help=DATA_HELP),
    click.option("--symbol", required=True, help="BASE/QUOTE"),
    click.option("--timeframe", default="1m", show_default=True, help="of the candles"),
    click.option("--param", "params", multiple=True, type=ParameterType(), help="of the strategy; may be repeated"),
    click.option("--initial-balance", default="10000", show_default=True, type=NumberType(), help="quote money"),
    *TRADING_OPTIONS,
    click.option("--detail", help="finer candles of the same symbol: say whether stop or target came first"),
    click.option("--instrument", default="free", show_default=True, help="venue rules: free, known or a file"),
    click.option("--engine", default="auto", show_default=True, type=click.Choice(ENGINES)),
    click.option(
        "--start", type=TimeType(), help="first open time, UTC; what lies before feeds the strategy's history"
    ),
    click.option("--end", type=TimeType(), help="open times before this one, UTC"),
    click.option("--json", "json_out", type=_FILE_OUT, help="write everything as JSON (- for standard output)"),
    click.option("--csv", "csv_out", type=_FILE_OUT, help="write the closed pairs as CSV (- for standard output)"),
    click.option("--html", "html_out", type=_FILE_OUT, help="write one self-contained page (- for standard output)"),
    click.option("--verify", metavar="RESULT.json", help="run a recorded result again and compare it, field by field"),
    click.option("--strategies-dir", type=click.Path(path_type=Path), help="folder of strategy files"),
    click.option(
        "--state", type=click.Path(path_type=Path), help="directory of trial ledger and database [default: var]"
    ),
    click.option("--database-url", help="database that db: reads"),
    click.option("--trials/--no-trials", default=True, show_default=True, help="count this run in the trial ledger"),
)


def _all_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("backtest", cls=_KeepsArguments)
@_all_options
@click.pass_context
def backtest(ctx: click.Context, /, **given: Any) -> None:
    """Run a strategy over history and say what it is worth.

    A signal on a candle fills at the next candle's open, with slippage and fee.
    """
    words = redact_text(shlex.join([*ctx.command_path.split(), *ctx.meta[_ARGUMENTS]]))
    if _RECORDED in ctx.meta:
        ctx.exit(_verify(ctx.meta[_RECORDED], given, words))
    settings = _settings(given)
    outputs = _outputs(given, settings)
    request = _request(given, settings, words)
    result = run_backtest(request, on_progress=_progress())
    for path, text in outputs:
        _write(path, text(result))
    if not any(path == STANDARD_OUTPUT for path, _ in outputs):
        click.echo(format_report(result, width=_width(), color=_color()), nl=False)
        click.echo(_trial_line(result))


def _verify(recorded: RecordedRun, given: dict[str, Any], words: str) -> int:
    """Run a recorded result again, print how it compares, and return the exit code."""
    try:
        request = _request(given | {"trials": False}, _settings(given), words)
        result = run_backtest(request, on_progress=_progress())
    except TradingError as error:
        raise ConfigError(
            f"{recorded.path}: cannot be run again: {error}; {', '.join(OVERRIDES)} say where its data and code are now"
        ) from error
    found = differences(recorded, export_json(result))
    for line in report_lines(recorded, found):
        click.echo(line)
    return 1 if found else 0


def _settings(given: dict[str, Any]) -> Settings:
    env_file = Path(".env")
    chosen = {key: given[key] for key in ("state", "strategies_dir", "database_url") if given[key] is not None}
    if "strategies_dir" in chosen:
        chosen["strategies_dir"] = str(chosen["strategies_dir"])
    return load_settings(chosen, env_file=env_file if env_file.is_file() else None)


def _request(given: dict[str, Any], settings: Settings, words: str) -> BacktestRequest:
    market = ("data", "detail", "symbol", "timeframe", "start", "end", "instrument")
    own = ("strategy", *market, "initial_balance", "engine")
    return BacktestRequest(
        **{name: given[name] for name in own},
        params=parameters(given["params"]),
        options=trading_options(given, settings),
        live_limits=account_limits(settings),
        strategies_dir=Path(settings.strategies_dir) if settings.strategies_dir else None,
        database_url=_database_url(given, settings) if given["data"] == DATABASE_SOURCE else None,
        trials=settings.state if given["trials"] else None,
        command=words,
    )


def _database_url(given: dict[str, Any], settings: Settings) -> str:
    """Return which database `db:` means: the one named, else the state's, else the environment's."""
    if given["database_url"]:
        return str(given["database_url"])
    if settings.database_url and "state" not in settings.model_fields_set:
        return settings.database_url
    return f"sqlite:///{(settings.state / DATABASE_FILE).absolute()}"


def _outputs(given: dict[str, Any], settings: Settings) -> list[tuple[str, Callable[[BacktestResult], str]]]:
    """Return what is to be written where; a place that cannot be written is refused before the run."""
    exports = {"json_out": export_json, "csv_out": export_csv, "html_out": _html}
    state = settings.state
    read = (given["data"], given["detail"], given["instrument"], state / TRIALS_FILE, state / DATABASE_FILE)
    check_outputs({f"--{name.removesuffix('_out')}": given[name] for name in exports}, read)
    return [(given[name], export) for name, export in exports.items() if given[name] is not None]


def _html(result: BacktestResult) -> str:
    from backtester.charts.page import export_html  # charts load only where a page is wanted

    return export_html(result)


def _write(path: str, text: str) -> None:
    if path == STANDARD_OUTPUT:
        click.echo(text, nl=not text.endswith("\n"))
        return
    target = Path(path)
    if target.exists() and not target.is_file():  # such as /dev/null: written, never replaced
        target.write_text(text, encoding="utf-8")
        return
    fresh = target.with_name(f".{target.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(target)


def _progress() -> Callable[[int, int], None] | None:
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        line = f"{done:,} of {counted(total, 'candle')}" if done < total else ""
        if not done:
            line += "; the first run of a strategy makes its machine code, up to half a minute"
        click.echo(f"\r\x1b[K{line}", nl=False, err=True)

    return show


def _trial_line(result: BacktestResult) -> str:
    if not result.trial:
        return "not counted as a trial"
    warning = "; the more often one looks, the less the best result is worth" if result.trial > 1 else ""
    return f"trial {result.trial} on this data{warning}"


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 160)


def _color() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ

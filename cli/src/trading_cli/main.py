"""The command `trading`: nothing but click is loaded until a command is chosen."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

import click

from shared.console_script import end_with_code, quiet_end

DISTRIBUTION: Final = "trading-cli"
GC_THRESHOLDS: Final = (50_000, 20, 100)


class LazyCommand(NamedTuple):
    """Where a command is defined, and what `--help` says of it before it is loaded."""

    module: str
    attribute: str
    help: str


COMMANDS: Final[dict[str, LazyCommand]] = {
    "up": LazyCommand("trading_cli.up", "up", "Run the whole platform in this process, on paper money."),
    "run": LazyCommand("trading_cli.run", "run", "Run one service in a process of its own."),
    "backtest": LazyCommand(
        "trading_cli.backtest", "backtest", "Run a strategy over history and say what it is worth."
    ),
    "sweep": LazyCommand(
        "trading_cli.sweep", "sweep", "Run a strategy over a grid of parameters and hold the best against noise."
    ),
    "status": LazyCommand("trading_cli.status", "status", "Show account, strategies, refusals, gaps and lag."),
    "orders": LazyCommand("trading_cli.tables", "orders", "List orders, newest first."),
    "trades": LazyCommand("trading_cli.tables", "trades", "List fills, newest first."),
    "positions": LazyCommand("trading_cli.tables", "positions", "List what is held, by strategy and symbol."),
    "signals": LazyCommand("trading_cli.tables", "signals", "List signals and what became of them, newest first."),
    "verify": LazyCommand("trading_cli.verify", "verify", "Fold every fill again and compare with what is stored."),
    "new-strategy": LazyCommand(
        "trading_cli.new_strategy", "new_strategy", "Write a strategy of your own to begin with."
    ),
    "allocate": LazyCommand("trading_cli.allocate", "allocate", "Move free cash between strategies."),
    "db": LazyCommand("trading_cli.database", "db", "Upgrade, downgrade or check the tables."),
    "reset": LazyCommand("trading_cli.reset", "reset", "Move a paper state aside: the next start is a first one."),
    "paper-exchange": LazyCommand(
        "trading_cli.paper_exchange", "paper_exchange", "Serve Binance's protocol on this machine, faults on demand."
    ),
    "doctor": LazyCommand("trading_cli.doctor", "doctor", "Check that this machine has what the platform needs."),
}


class TradingGroup(click.Group):
    """Loads a command when it is chosen and turns every deliberate error into one line and its exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import and return one command."""
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        # Libraries, candles and fills hold few cycles: looking for them at the usual pace takes a tenth of the time.
        gc.set_threshold(*GC_THRESHOLDS)
        command: click.Command = getattr(import_module(lazy.module), lazy.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that `args` begin with; an unknown one is refused with the nearest known."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            from difflib import get_close_matches  # only for a mistake

            near = get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(COMMANDS)}"
            ctx.fail(f"no such command {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the list of commands without loading one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in COMMANDS.items()])

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run one command and end the process with its exit code."""
        extra["standalone_mode"] = False
        end_with_code("trading", lambda: super(TradingGroup, self).main(args, prog_name, **extra))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command; a reader that went away ends it without a word."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return quiet_end()


@click.group(cls=TradingGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name=DISTRIBUTION, prog_name="trading", message="%(prog)s %(version)s")
def main() -> None:
    """Trade crypto on your own machine: one strategy, one result, in backtest, paper and live."""

"""The console script `backtester`: `trading backtest` without the rest of `trading`."""

from __future__ import annotations

import sys

import click

from backtester.command import backtest
from shared.errors import TradingError

EXIT_INTERRUPTED = 130


def main() -> None:
    """Run one backtest and end the process with its exit code."""
    try:
        backtest.main(prog_name="backtester", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except TradingError as error:
        click.echo(f"backtester: {' '.join(str(error).split())}", err=True)
        sys.exit(error.exit_code)

"""The console script `paper-exchange`: `trading paper-exchange` without the rest of `trading`."""

from __future__ import annotations

import sys

import click

from paper_exchange.command import paper_exchange
from shared.errors import TradingError

EXIT_INTERRUPTED = 130


def main() -> None:
    """Serve until SIGTERM and end the process with its exit code."""
    try:
        paper_exchange.main(prog_name="paper-exchange", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except TradingError as error:
        click.echo(f"paper-exchange: {' '.join(str(error).split())}", err=True)
        sys.exit(error.exit_code)

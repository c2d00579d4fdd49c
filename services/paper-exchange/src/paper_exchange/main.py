"""The console script `paper-exchange`: `trading paper-exchange` without the rest of `trading`."""

from __future__ import annotations

from paper_exchange.command import paper_exchange
from shared.console_script import run_command


def main() -> None:
    """Serve until SIGTERM and end the process with its exit code."""
    run_command("paper-exchange", paper_exchange)

"""The console script `backtester`: `trading backtest` without the rest of `trading`."""

from __future__ import annotations

from backtester.command import backtest
from shared.console_script import run_command


def main() -> None:
    """Run one backtest and end the process with its exit code."""
    run_command("backtester", backtest)

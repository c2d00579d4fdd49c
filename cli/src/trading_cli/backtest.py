"""`trading backtest`: the backtester's own command."""

from backtester.command import backtest

__all__ = ["backtest"]

"""`trading sweep`: the backtester's own command."""

from backtester.sweep.command import sweep

__all__ = ["sweep"]

"""Wiring of the portfolio manager: `portfolio-manager`, `trading run portfolio-manager`, and a part of `trading up`."""

from __future__ import annotations

import asyncio
import sys

from portfolio_manager.config import PortfolioConfig
from portfolio_manager.loop import PortfolioLoop
from shared.config import Settings
from shared.service import run_service, supervise
from shared.standalone import ServiceParts, serve_alone

SERVICE = "portfolio-manager"


def build_portfolio(settings: Settings, parts: ServiceParts) -> PortfolioLoop:
    """Return the portfolio's loop."""
    return PortfolioLoop(
        parts.database,
        parts.broker,
        PortfolioConfig.from_settings(settings),
        notifier=parts.notifier,
        clock=parts.clock,
        log=parts.log,
        metrics=parts.metrics,
    )


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the portfolio manager until `stop`."""

    async def work(parts: ServiceParts, term: asyncio.Event) -> None:
        loop = build_portfolio(settings, parts)
        parts.health.register_check("portfolio", loop.check)
        parts.health.register_check("portfolio_loop", loop.check_turning, liveness=True)
        await supervise({SERVICE: lambda: loop.run(term)}, term, parts.log)

    await serve_alone(settings, SERVICE, stop, work)


def main() -> None:
    """Run the service until SIGTERM; the exit code says how it ended."""
    sys.exit(run_service(SERVICE, serve))

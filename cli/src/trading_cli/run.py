"""`trading run SERVICE`: one service in a process of its own, on the servers that two URLs name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from shared.config import load_settings
from shared.service import run_service
from trading_cli.setting_options import given, setting_options

SERVICES = {
    "data-collector": "data_collector.main",
    "strategy-engine": "strategy_engine.main",
    "order-executor": "order_executor.main",
    "portfolio-manager": "portfolio_manager.main",
}


@click.command("run")
@click.argument("service", type=click.Choice(sorted(SERVICES)))
@setting_options()
@click.pass_context
def run(context: click.Context, /, service: str, **options: Any) -> None:
    """Run one service until SIGTERM; it needs --database-url and --redis-url (or their variables)."""
    env_file = Path(".env")
    settings = load_settings(given(options), env_file=env_file if env_file.is_file() else None)
    module = import_module(SERVICES[service])
    context.exit(run_service(service, module.serve, lambda: settings))

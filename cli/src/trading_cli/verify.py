"""`trading verify`: every projection folded again from the fills and compared."""

from __future__ import annotations

from pathlib import Path

import click

from portfolio_manager.verification import DIFFERENCES_MAX, Verification, verify_database
from trading_cli.rows_output import short_text, to_json
from trading_cli.stored_state import find_state, read_stored, state_options

SCHEMA = "verify/1"


@click.command("verify")
@state_options
@click.option("--json", "as_json", is_flag=True, help="the outcome as JSON")
@click.pass_context
def verify(ctx: click.Context, /, state: Path | None, database_url: str | None, *, as_json: bool) -> None:
    """Fold every fill again and compare positions, cash, ledger, orders and equity with what is stored.

    Exit code 1 when something differs; that a service is behind is no difference.
    """
    stored = find_state(state, database_url)
    found = read_stored(stored, verify_database)
    if as_json:
        click.echo(to_json(_document(found)))
    else:
        _show(found, stored.name)
    ctx.exit(0 if found.is_clean else 1)


def _document(found: Verification) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "clean": found.is_clean,
        "differences": [
            {"where": each.where, "expected": each.expected, "found": each.found} for each in found.differences
        ],
        "fills": found.fills,
        "orders": found.orders,
        "signals": found.signals,
        "as_of": found.as_of,
        "lags": dict(found.lags),
    }


def _show(found: Verification, name: str) -> None:
    for difference in found.differences:
        click.echo(f"DIFFERENCE  {difference}")
    if len(found.differences) >= DIFFERENCES_MAX:
        click.echo(f"            only the first {DIFFERENCES_MAX} are shown")
    until = f" up to {short_text(found.as_of)} UTC" if found.as_of else ""
    outcome = "everything agrees" if found.is_clean else f"{len(found.differences)} differences"
    looked = f"{found.fills} fills, {found.orders} orders, {found.signals} signals{until}"
    click.echo(f"verify {name}: {outcome} ({looked})")
    for service, lag in found.lags.items():
        click.echo(f"lag    {service}: {lag}")

"""`trading db copy`: a database into another one, for the way from one machine's file to PostgreSQL."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from shared.clock import SystemClock
from shared.config import SERVICE_PORTS
from shared.db import Database
from shared.db_copy import CopiedTable, copy_database
from shared.db_url import parse_database_url
from shared.errors import ConfigError, StateLocked
from shared.lease import holders_of
from trading_cli.rows_output import to_json
from trading_cli.state_dir import state_holder
from trading_cli.stored_state import StoredState, find_state, open_stored

SCHEMA = "db-copy/1"


@click.command("copy")
@click.option("--from", "source", help="database to read [default: that of the state directory]")
@click.option("--to", "target", required=True, help="empty database to fill; its tables are made")
@click.option("--state", type=click.Path(path_type=Path), help="state directory [default: TRADING_STATE, else var]")
@click.option("--json", "as_json", is_flag=True, help="the outcome as JSON")
def copy(source: str | None, target: str, state: Path | None, *, as_json: bool) -> None:
    """Copy every table, read it back, compare counts and hashes, and commit only when all agree.

    Nothing may run on the source meanwhile; a target that holds rows is refused. Both may be SQLite or PostgreSQL.
    """
    stored = find_state(state, source)
    stored.require()
    if parse_database_url(stored.url).url == parse_database_url(target).url:
        raise ConfigError(f"db copy: --from and --to are the same database, {stored.name}; name another one")
    copied = asyncio.run(_copy(stored, target, quiet=as_json))
    if as_json:
        tables = [{"table": each.name, "rows": each.rows, "sha256": each.sha256} for each in copied]
        click.echo(to_json({"schema": SCHEMA, "tables": tables, "rows": sum(each.rows for each in copied)}))
        return
    rows = sum(each.rows for each in copied)
    click.echo(f"{parse_database_url(target)}: {len(copied)} tables, {rows} rows, all as in {stored.name}")


async def _copy(stored: StoredState, target: str, *, quiet: bool) -> list[CopiedTable]:
    def tell(table: CopiedTable) -> None:
        if not quiet and table.rows:
            click.echo(f"{table.name:<22} {table.rows:>10} rows  sha256 {table.sha256[:16]}")

    path = parse_database_url(stored.url).path
    pid = state_holder(path.parent) if path is not None else None
    if pid is not None:
        raise StateLocked(f"db copy: {stored.name} is in use by process {pid}; stop it first")
    destination = Database(target, clock=SystemClock())
    try:
        async with open_stored(stored) as origin:
            holders = await holders_of(origin, tuple(SERVICE_PORTS))
            if holders:
                raise StateLocked(f"db copy: {stored.name}: {holders[0]}; stop every service first")
            await destination.init_tables()
            return await copy_database(origin, destination, tell)
    finally:
        await destination.close()

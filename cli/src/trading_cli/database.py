"""`trading db`: the tables brought up, back, checked, or copied into another database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import click

from shared.config import SERVICE_PORTS
from shared.db import Database
from shared.db_migrations import head_revision, migrations_folder
from shared.db_url import parse_database_url
from shared.errors import ConfigError, StateLocked
from shared.lease import holders_of
from trading_cli.database_copy import copy
from trading_cli.state_dir import hold_state
from trading_cli.stored_state import StoredState, find_state, state_options


@click.group("db")
def db() -> None:
    """Upgrade, downgrade or check the tables of a database, or copy it into another."""


db.add_command(copy)


@db.command("upgrade")
@state_options
@click.option("--revision", default="head", show_default=True, help="where to stop")
def upgrade(state: Path | None, database_url: str | None, revision: str) -> None:
    """Bring the tables to the revision of this build; an SQLite file of an older one is copied first."""
    stored = find_state(state, database_url)

    async def work(database: Database) -> None:
        before = await database.revision()
        copy = await database.upgrade(revision)
        after = await database.revision()
        if copy is not None:
            click.echo(f"copied the database of revision {before} to {copy}")
        click.echo(f"{stored.name}: revision {after}" + (" (unchanged)" if before == after else f", was {before}"))

    _change(stored, work)


def _one_revision(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if value.startswith("-") and not value[1:].isdigit():
        raise click.NoSuchOption(value)
    return value


@db.command("downgrade", context_settings={"ignore_unknown_options": True})  # `-1` is a revision, not an option
@state_options
@click.argument("revision", default="-1", callback=_one_revision)
@click.option("--yes", is_flag=True, help="do it: a downgrade drops what older tables have no room for")
def downgrade(state: Path | None, database_url: str | None, revision: str, *, yes: bool) -> None:
    """Take the tables back to REVISION [default: -1, one step; base: none left]. No service may run meanwhile."""
    stored = find_state(state, database_url)
    stored.require()
    if not yes:
        raise ConfigError(f"db downgrade: {stored.name} loses what revision {revision} cannot hold; repeat with --yes")

    async def work(database: Database) -> None:
        await _refuse_while_served(database, stored)
        await database.downgrade(revision)
        click.echo(f"{stored.name}: revision {await database.revision() or 'none, no tables'}")

    _change(stored, work)


@db.command("check")
@state_options
@click.pass_context
def check(ctx: click.Context, /, state: Path | None, database_url: str | None) -> None:
    """Say whether revision and tables are those of this build; exit code 1 when they are not."""
    stored = find_state(state, database_url)
    stored.require()

    async def work(database: Database) -> list[str]:
        found, expected = await database.revision(), head_revision(migrations_folder())
        if found != expected:
            return [f"revision {found or 'none'}, this build expects {expected}; run `trading db upgrade`"]
        return await database.schema_differences()

    faults = _with_database(stored, work)
    for fault in faults:
        click.echo(f"DIFFERENCE  {fault}")
    click.echo(f"{stored.name}: {'tables are not those of this build' if faults else 'tables are as they must be'}")
    ctx.exit(1 if faults else 0)


async def _refuse_while_served(database: Database, stored: StoredState) -> None:
    holders = await holders_of(database, tuple(SERVICE_PORTS)) if await database.revision() else []
    if holders:
        raise StateLocked(
            f"db downgrade: {stored.name}: {'; '.join(holders)}; stop every service first: none can use older tables"
        )


def _change(stored: StoredState, work: Callable[[Database], Awaitable[None]]) -> None:
    """Run `work` while nobody else has the state."""
    with ExitStack() as stack:
        if stored.is_own:
            stack.enter_context(hold_state(stored.directory))
        else:
            _make_folder(stored)
        _with_database(stored, work)


def _make_folder(stored: StoredState) -> None:
    path = parse_database_url(stored.url).path
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"database_url: {path.parent} cannot be made ({error.strerror}); give another") from error


def _with_database[T](stored: StoredState, work: Callable[[Database], Awaitable[T]]) -> T:
    async def working() -> T:
        database = Database(stored.url)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(working())

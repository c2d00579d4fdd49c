"""Finds the database that a reading command means, and opens it without writing to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from sqlalchemy import text

from shared.config import Settings, load_settings
from shared.db import Database
from shared.db_migrations import head_revision, migrations_folder, revision_fault
from shared.db_url import parse_database_url
from shared.errors import ConfigError, DatabaseError
from trading_cli.state_dir import database_url as url_of_state

ENV_FILE = Path(".env")


@dataclass(frozen=True, slots=True)
class StoredState:
    """Which database, and the settings it was found by; `is_own` when it is the state directory's file."""

    settings: Settings
    url: str
    is_own: bool

    @property
    def directory(self) -> Path:
        """Return the state directory."""
        return self.settings.state

    @property
    def name(self) -> str:
        """Return what to call it in a message."""
        return str(self.directory) if self.is_own else str(parse_database_url(self.url))

    def require(self) -> None:
        """Refuse a state that was never made."""
        path = parse_database_url(self.url).path
        if path is not None and not path.is_file():
            where = f"state: {self.directory}" if self.is_own else f"database_url: {path}"
            raise ConfigError(f"{where}: holds no database; start one with `trading up`, or give another --state")


def state_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --state and --database-url to a command."""
    for option in (
        click.option("--database-url", help="database to use instead of the state's own"),
        click.option(
            "--state", type=click.Path(path_type=Path), help="state directory [default: TRADING_STATE, else var]"
        ),
    ):
        command = option(command)
    return command


def cli_settings(**options: Any) -> Settings:
    """Return the settings with the options that were given, from the environment and a `.env` beside us."""
    return load_settings(options, env_file=ENV_FILE if ENV_FILE.is_file() else None)


def find_state(state: Path | None, database_url: str | None) -> StoredState:
    """Return the database that is meant: the URL or the state of the command line, then those of the environment.

    In the environment the URL goes before the state, as it does for the services, which keep only logs there then.
    """
    settings = cli_settings(state=state, database_url=database_url)
    if settings.database_url and (database_url or state is None):
        return StoredState(settings, settings.database_url, is_own=False)
    return StoredState(settings, url_of_state(settings.state), is_own=True)


@asynccontextmanager
async def open_stored(stored: StoredState) -> AsyncIterator[Database]:
    """Give the database for reading: there, and at the revision of this build; nothing waits for a writer."""
    stored.require()
    database = Database(stored.url)
    try:
        await _check_revision(database, stored)
        yield database
    finally:
        await database.close()


def read_stored[T](stored: StoredState, work: Callable[[Database], Awaitable[T]]) -> T:
    """Return what `work` reads from the database."""

    async def reading() -> T:
        async with open_stored(stored) as database:
            return await work(database)

    return asyncio.run(reading())


async def _check_revision(database: Database, stored: StoredState) -> None:
    expected, target = head_revision(migrations_folder()), parse_database_url(stored.url)
    try:
        async with database.read() as session:
            found = (await session.execute(text("SELECT version_num FROM alembic_version"))).scalar_one_or_none()
    except DatabaseError as error:
        if "tables are missing" not in str(error) and "a table is missing" not in str(error):
            raise
        found = None
    if found != expected:
        raise revision_fault(found, expected, target)

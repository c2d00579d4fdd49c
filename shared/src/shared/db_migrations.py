"""Brings a database to the revision this build expects, and says when it is at another."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from shared.db_faults import UPGRADE_COMMAND, reaching, translated
from shared.db_url import DatabaseTarget
from shared.errors import DatabaseError
from shared.sa_models import Base

_ADVISORY_LOCK = 7_215_316_021


def migrations_folder() -> Path:
    """Return the folder of the migrations: inside the installed package, or beside `src` in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "alembic", package.parents[1] / "alembic"):
        if (folder / "env.py").is_file():
            return folder
    raise DatabaseError(f"migrations: no folder `alembic` beside {package}; install the package again")


def head_revision(folder: Path) -> str:
    """Return the newest revision in `folder`."""
    head = ScriptDirectory.from_config(_config(folder)).get_current_head()
    assert head is not None, f"no migration in {folder}"
    return head


def upgrade(connection: Connection, folder: Path, revision: str = "head") -> None:
    """Run the migrations up to `revision` inside the connection's transaction."""
    _run(connection, folder, lambda config: command.upgrade(config, revision))


def downgrade(connection: Connection, folder: Path, revision: str) -> None:
    """Run the migrations back to `revision` inside the connection's transaction."""
    _run(connection, folder, lambda config: command.downgrade(config, revision))


def differences(connection: Connection) -> list[str]:
    """Return what the tables and the row classes do not agree on; empty when they do."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return [str(difference) for difference in compare_metadata(context, Base.metadata)]


def current_revision(connection: Connection) -> str | None:
    """Return the revision of the database, None where it has no tables."""
    return MigrationContext.configure(connection).get_current_revision()


def revision_fault(found: str | None, expected: str, target: DatabaseTarget) -> DatabaseError:
    """Return the error that names the revision found, the one expected and what mends it."""
    state = "has no tables" if found is None else f"is at revision {found}"
    return DatabaseError(f"{target}: {state}, this build expects {expected}; run `{UPGRADE_COMMAND}`")


async def migrating[T](
    target: DatabaseTarget, work: Callable[[Connection], T], existing: AsyncConnection | None = None
) -> T:
    """Run `work` in one transaction of a connection of its own, with SQLite's foreign keys off.

    SQLite changes a table by copying it, which with foreign keys on would break the rows that point to it; they
    are checked before the commit instead. `existing` is the only connection of an in-memory database.
    """
    if existing is not None:
        return await existing.run_sync(work)
    engine = create_async_engine(target.url, poolclass=NullPool, connect_args=_connect_args(target))
    if target.is_sqlite:
        event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with translated(target), reaching(target):
            async with engine.begin() as connection:
                if not target.is_sqlite:  # several services may start at once
                    await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
                done = await connection.run_sync(work)
                if target.is_sqlite:
                    broken = (await connection.exec_driver_sql("PRAGMA foreign_key_check")).all()
                    assert not broken, f"the migration left rows without what they point to: {broken[:5]}"
                return done
    finally:
        await engine.dispose()


def copy_beside(path: Path, revision: str, now: datetime) -> Path:
    """Copy an SQLite file, its write-ahead log included, to a name that bears its revision; return the copy."""
    copy = path.with_name(f"{path.name}.{revision}.{now:%Y%m%dT%H%M%S%fZ}.bak")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as destination:
        source.backup(destination)
    return copy


def _connect_args(target: DatabaseTarget) -> dict[str, object]:
    return {"timeout": 30.0, "isolation_level": None} if target.is_sqlite else {"timeout": 10.0}


def _config(folder: Path) -> Config:
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _run(connection: Connection, folder: Path, work: Callable[[Config], None]) -> None:
    config = _config(folder)
    config.attributes["connection"] = connection
    try:
        work(config)
    except CommandError as error:
        raise DatabaseError(f"migrations: {error}; was this database made by a newer build?") from error

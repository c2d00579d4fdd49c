"""How Alembic reaches the database: on a connection handed in, or at DATABASE_URL, or at the ini file's URL."""

from __future__ import annotations

import asyncio
import os
from logging.config import fileConfig
from typing import Any

from alembic import context
from sqlalchemy import Connection

from shared.db_migrations import migrating
from shared.db_url import parse_database_url
from shared.sa_models import Base
from shared.sa_types import Money, UtcDateTime


def database_url() -> str:
    """Return the URL; the environment wins and is never interpolated, so it may hold a percent sign."""
    return os.environ.get("DATABASE_URL") or context.config.get_main_option("sqlalchemy.url") or ""


def render_item(kind: str, item: Any, _autogenerate: Any) -> str | bool:
    """Write our own column types by their short names into new migrations."""
    if kind == "type" and isinstance(item, Money | UtcDateTime):
        return f"{item.__class__.__name__}()"
    return False


def run(connection: Connection) -> None:
    """Run the migrations inside the connection's transaction."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        compare_type=True,
        render_item=render_item,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_offline() -> None:
    """Print the SQL instead of running it."""
    target = parse_database_url(database_url())
    context.configure(
        dialect_name=target.dialect, target_metadata=Base.metadata, literal_binds=True, render_as_batch=True
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    """Run on the connection of `shared.db`, or make one when called by the command `alembic`."""
    given = context.config.attributes.get("connection")
    if given is not None:
        run(given)
        return
    if context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    if context.is_offline_mode():
        run_offline()
    else:
        asyncio.run(migrating(parse_database_url(database_url()), run))


main()

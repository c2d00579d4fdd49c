"""Migrations on filled databases: up, down, from any directory, from the wheel, together and interrupted."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Boolean, CheckConstraint, Integer, LargeBinary, Table, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.clock import ManualClock
from shared.db import Database
from shared.db_migrations import head_revision, migrations_folder
from shared.errors import DatabaseError
from shared.sa_models import Base
from shared.sa_types import Money, UtcDateTime

pytestmark = pytest.mark.thorough

PROJECT = Path(__file__).resolve().parents[1]
CHECKED = {
    "side": "BUY",
    "status": "PENDING",
    "state": "ACTIVE",
    "outcome": "ordered",
    "purpose": "signal",
    "leg": "fee",
}
EXAMPLES: tuple[tuple[type[Any], Any], ...] = (
    (Money, Decimal("12345678901234567890.123456789012345678")),
    (UtcDateTime, datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
    (Boolean, True),
    (Integer, 7),
    (LargeBinary, b"\x00\xff"),
)
NEXT = '''
"""A later revision."""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0003", "0002"

def upgrade():
    with op.batch_alter_table("orders") as orders:
        orders.add_column(sa.Column("note", sa.Text(), server_default="none", nullable=False))
        orders.alter_column("reason", new_column_name="cause")
    {then}

def downgrade():
    with op.batch_alter_table("orders") as orders:
        orders.drop_column("note")
        orders.alter_column("cause", new_column_name="reason")
'''


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables, on SQLite and on PostgreSQL; the password of the latter holds a percent sign."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/fresh.db"
    return str(request.getfixturevalue("make_empty_postgres_url")())


@pytest.fixture
def later(tmp_path: Path) -> Callable[[str], Path]:
    """Make a folder of migrations that goes one revision further than this build."""

    def make(then: str = "") -> Path:
        folder = tmp_path / "later"
        shutil.copytree(migrations_folder(), folder)
        (folder / "versions" / "0002_note.py").write_text(NEXT.replace("{then}", then))
        return folder

    return make


def example(column: Any) -> Any:
    """Return a value that the column takes."""
    for kind, value in EXAMPLES:
        if isinstance(column.type, kind):
            return value
    if column.name in CHECKED and column.table.name != "order_attempts":
        return CHECKED[column.name]
    return "1"


async def fill(database: Database) -> dict[str, dict[str, Any]]:
    """Store one row in every table and return them by table."""
    rows: dict[str, dict[str, Any]] = {}
    classes = {mapper.local_table.name: mapper.class_ for mapper in Base.registry.mappers}
    async with database.get_session() as session:
        for table in Base.metadata.sorted_tables:
            rows[table.name] = {column.name: example(column) for column in table.columns}
            await database.insert_rows(session, classes[table.name], [rows[table.name]])
    return rows


async def contents(database: Database) -> dict[str, dict[str, Any]]:
    """Return the only row of every table."""

    async def row(session: AsyncSession, table: Table) -> dict[str, Any]:
        return dict((await session.execute(select(table))).mappings().one())

    async with database.read() as session:
        return {table.name: await row(session, table) for table in Base.metadata.sorted_tables}


async def table_names(database: Database) -> set[str]:
    async with database.read() as session:
        connection = await session.connection()
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))


async def test_up_and_down_on_a_filled_database(empty_url: str) -> None:
    database = Database(empty_url)
    assert await database.revision() is None
    await database.init_tables()
    assert await database.revision() == head_revision(migrations_folder())
    rows = await fill(database)
    assert await contents(database) == rows
    await database.init_tables()
    assert await contents(database) == rows
    await database.downgrade("base")
    assert await table_names(database) <= {"alembic_version", "sqlite_sequence"}
    await database.init_tables()
    assert await fill(database) == rows
    await database.close()


async def test_the_migrations_make_what_the_row_classes_say(empty_url: str) -> None:
    database = Database(empty_url)
    await database.init_tables()
    await fill(database)
    assert await database.schema_differences() == []
    async with database.read() as session:
        connection = await session.connection()
        made = await connection.run_sync(
            lambda sync: {
                rule["name"] for table in Base.metadata.tables for rule in inspect(sync).get_check_constraints(table)
            }
        )
    rules = {rule.name for table in Base.metadata.tables.values() for rule in table.constraints}
    said = {name for name in rules if str(name).startswith("ck_")}
    assert made == said
    assert len(said) == sum(
        isinstance(rule, CheckConstraint) for table in Base.metadata.tables.values() for rule in table.constraints
    )
    await database.close()


async def test_a_difference_is_seen(empty_url: str) -> None:
    database = Database(empty_url)
    await database.init_tables()
    async with database.get_session() as session:
        await session.execute(text("DROP TABLE stamp"))
    assert "stamp" in str(await database.schema_differences())
    await database.close()


async def test_a_later_revision_keeps_every_row_and_what_points_to_it(
    empty_url: str, later: Callable[[], Path]
) -> None:
    old, new = Database(empty_url), Database(empty_url, migrations_path=later())
    await old.init_tables()
    rows = await fill(old)
    await old.close()
    await new.init_tables()
    assert await new.revision() == "0003"
    async with new.read() as session:
        assert (await session.execute(text("SELECT note, cause FROM orders"))).one() == ("none", "1")
    await new.downgrade("0002")
    assert await contents(new) == rows
    await new.close()


async def test_a_migration_that_fails_leaves_the_database_as_it_was(
    empty_url: str, later: Callable[[str], Path]
) -> None:
    old = Database(empty_url)
    await old.init_tables()
    rows = await fill(old)
    new = Database(empty_url, migrations_path=later("op.execute('SELECT * FROM no_such_table')"))
    with pytest.raises(DatabaseError):
        await new.init_tables()
    await old.check_revision()
    assert await contents(old) == rows
    await old.close()
    await new.close()


async def test_services_that_start_together_migrate_once(empty_url: str) -> None:
    services = [Database(empty_url) for _ in range(4)]
    await asyncio.gather(*(service.init_tables() for service in services))
    for service in services:
        await service.check_revision()
        await service.close()


async def test_the_wrong_revision_is_refused_with_the_command_that_mends_it(
    empty_url: str, later: Callable[[], Path]
) -> None:
    database, newer = Database(empty_url), Database(empty_url, migrations_path=later())
    with pytest.raises(DatabaseError, match=r"has no tables, this build expects 0002; run `trading db upgrade`"):
        await database.check_revision()
    await database.init_tables()
    await database.check_revision()
    with pytest.raises(DatabaseError, match=r"at revision 0002, this build expects 0003; run `trading db upgrade`"):
        await newer.check_revision()
    await newer.init_tables()
    with pytest.raises(DatabaseError, match=r"at revision 0003, this build expects 0002"):
        await database.check_revision()
    with pytest.raises(DatabaseError, match="newer build"):
        await database.init_tables()
    await database.close()
    await newer.close()


async def test_an_older_file_is_copied_before_it_is_upgraded(tmp_path: Path, later: Callable[[], Path]) -> None:
    path = tmp_path / "trading.db"
    old = Database(f"sqlite:///{path}")
    await old.init_tables()
    await old.init_tables()
    rows = await fill(old)
    assert not any(name.endswith(".bak") for name in os.listdir(tmp_path))
    new = Database(f"sqlite:///{path}", migrations_path=later(), clock=ManualClock())
    copy = await new.upgrade()  # while `old` is open: what is only in its write-ahead log belongs to the copy too
    assert copy == tmp_path / "trading.db.0002.20240101T000000000000Z.bak"
    restored = Database(f"sqlite:///{copy}")
    await restored.check_revision()
    assert await contents(restored) == rows
    for database in (old, new, restored):
        await database.close()


def run_alembic(arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "alembic", "-c", str(PROJECT / "alembic.ini"), *arguments]
    inherited = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return subprocess.run(
        command, cwd=folder, env={**inherited, **environment}, capture_output=True, text=True, check=False, timeout=120
    )


def test_alembic_runs_from_any_directory_and_the_environment_wins(empty_url: str, tmp_path: Path) -> None:
    for arguments in (["upgrade", "head"], ["check"], ["downgrade", "base"]):
        done = run_alembic(arguments, tmp_path, DATABASE_URL=empty_url)
        assert done.returncode == 0, done.stderr
    assert not (tmp_path / "var").exists()


def test_a_percent_sign_in_a_password_is_no_riddle(tmp_path: Path) -> None:
    for password in ("50%off", "50%25off"):
        url = f"postgresql://user:{password}@/trading?host={tmp_path}"
        done = run_alembic(["current"], tmp_path, DATABASE_URL=url)
        assert "cannot be reached" in done.stderr
        assert "off@" not in done.stderr


def test_without_the_environment_the_ini_file_decides(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    done = run_alembic(["upgrade", "head"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "var" / "trading.db").is_file()


def test_the_sql_can_be_printed(tmp_path: Path) -> None:
    done = run_alembic(["upgrade", "head", "--sql"], tmp_path, DATABASE_URL="postgresql://user@host/trading")
    assert done.returncode == 0, done.stderr
    assert "CREATE TABLE candles" in done.stdout


def test_the_wheel_brings_its_migrations_along(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True, timeout=120)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    program = (
        "import asyncio, shared.db as db, shared.db_migrations as m; print(m.migrations_folder());"
        "asyncio.run(db.Database('sqlite:///wheel.db').init_tables())"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "site" / "shared" / "alembic")
    assert (tmp_path / "site" / "shared" / "alembic.ini").is_file()
    with sqlite3.connect(tmp_path / "wheel.db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0002",)]
    connection.close()

"""Pytest fixtures for every member of the workspace: real servers and migrated databases.

Imports are late on purpose: this file is loaded at the start of every run, also of one that needs no server.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from shared.db import Database

type MakeUrl = Callable[[], str]

BOTH_DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Run one PostgreSQL server for this worker and give the URL of its first database."""
    from shared.testing import servers

    yield from _running(servers.postgres_server)


@pytest.fixture(scope="session")
def make_postgres_url(postgres_server: str) -> MakeUrl:
    """Make a fresh migrated database each time it is called and return its URL."""
    template = _url_of(postgres_server, "template_trading")
    _in_thread(_create_database(postgres_server, "template_trading", "template0"))
    _in_thread(_migrate(template))
    numbers = count(1)

    def make() -> str:
        name = f"trading_{next(numbers)}"
        _in_thread(_create_database(postgres_server, name, "template_trading"))
        return _url_of(postgres_server, name)

    return make


@pytest.fixture(scope="session")
def make_empty_postgres_url(postgres_server: str) -> MakeUrl:
    """Make a fresh database without tables each time it is called and return its URL."""
    numbers = count(1)

    def make() -> str:
        name = f"empty_{next(numbers)}"
        _in_thread(_create_database(postgres_server, name, "template0"))
        return _url_of(postgres_server, name)

    return make


@pytest.fixture(scope="module")
def postgres_url(make_postgres_url: MakeUrl) -> str:
    """Give a fresh migrated PostgreSQL database for the module."""
    return make_postgres_url()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("template") / "trading.db"
    _in_thread(_migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """Give a fresh migrated SQLite file for the test."""
    path = tmp_path / "trading.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=BOTH_DATABASES)
def database_url(request: pytest.FixtureRequest) -> str:
    """Give a fresh migrated database for the test, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    return str(request.getfixturevalue("make_postgres_url")())


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Give a connected database for the test, once on SQLite and once on PostgreSQL."""
    from shared.db import Database

    database = Database(database_url)
    await database.connect()
    yield database
    await database.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """Run one Redis server for this worker."""
    from shared.testing import servers

    yield from _running(lambda: servers.redis_like_server(servers.redis_program()))


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[str]:
    """Run one Valkey server for this worker."""
    from shared.testing import servers

    yield from _running(lambda: servers.redis_like_server(servers.valkey_program()))


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """Give an empty Redis for the test."""
    return _emptied(redis_server)


@pytest.fixture
def valkey_url(valkey_server: str) -> str:
    """Give an empty Valkey for the test."""
    return _emptied(valkey_server)


def _running(start: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    from shared.testing.servers import ServerMissing

    try:
        server = start()
        url = server.__enter__()
    except ServerMissing as missing:
        pytest.skip(f"not installed: {missing}")
    try:
        yield url
    finally:
        server.__exit__(None, None, None)


def _in_thread[T](work: Coroutine[Any, Any, T]) -> T:
    # pytest-asyncio owns the loop of this thread.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _create_database(server_url: str, name: str, template: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    finally:
        await connection.close()


async def _migrate(url: str) -> None:
    from shared.db import Database

    database = Database(url)
    await database.init_tables()
    await database.close()


def _url_of(server_url: str, name: str) -> str:
    return server_url.replace("/postgres?", f"/{name}?")


def _emptied(url: str) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(url.removeprefix("unix://"))
        client.sendall(b"FLUSHALL\r\n")
        assert client.recv(64).startswith(b"+OK")
    return url

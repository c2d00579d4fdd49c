"""Reads a database URL into what the engine needs; its password never leaves this file in a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from shared.errors import ConfigError

_POSTGRES = frozenset({"postgresql", "postgres", "postgresql+asyncpg"})
_SQLITE = frozenset({"sqlite", "sqlite+aiosqlite"})
_FORMS = "use postgresql://USER:PASSWORD@HOST:PORT/NAME, sqlite:///FILE or sqlite:////ABSOLUTE/FILE"


@dataclass(frozen=True)
class DatabaseTarget:
    """Which database is meant; `url` bears the asynchronous driver."""

    url: URL
    dialect: str

    @property
    def is_sqlite(self) -> bool:
        """Return whether the database is embedded."""
        return self.dialect == "sqlite"

    @property
    def in_memory(self) -> bool:
        """Return whether the database ends with its connection."""
        return self.is_sqlite and self.url.database in (None, "", ":memory:")

    @property
    def path(self) -> Path | None:
        """Return the file of an embedded database."""
        return Path(self.url.database) if self.is_sqlite and self.url.database and not self.in_memory else None

    def __str__(self) -> str:
        """Return the URL for people: scheme without driver, password masked."""
        plain = self.url.set(drivername=self.dialect)
        return plain.render_as_string(hide_password=True)

    __repr__ = __str__


def parse_database_url(database_url: str) -> DatabaseTarget:
    """Return the target of `database_url`, or say what is wrong with it."""
    try:
        url = make_url(database_url.strip())
    except (ArgumentError, ValueError, AttributeError):
        # `from None`: SQLAlchemy's own text repeats the whole string, password included.
        raise ConfigError(f"database_url: cannot be read as a URL; {_FORMS}") from None
    scheme = url.drivername
    if scheme in _SQLITE:
        return _sqlite_target(url)
    if scheme in _POSTGRES:
        return _postgres_target(url)
    raise ConfigError(f"database_url: scheme {scheme!r} is not supported; {_FORMS}")


def _sqlite_target(url: URL) -> DatabaseTarget:
    if url.host or url.username or url.password:
        raise ConfigError(
            f"database_url: sqlite names a file, not the host {url.host!r}; use three slashes for a relative path "
            "(sqlite:///var/trading.db) or four for an absolute one (sqlite:////srv/trading.db)"
        )
    target = DatabaseTarget(url.set(drivername="sqlite+aiosqlite"), "sqlite")
    if target.path is not None and target.path.is_dir():
        raise ConfigError(f"database_url: {target.path} is a directory; name a file in it")
    return target


def _postgres_target(url: URL) -> DatabaseTarget:
    if not url.database:
        raise ConfigError(f"database_url: the name of the database is missing in {_masked(url)}; {_FORMS}")
    query = dict(url.query)
    if "sslmode" in query:  # libpq's word; asyncpg says ssl
        query["ssl"] = query.pop("sslmode")
    return DatabaseTarget(url.set(drivername="postgresql+asyncpg", query=query), "postgresql")


def _masked(url: URL) -> str:
    return url.render_as_string(hide_password=True)

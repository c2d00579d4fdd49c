"""Turns what drivers throw into the platform's errors: one clear sentence, no password, no SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.db_url import DatabaseTarget
from shared.errors import DatabaseError, DatabaseUnavailable

UPGRADE_COMMAND = "trading db upgrade"
_LOST = (asyncpg.InterfaceError, asyncpg.InternalClientError)
_DRIVERS = (sqlite3.Error, asyncpg.PostgresError, *_LOST)
_NOTHING_LOST = "the transaction was rolled back, nothing of it is stored"

# code prefix -> (may the same transaction be run again, what happened and what to do)
_SQLITE: tuple[tuple[str, bool, str], ...] = (
    ("SQLITE_FULL", False, f"database is full: free disk space and start again; {_NOTHING_LOST}"),
    ("SQLITE_READONLY", False, "database is read-only: check the owner and rights of the file and its folder"),
    ("SQLITE_CORRUPT", False, "database file is damaged: stop, keep a copy of it and restore the last backup"),
    ("SQLITE_NOTADB", False, "the file is not a database: check the path in database_url"),
    ("SQLITE_BUSY", True, f"database is locked by another process: {_NOTHING_LOST}; it may be tried again"),
    ("SQLITE_LOCKED", True, f"database is locked: {_NOTHING_LOST}; it may be tried again"),
    ("SQLITE_CANTOPEN", False, "database file cannot be opened: does its folder exist, and may this user write there?"),
    ("SQLITE_IOERR", False, f"disk error while using the database: {_NOTHING_LOST}; check the disk"),
)
_POSTGRES: tuple[tuple[str, bool, str], ...] = (
    ("40001", True, f"another transaction came first: {_NOTHING_LOST}; it may be run again"),
    ("40P01", True, f"deadlock with another transaction: {_NOTHING_LOST}; it may be run again"),
    ("53100", False, f"database is full: free disk space on the server; {_NOTHING_LOST}"),
    ("53", True, "the database server is out of resources"),
    ("25006", False, "database is read-only: is this a standby server?"),
    ("28", False, "the database server refused user or password: check database_url"),
    ("3D000", False, "this database does not exist on the server: create it or check database_url"),
    ("42501", False, "the database user lacks a right"),
    ("42P01", False, f"a table is missing: run `{UPGRADE_COMMAND}`"),
    ("42703", False, f"a column is missing: run `{UPGRADE_COMMAND}`"),
    ("55P03", True, f"a lock was not had in time: {_NOTHING_LOST}"),
    ("57014", True, f"a statement took too long and was ended: {_NOTHING_LOST}"),
    ("57P", True, "the database server is stopping or starting"),
    ("08", True, "the connection to the database server was lost"),
)


@contextmanager
def translated(target: DatabaseTarget) -> Iterator[None]:
    """Raise the platform's error for whatever SQLAlchemy or a driver raises inside."""
    try:
        yield
    except (SQLAlchemyError, *_DRIVERS) as error:
        raise database_error(error, target) from error


@contextmanager
def reaching(target: DatabaseTarget) -> Iterator[None]:
    """Say that the database is away when a connection cannot be had or a commit gets no answer."""
    try:
        yield
    except (OSError, TimeoutError) as error:
        raise DatabaseUnavailable(f"{target}: cannot be reached ({_first_line(error)})") from error


def database_error(error: Exception, target: DatabaseTarget) -> DatabaseError:
    """Return the platform's error for one of SQLAlchemy's or of a driver's own."""
    if isinstance(error, PoolTimeoutError):
        return DatabaseUnavailable(f"{target}: all connections are busy")
    cause = error if isinstance(error, _DRIVERS) else getattr(error, "orig", None)
    if cause is None or not isinstance(error, (StatementError, *_DRIVERS)):
        return DatabaseError(f"{target}: {_first_line(error)}")
    if isinstance(error, (IntegrityError, sqlite3.IntegrityError, asyncpg.IntegrityConstraintViolationError)):
        return DatabaseError(f"{target}: a rule of the tables was broken ({_first_line(cause)}); {_NOTHING_LOST}")
    code = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None) or ""
    for prefix, retryable, sentence in _SQLITE + _POSTGRES:
        if code.startswith(prefix):
            kind = DatabaseUnavailable if retryable else DatabaseError
            return kind(f"{target}: {sentence} ({_first_line(cause)})")
    if "no such table" in str(cause) or "no such column" in str(cause):
        return DatabaseError(f"{target}: tables are missing or old ({_first_line(cause)}); run `{UPGRADE_COMMAND}`")
    if isinstance(error, _LOST) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return DatabaseUnavailable(f"{target}: the connection was lost ({_first_line(cause)})")
    return DatabaseError(f"{target}: {_first_line(cause)}")


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or error.__class__.__name__
    line = text.splitlines()[0]
    # SQLAlchemy's asyncpg adapter puts the class in front: "<class 'asyncpg...'>: text"
    return line.partition(">: ")[2] if line.startswith("<class ") and ">: " in line else line

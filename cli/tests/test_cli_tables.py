"""What is stored, as a table, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from trading_cli.state_dir import DATABASE_FILE

pytestmark = pytest.mark.thorough

type Trading = Callable[..., Result]

TRADES_CSV = """\
traded_at,symbol,strategy,timeframe,side,price,quantity,fee,order_id
2024-03-04T00:01:00Z,BTC/USDT,alpha,1m,BUY,101.0202,2,0.2020404
2024-03-04T00:01:00Z,BTC/USDT,beta,1m,BUY,101.0202,1,0.1010202
2024-03-04T00:04:00Z,BTC/USDT,alpha,1m,SELL,103.9792,2,0.2079584
"""


def test_trades_as_csv_have_the_promised_columns_and_plain_values(trading: Trading, state: Path) -> None:
    result = trading("trades", "--csv", "--state", state)
    assert result.exit_code == 0
    rows = list(csv.reader(io.StringIO(result.stdout)))
    assert "\n".join([",".join(rows[0]), *(",".join(row[:-1]) for row in rows[1:])]) + "\n" == TRADES_CSV
    assert all(len(row[-1]) == 36 for row in rows[1:])


def test_json_numbers_are_exact_and_times_are_utc(trading: Trading, state: Path) -> None:
    result = trading("trades", "--json", "--state", state)
    rows = json.loads(result.stdout, parse_float=str)
    assert rows[0]["fee"] == "0.2020404"
    assert rows[0]["traded_at"] == "2024-03-04T00:01:00Z"


def test_filters_and_limit_keep_the_newest(trading: Trading, state: Path) -> None:
    only_beta = json.loads(trading("trades", "--json", "--strategy", "beta", "--state", state).stdout)
    newest = json.loads(trading("trades", "--json", "--limit", 1, "--state", state).stdout)
    none = json.loads(trading("trades", "--json", "--symbol", "ETH/USDT", "--state", state).stdout)
    assert [row["strategy"] for row in only_beta] == ["beta"]
    assert [row["side"] for row in newest] == ["SELL"]
    assert none == []


def test_signals_say_what_became_of_them(trading: Trading, state: Path) -> None:
    rows = json.loads(trading("signals", "--json", "--state", state).stdout)
    outcomes = [(row["strategy"], row["side"], row["outcome"], row["outcome_reason"]) for row in rows]
    assert sorted(outcomes) == sorted(
        [
            ("alpha", "BUY", "ordered", ""),
            ("beta", "BUY", "ordered", ""),
            ("alpha", "BUY", "ignored", "already_in"),
            ("alpha", "SELL", "ordered", ""),
            ("alpha", "SELL", "ignored", "nothing_held"),
            ("gamma", "BUY", "refused", "position_size"),
        ]
    )


def test_positions_are_what_each_strategy_holds(trading: Trading, state: Path) -> None:
    rows = json.loads(trading("positions", "--json", "--state", state).stdout, parse_float=str)
    assert [(row["strategy"], row["quantity"], row["avg_entry_price"]) for row in rows] == [("beta", 1, "101.0202")]
    assert rows[0]["unrealized_pnl"] == "5.9798"  # marked at 107


@pytest.mark.parametrize("name", ["orders", "trades", "signals", "positions"])
def test_a_table_fits_a_narrow_terminal_and_says_where_it_is_from(
    trading: Trading, state: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = trading(name, "--state", state)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{name} of")
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_reading_goes_on_while_a_writer_has_the_database(trading: Trading, state: Path) -> None:
    writer = sqlite3.connect(state / DATABASE_FILE, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM cursors")
    try:
        for command in ("trades", "status", "verify"):
            assert trading(command, "--state", state).exit_code == 0
    finally:
        writer.execute("ROLLBACK")
        writer.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trades", "--state", "nowhere"), "nowhere: holds no database"),
        (("trades", "--csv", "--json"), "choose one"),
        (("orders", "--symbol", "BTCUSDT", "--state", "state"), "write it with a slash, for example BTC/USDT"),
        (("orders", "--limit", "0", "--state", "state"), "is not in the range"),
        (("orders", "--database-url", "mysql://x/y"), "expected a URL that begins with"),
        (("status", "--database-url", "sqlite:///missing.db"), "missing.db: holds no database"),
        (("statos",), "did you mean 'status'?"),
    ],
)
def test_a_mistake_is_one_clear_line(trading: Trading, state: Path, words: tuple[str, ...], said: str) -> None:
    result = trading(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_database_of_another_revision_is_refused_with_the_command_that_mends_it(
    trading: Trading, state: Path
) -> None:
    with sqlite3.connect(state / DATABASE_FILE) as writer:
        writer.execute("UPDATE alembic_version SET version_num = '0000'")
    result = trading("trades", "--state", state)
    assert result.exit_code == 2
    assert "is at revision 0000" in result.stderr
    assert "trading db upgrade" in result.stderr


def test_a_file_that_is_no_database_is_said_to_be_none(trading: Trading, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / DATABASE_FILE).write_text("not a database at all, but long enough to look like one " * 40)
    result = trading("status", "--state", "bad")
    assert result.exit_code == 2
    assert "not a database" in result.stderr

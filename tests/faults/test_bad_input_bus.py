"""What strangers write on the bus, and what becomes of the bus, changes nothing of what is traded."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil
import pytest
import redis

from shared.broker_port import PAYLOAD_FIELD
from shared.bus_leftover import PID_FILE, BusProcess
from shared.testing.platform_runs import read_cursor
from shared.testing.state_tables import connect_readonly, read_tables, state_differences

SPEED = "7200"  # 120 candles a second: time enough to write beside
CANDLES = 300
TRADED = ("signals", "decisions", "orders", "trades", "ledger", "strategy_positions", "positions", "accounts")


def forged(kind: str, data: dict[str, Any], **more: Any) -> bytes:
    """Return an envelope as the platform itself writes it."""
    whole = {"version": 1, "type": kind, "id": "forged", "as_of": "2025-01-01T01:00:00Z", "data": data, **more}
    return json.dumps(whole).encode()


CANDLE = {
    "symbol": "BTC/USDT",
    "timeframe": "1m",
    "open_time": "2025-01-01T01:00:00Z",
    **dict.fromkeys(("open", "high", "low", "close"), "1"),
    "volume": "1000000",
}
SIGNAL = {
    "id": "forged-signal",
    "strategy": "rsi",
    "symbol": "BTC/USDT",
    "side": "BUY",
    "price": "1",
    "quantity": "1000",
    "reason": "forged",
    "created_at": "2025-01-01T01:00:00Z",
    "timeframe": "1m",
}
ORDER = {
    "id": "forged-order",
    "symbol": "BTC/USDT",
    "side": "SELL",
    "type": "MARKET",
    "price": "1",
    "quantity": "1000",
    "status": "FILLED",
    "created_at": "2025-01-01T01:00:00Z",
}


class Write(NamedTuple):
    """One entry somebody puts on a stream; `unreadable` ones must be on record afterwards."""

    stream: str
    fields: dict[bytes, bytes]
    unreadable: bool = True


CANDLES_STREAM = "candles.BTC_USDT.1m"
WRITES = {
    "no JSON": Write("signals", {PAYLOAD_FIELD: b"{not json"}),
    "bytes that are no text": Write(CANDLES_STREAM, {PAYLOAD_FIELD: b"\xff\xfe\x00"}),
    "a field nobody knows": Write("watermarks", {b"body": b"{}"}),
    "an empty payload": Write("signals", {PAYLOAD_FIELD: b""}),
    "a list": Write("orders", {PAYLOAD_FIELD: b"[1, 2, 3]"}),
    "an unknown version": Write("signals", {PAYLOAD_FIELD: forged("signal", SIGNAL, version=99)}),
    "an unknown type": Write(CANDLES_STREAM, {PAYLOAD_FIELD: forged("dividend", CANDLE)}),
    "a candle without a close": Write(CANDLES_STREAM, {PAYLOAD_FIELD: forged("candle", {**CANDLE, "close": None})}),
    "a naive time": Write(
        "signals", {PAYLOAD_FIELD: forged("signal", {**SIGNAL, "created_at": "2025-01-01T01:00:00"})}
    ),
    "a megabyte of rubbish": Write("signals", {PAYLOAD_FIELD: b"x" * 1_100_000}),
    "a nest of brackets": Write("orders", {PAYLOAD_FIELD: b"[" * 100_000}),
    "a forged candle": Write(CANDLES_STREAM, {PAYLOAD_FIELD: forged("candle", CANDLE)}, unreadable=False),
    "a forged signal": Write("signals", {PAYLOAD_FIELD: forged("signal", SIGNAL)}, unreadable=False),
    "a forged fill": Write("orders", {PAYLOAD_FIELD: forged("order", ORDER)}, unreadable=False),
    "a forged watermark": Write(
        "watermarks",
        {PAYLOAD_FIELD: forged("watermark", {"service": "strategy-engine"}, as_of="2030-01-01T00:00:00Z")},
        unreadable=False,
    ),
}


REASONS = {
    "no JSON": "cannot be read",
    "a list": "cannot be read",
    "an unknown version": "version 99 is unknown",
    "an unknown type": "type 'dividend' is unknown",
    "a candle without a close": "cannot be read",
    "a naive time": "cannot be read",
    "a megabyte of rubbish": "1100000 bytes, at most",
}


@pytest.fixture
def undisturbed(trading: Any, replay: Any, clean_place: Path) -> dict[str, Any]:
    """Return what is traded when nobody interferes."""
    outcome = trading(*replay(CANDLES), "--state", "quiet")
    assert outcome.code == 0, outcome.said
    tables = read_tables(clean_place / "quiet" / "trading.db", TRADED)
    assert len(tables["trades"]) > 5
    return tables


@contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[list[BaseException]]:
    """Do `work` in a thread until the block ends; what went wrong there is raised here."""
    over, faults = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            work(over)
        except BaseException as fault:  # noqa: BLE001 - told to the test below
            faults.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield faults
    finally:
        over.set()
        thread.join(30)
    assert not faults, faults


def bus_of(state: Path, over: threading.Event) -> BusProcess | None:
    """Wait for the platform's own server; None when the run is over."""
    while not over.wait(0.01):
        if (state / PID_FILE).exists():
            return msgspec.json.decode((state / PID_FILE).read_bytes(), type=BusProcess)
    return None


def handled_candles(state: Path) -> int:
    """Return how many candles the executor has handled; the file begins at midnight."""
    try:
        with closing(connect_readonly(state / "trading.db")) as connection:
            watermark = read_cursor(connection, "executor/watermark")
    except sqlite3.OperationalError:  # the tables are not there yet
        return 0
    return 0 if watermark is None else watermark % 86_400_000 // 60_000


def test_nothing_that_is_written_on_the_bus_is_traded(
    trading: Any, replay: Any, clean_place: Path, undisturbed: dict[str, Any]
) -> None:
    state, written = clean_place / "var", set[str]()

    def write(over: threading.Event) -> None:
        bus = bus_of(state, over)
        assert bus is not None
        with redis.Redis(unix_socket_path=bus.socket) as client:
            for name in cycle(WRITES):
                if over.wait(0.03):
                    return
                try:
                    client.xadd(WRITES[name].stream, WRITES[name].fields)
                except redis.ConnectionError:  # the run has just ended
                    return
                written.add(name)

    with beside(write):
        outcome = trading(*replay(CANDLES), "--speed", SPEED, "--log-level", "WARNING")
    assert outcome.code == 0, outcome.said
    assert "Traceback" not in outcome.said
    assert written == set(WRITES)
    assert not state_differences(undisturbed, read_tables(state / "trading.db", TRADED))
    letters = read_tables(state / "trading.db", ["dead_letters"])["dead_letters"]
    assert {each.stream for each in WRITES.values() if each.unreadable} <= {row["stream"] for row in letters}
    for name, reason in REASONS.items():
        beginning = WRITES[name].fields[PAYLOAD_FIELD].decode()[:200]
        reasons = {row["reason"] for row in letters if row["payload"].startswith(beginning)}
        assert reasons, name
        assert all(reason in found for found in reasons), (name, reasons)
    assert max(len(row["payload"]) for row in letters) < 10_000
    assert trading("verify").code == 0


@pytest.mark.parametrize("command", [("FLUSHALL",), ("DEL", "signals", CANDLES_STREAM, "watermarks", "orders")])
def test_a_bus_that_is_wiped_again_and_again_changes_nothing(
    command: tuple[str, ...], trading: Any, replay: Any, clean_place: Path, undisturbed: dict[str, Any]
) -> None:
    wiped: list[int] = []

    def wipe(over: threading.Event) -> None:
        bus = bus_of(clean_place / "var", over)
        assert bus is not None
        with redis.Redis(unix_socket_path=bus.socket) as client:
            while not over.wait(0.2):
                try:
                    client.execute_command(*command)
                except redis.ConnectionError:
                    return
                wiped.append(1)

    with beside(wipe):
        outcome = trading(*replay(CANDLES), "--speed", SPEED)
    assert outcome.code == 0, outcome.said
    assert len(wiped) > 3
    assert not state_differences(undisturbed, read_tables(clean_place / "var" / "trading.db", TRADED))


def servers_of_this_process() -> list[int]:
    """Return the servers that live below us; other tests of this worker may have started some of their own."""
    return [each.pid for each in psutil.Process().children() if "valkey" in each.name()]


def test_a_bus_that_is_killed_is_started_again_and_nothing_is_lost(
    trading: Any, replay: Any, clean_place: Path, undisturbed: dict[str, Any]
) -> None:
    killed = set[int]()
    others = set(servers_of_this_process())

    def kill(over: threading.Event) -> None:
        while len(killed) < 3 and not over.wait(0.01):
            bus = bus_of(clean_place / "var", over)
            candles = handled_candles(clean_place / "var")
            if bus is not None and bus.pid not in killed and candles >= 60 * (len(killed) + 1):
                os.kill(bus.pid, signal.SIGKILL)
                killed.add(bus.pid)

    with beside(kill):
        outcome = trading(*replay(CANDLES), "--speed", SPEED)
    assert outcome.code == 0, outcome.said
    assert len(killed) == 3
    assert outcome.said.count("bus.died") == 3
    assert "Traceback" not in outcome.said
    assert not state_differences(undisturbed, read_tables(clean_place / "var" / "trading.db", TRADED))
    assert set(servers_of_this_process()) <= others


def test_a_bus_that_dies_at_every_start_ends_the_run_with_its_reason(
    trading: Any, refused: Any, replay: Any, clean_place: Path
) -> None:
    def kill(over: threading.Event) -> None:
        while not over.wait(0.02):
            try:
                bus = msgspec.json.decode((clean_place / "var" / PID_FILE).read_bytes(), type=BusProcess)
                os.kill(bus.pid, signal.SIGKILL)
            except (OSError, msgspec.DecodeError):
                continue

    with beside(kill):
        outcome = trading(*replay(CANDLES), "--speed", "60")
    refused(outcome, "bus")
    assert trading("verify").code in (0, 2)  # 2: it never came to make the tables

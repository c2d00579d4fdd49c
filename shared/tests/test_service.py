"""How a process starts and ends: exit codes, real signals, real subprocesses."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry

from shared.config import Settings, load_settings
from shared.errors import BrokerError, ConfigError, StateLocked, TradingError
from shared.metrics import ServiceMetrics
from shared.service import ServicePolicy, first_fault, open_notifier, run_service, supervise
from shared.testing.bot_api import FakeBotApi

pytestmark = pytest.mark.thorough

PROGRAM = """
import asyncio, sys, time
from shared.config import load_settings
from shared.service import ServicePolicy, run_service, supervise
{body}
sys.exit(run_service("engine", serve, lambda: load_settings(env={{}}), policy=ServicePolicy(stop_seconds_max={seconds})))
"""


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def start(started: list[subprocess.Popen[str]], body: str, seconds: float = 10.0) -> subprocess.Popen[str]:
    program = PROGRAM.format(body=textwrap.dedent(body), seconds=seconds)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    started.append(process)
    return process


def wait_for_line(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"ended without {word}: {process.stderr.read() if process.stderr else ''}")


GOOD = """
async def serve(settings, stop):
    print("ready", flush=True)
    await stop.wait()
    print("closing", flush=True)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_first_signal_stops_it_cleanly(started: list[subprocess.Popen[str]], number: int, code: int) -> None:
    process = start(started, GOOD)
    wait_for_line(process, "ready")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "closing" in out
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert events == ["started", "stopping", "stopped"]


STUBBORN = """
async def serve(settings, stop):
    print("ready", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("cancelled", flush=True)
"""


def test_a_second_signal_ends_it_at_once(started: list[subprocess.Popen[str]]) -> None:
    process = start(started, STUBBORN, seconds=600)
    wait_for_line(process, "ready")
    process.send_signal(signal.SIGTERM)
    wait_for_line(process, "stopping")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_stop_that_takes_too_long_is_cut_off(started: list[subprocess.Popen[str]]) -> None:
    process = start(
        started,
        "async def serve(settings, stop):\n    print('ready', flush=True)\n    await asyncio.Event().wait()",
        0.2,
    )
    wait_for_line(process, "ready")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "stop took too long" in err


def test_a_loop_that_is_held_up_ends_all_the_same(started: list[subprocess.Popen[str]]) -> None:
    body = """
    async def serve(settings, stop):
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
    """
    process = start(started, body, seconds=0.1)
    wait_for_line(process, "ready")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "forced to end" in err


def test_a_known_error_is_one_line_and_its_own_code(started: list[subprocess.Popen[str]]) -> None:
    body = """
    from shared.errors import BrokerError
    async def serve(settings, stop):
        raise BrokerError("bus redis://h: no answer; is it running?")
    """
    process = start(started, body)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "engine: bus redis://h: no answer; is it running?\n" in err
    assert "Traceback" not in err


def test_an_unknown_error_is_logged_with_its_traceback(started: list[subprocess.Popen[str]]) -> None:
    body = """
    async def broken():
        raise KeyError("odd")
    async def serve(settings, stop):
        import structlog
        await supervise({"executor": broken, "engine": stop.wait}, stop, structlog.get_logger("engine"))
    """
    process = start(started, body)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "unexpected KeyError: 'odd' (in executor)" in err
    records = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert any("Traceback" in record.get("exception", "") for record in records)


def load() -> Settings:
    return load_settings(env={"LOG_LEVEL": "CRITICAL"})


async def nothing(settings: Settings, stop: asyncio.Event) -> None:
    return None


def test_it_ends_with_0_when_serve_returns() -> None:
    assert run_service("engine", nothing, load) == 0


def test_serve_may_give_the_exit_code() -> None:
    async def check(settings: Settings, stop: asyncio.Event) -> int:
        return 1

    assert run_service("engine", check, load) == 1


def test_it_runs_on_uvloop_where_there_is_one() -> None:
    names: list[str] = []

    async def look(settings: Settings, stop: asyncio.Event) -> None:
        names.append(type(asyncio.get_running_loop()).__module__)

    run_service("engine", look, load)
    assert names == ["uvloop"]


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("symbols: wrong"), 2), (StateLocked("pid 7"), 3), (TradingError("x"), 1)]
)
def test_settings_that_cannot_be_loaded_end_it(
    error: TradingError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> Settings:
        raise error

    assert run_service("engine", nothing, refuse) == code
    assert capsys.readouterr().err == f"engine: {error}\n"


def test_an_interrupt_before_the_loop_is_130() -> None:
    def interrupt() -> Settings:
        raise KeyboardInterrupt

    assert run_service("engine", nothing, interrupt) == 130


def test_handlers_of_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    run_service("engine", nothing, load)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_log_file_lies_in_the_state_directory(tmp_path: Path) -> None:
    settings = load_settings({"state": str(tmp_path)}, env={})
    assert run_service("engine", nothing, lambda: settings, policy=ServicePolicy(log_to_state=True, quiet=True)) == 0
    lines = (tmp_path / "log" / "engine.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["started", "stopped"]


async def test_one_failing_task_stops_the_others_and_is_named() -> None:
    stop = asyncio.Event()
    ended: list[str] = []

    async def patient() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("patient")

    async def failing() -> None:
        raise BrokerError("away")

    async def done() -> None:
        return None

    with pytest.raises(BrokerError) as caught:
        await supervise({"a": patient, "b": failing, "c": done}, stop, structlog.get_logger())
    assert caught.value.__notes__ == ["in b"]
    assert ended == ["patient"]
    assert stop.is_set()


async def test_tasks_that_return_are_done_and_the_rest_go_on() -> None:
    stop = asyncio.Event()

    async def done() -> None:
        stop.set()

    await supervise({"a": done, "b": stop.wait}, stop, structlog.get_logger())


def test_of_several_faults_the_known_one_is_told() -> None:
    known = BrokerError("away")
    group = ExceptionGroup("x", [ValueError("odd"), ExceptionGroup("y", [known])])
    assert first_fault(group) is known
    assert isinstance(first_fault(ExceptionGroup("x", [ValueError("odd"), KeyError("k")])), ValueError)


async def test_errors_in_the_log_reach_a_person() -> None:
    async with FakeBotApi() as api:
        options = {"telegram_enabled": True, "telegram_bot_token": api.token, "telegram_chat_id": "42"}
        settings = load_settings({**options, "telegram_api_url": api.url}, env={})
        async with open_notifier(settings, "engine") as notifier:
            assert notifier.enabled
            logging.getLogger("engine").error("disk full")
            (message,) = await api.wait_for_messages(1)
        assert "disk full" in message.text
        async with open_notifier(load(), "engine") as silent:
            assert not silent.enabled


async def test_what_alarms_count_stands_at_zero_before_the_first_message() -> None:
    registry = CollectorRegistry()
    async with open_notifier(load(), "engine", ServiceMetrics("engine", registry)):
        for outcome in ("sent", "failed", "dropped"):
            labels = {"service": "engine", "outcome": outcome}
            assert registry.get_sample_value("trading_notifications_total", labels) == 0
        labels = {"service": "engine", "queue": "telegram"}
        assert registry.get_sample_value("trading_queue_dropped_total", labels) == 0

"""The command: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from paper_exchange.main import main

pytestmark = pytest.mark.thorough

type Refused = Callable[..., tuple[object, str]]

COMMAND = Path(sys.executable).with_name("paper-exchange")
CSV = "open_time,open,high,low,close,volume\n" + "".join(
    f"2024-03-04T00:{minute:02d}:00Z,{100 + minute},{102 + minute},{99 + minute},{101 + minute},5\n"
    for minute in range(30)
)


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the command and give its process and the address that its first line names."""
    process = subprocess.Popen([COMMAND, "--port", "0", *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield process, next(word for word in line.split() if word.startswith("http://"))
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return what calls the command in this process and gives its exit code and its complaint."""

    def call(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["paper-exchange", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    return call


def test_it_prints_where_it_listens_serves_and_ends_on_sigterm(tmp_path: Path) -> None:
    (tmp_path / "btc.csv").write_text(CSV)
    with started("--data", f"BTC/USDT:1m={tmp_path / 'btc.csv'}", "--speed", "600", "--history", "10") as (
        process,
        base,
    ):
        with urlopen(f"{base}/api/v3/klines?symbol=BTCUSDT&interval=1m") as response:
            rows = json.load(response)
        assert process.stdout is not None
        assert "the recording is over" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert [row[1] for row in rows[:10]] == [f"{100 + minute}.00000000" for minute in range(10)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "BTCUSDT"], "SYMBOL:TIMEFRAME=FILE"),
        (["--data", "BTC/USDT:1m=absent.csv"], "no such file"),
        (["--feed", "replay"], "give --data"),
        (["--feed", "simulated", "--data", "BTC/USDT:1m=x.csv"], "takes no --data"),
        (["--faults", "absent.yaml"], "cannot be read"),
        (["--symbols", "BTCUSDT"], "write it like BTC/USDT"),
        (["--timeframes", "7m"], "timeframe '7m' is unknown"),
        (["--speed", "0"], "--speed"),
        (["--port", "99999"], "--port"),
    ],
)
def test_bad_input_ends_with_two_and_one_line(refused: Refused, arguments: list[str], words: str) -> None:
    code, text = refused(*arguments)
    assert code == 2
    assert words in text
    assert "Traceback" not in text


def test_a_faults_file_that_is_wrong_is_refused_before_anything_listens(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text("faults:\n  - {kind: drop, candle: often}\n")
    code, text = refused("--faults", str(path))
    assert code == 2
    assert "fault 1 (drop): candle: expected a whole number, was 'often'" in text


def test_a_port_in_use_is_said(refused: Refused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, text = refused("--port", str(taken.getsockname()[1]))
    assert code == 2
    assert "in use by another program" in text

"""Everything README.md tells a reader to type is typed here; a block that cannot be checked is a failure."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from shared.clock import seeded_random

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
OWN_STRATEGY = "# own strategy"
COMMAND_SECONDS_MAX = 120
RUNNING_SECONDS = 20  # how long `trading up` is let alone before Ctrl-C
SHOWN_ONLY = {"text"}  # what a reader sees, types or copies nowhere


class Block(NamedTuple):
    """One fenced block: its language, the line it starts at, its text."""

    language: str
    line: int
    text: str


def blocks_of(text: str) -> list[Block]:
    """Return every fenced block of a document, in order."""
    fence = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```\s*$", re.M | re.S)
    return [Block(m.group(1), text.count("\n", 0, m.start()) + 1, m.group(2)) for m in fence.finditer(text)]


def commands_of(block: Block) -> list[str]:
    """Return a shell block's commands: comments dropped, continued lines joined."""
    joined = block.text.replace("\\\n", " ")
    lines = (re.sub(r"\s#\s.*$", "", line).strip() for line in joined.splitlines())
    return [line.removeprefix("$ ") for line in lines if line and not line.startswith("#")]


def readme_blocks() -> list[Block]:
    return blocks_of(README.read_text())


def shell_commands() -> list[str]:
    return [command for block in readme_blocks() if block.language == "sh" for command in commands_of(block)]


def write_candles(path: Path, count: int = 1_500) -> Path:
    """Write a minute chart that rises and falls enough for any strategy to trade on."""
    chance = seeded_random(7)
    start, rows = datetime(2024, 1, 1, tzinfo=UTC), ["open_time,open,high,low,close,volume"]
    price = 60_000.0
    for i in range(count):
        close = 60_000 * (1 + 0.03 * math.sin(i / 40)) * (1 + chance.gauss(0, 0.001))
        low, high = min(price, close) * 0.9995, max(price, close) * 1.0005
        moment = (start + timedelta(minutes=i)).strftime("%Y-%m-%dT%H:%M:%SZ")
        rows.append(f"{moment},{price:.2f},{high:.2f},{low:.2f},{close:.2f},{1 + chance.random():.4f}")
        price = close
    path.write_text("\n".join(rows) + "\n")
    return path


def environment_of(folder: Path) -> dict[str, str]:
    """Return a reader's environment: the installed commands first on the path, state in a folder of its own."""
    kept = {name: value for name, value in os.environ.items() if name in {"HOME", "LANG", "PYTHONDONTWRITEBYTECODE"}}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "TRADING_STATE": str(folder / "var"), "COLUMNS": "160"}


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one command as a reader would; one that goes on until Ctrl-C gets its Ctrl-C."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment_of(folder) | variables, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    endless = command[:2] == ["trading", "up"]
    try:
        output, _ = process.communicate(timeout=RUNNING_SECONDS if endless else COMMAND_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT if endless else signal.SIGKILL)
        output, _ = process.communicate(timeout=COMMAND_SECONDS_MAX)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, output)


def check_command(line: str, folder: Path) -> None:
    """Try one command of the README; `make` recurses into this suite, so its targets are looked up."""
    words = shlex.split(line)
    if words[0] == "make":
        targets = re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.M)
        named = [word for word in words[1:] if "=" not in word]
        assert set(named) <= set(targets), f"`{line}`: no such target"
    elif words[:2] == ["git", "clone"] or words[0] == "cd":
        assert len(words) >= 2  # nothing here to clone from, nor a folder to go to
    elif Path(words[0]).name == "trading":
        ended = run(["trading", *words[1:]], folder)
        interrupted = ended.returncode == 130 and words[1:2] == ["up"]
        assert ended.returncode == 0 or interrupted, f"`{line}` ended with {ended.returncode}:\n{ended.stdout[-3000:]}"
    else:
        raise AssertionError(f"`{line}`: this test does not know how to try it")


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    unknown = [block for block in readme_blocks() if block.language not in {"sh", "python"} | SHOWN_ONLY]
    assert unknown == []
    assert README.read_text().count("\n```") == 2 * len(readme_blocks()), "a fence that does not close"


def test_the_two_commands_are_there() -> None:
    assert {"make run", "make test"} <= set(shell_commands())


@pytest.mark.e2e
def test_every_command_does_what_it_says(tmp_path: Path) -> None:
    write_candles(tmp_path / "candles.csv")
    for command in shell_commands():  # in the reader's order: a later one may need what an earlier one left
        check_command(command, tmp_path)


def strategy_name(block: Block) -> str:
    """Return the `name` that a strategy's source gives itself."""
    match = re.search(r"""^\s+name(?:\s*:\s*[\w\[\]]+)?\s*=\s*["'](\w+)["']""", block.text, re.M)
    assert match, f"README.md line {block.line}: a strategy without a name"
    return match.group(1)


def test_the_readme_shows_a_strategy_of_ones_own() -> None:
    shown = [block for block in readme_blocks() if block.language == "python" and block.text.startswith(OWN_STRATEGY)]
    assert shown
    bodies = [[line for line in block.text.splitlines()[1:] if line.strip()] for block in shown]
    assert min(len(body) for body in bodies) <= 16, "an own strategy takes about ten lines"


@pytest.mark.e2e
def test_every_python_block_runs(tmp_path: Path) -> None:
    candles = write_candles(tmp_path / "candles.csv")
    for block in (block for block in readme_blocks() if block.language == "python"):
        if not block.text.startswith(OWN_STRATEGY):
            ended = run([sys.executable, "-c", block.text], tmp_path)
            assert ended.returncode == 0, f"README.md line {block.line}:\n{ended.stdout[-3000:]}"
            continue
        name = strategy_name(block)
        strategies = tmp_path / "strategies"
        strategies.mkdir(exist_ok=True)
        (strategies / f"{name}.py").write_text(block.text)
        command = ["trading", "backtest", "--strategy", name, "--data", str(candles), "--symbol", "BTC/USDT"]
        command += ["--timeframe", "1m", "--json", str(tmp_path / f"{name}.json")]
        ended = run(command, tmp_path, STRATEGIES_DIR=str(strategies))
        assert ended.returncode == 0, f"README.md line {block.line}:\n{ended.stdout[-3000:]}"
        report = json.loads((tmp_path / f"{name}.json").read_text())
        assert report["strategy"] == name
        assert report["trades"], "a strategy that never trades shows a reader nothing"


def test_a_block_of_another_kind_or_an_unknown_command_is_not_passed_over(tmp_path: Path) -> None:
    blocks = blocks_of("# t\n```bash\nls\n```\n\n```sh\n# a word\nmake run ARGS=x  # why\ncurl \\\n  -v\n```\n")
    assert [(block.language, block.line) for block in blocks] == [("bash", 2), ("sh", 6)]
    assert commands_of(blocks[1]) == ["make run ARGS=x", "curl    -v"]
    with pytest.raises(AssertionError, match="does not know"):
        check_command("curl -v", tmp_path)
    with pytest.raises(AssertionError, match="no such target"):
        check_command("make coffee", tmp_path)

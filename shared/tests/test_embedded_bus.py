"""The private message bus: begins empty, on a socket only, dies with its parent, comes back when killed."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shared.broker import RedisBroker
from shared.bus_leftover import PID_FILE
from shared.clock import ManualClock
from shared.embedded_bus import RESTARTS_MAX, EmbeddedBus
from shared.errors import BrokerError, ConfigError, StateLocked
from shared.testing.waiting import until

pytestmark = pytest.mark.integration

PARENT = """
import asyncio, sys
from pathlib import Path
from shared.embedded_bus import EmbeddedBus

async def main():
    async with EmbeddedBus(Path(sys.argv[1]), dies_with_parent=sys.argv[2] == "tied") as bus:
        print(bus.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def start_parent(state_dir: Path, kind: str) -> tuple[subprocess.Popen[str], int]:
    """Start a process that runs a bus; return it and the server's pid."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(state_dir), kind], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def kill(parent: subprocess.Popen[str]) -> None:
    parent.send_signal(signal.SIGKILL)
    parent.communicate()


def start_bystander() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def listening_ports(pid: int) -> set[str]:
    """Return the inodes of TCP sockets that a process holds open."""
    links = (os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink())
    inodes = {name[8:-1] for name in links if name.startswith("socket:")}
    tables = "".join(Path(f"/proc/{pid}/net/{table}").read_text() for table in ("tcp", "tcp6"))
    return inodes & {line.split()[9] for line in tables.splitlines() if line.split()[0] != "sl"}


async def test_the_bus_starts_answers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with EmbeddedBus(tmp_path / "new" / "state") as bus:
        broker = RedisBroker(bus.url)
        assert await broker.ping()
        assert bus.returncode is None
        socket = Path(bus.socket)
        assert (mode_of(socket.parent), mode_of(socket)) == (0o700, 0o700)
        assert len(os.fsencode(socket)) <= 107
        assert json.loads((tmp_path / "new" / "state" / PID_FILE).read_text())["pid"] == bus.pid
        await broker.close()
    assert bus.returncode == 0
    assert not socket.parent.exists()
    assert not (tmp_path / "new" / "state" / PID_FILE).exists()


async def test_the_server_opens_no_port_and_keeps_nothing_on_disk(tmp_path: Path) -> None:
    async with EmbeddedBus(tmp_path) as bus:
        broker = RedisBroker(bus.url)
        await broker.publish("signals", b"{}")
        await broker.close()
        directory = Path(bus.socket).parent
        assert bus.pid is not None
        assert not listening_ports(bus.pid)
    assert not directory.exists()
    assert os.listdir(tmp_path) == ["bus.log"]


async def test_every_start_is_an_empty_bus(tmp_path: Path) -> None:
    for _ in range(2):
        async with EmbeddedBus(tmp_path) as bus:
            broker = RedisBroker(bus.url)
            assert await broker.depth("signals") == 0
            await broker.publish("signals", b"{}")
            await broker.close()


async def test_a_state_directory_with_a_long_path_still_gets_a_short_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    async with EmbeddedBus(long) as bus:
        assert len(os.fsencode(bus.socket)) <= 107
    assert os.listdir(long) == ["bus.log"]


async def test_the_server_dies_with_a_killed_parent(tmp_path: Path) -> None:
    parent, server = start_parent(tmp_path, "tied")
    handle = os.pidfd_open(server)
    kill(parent)
    assert select.select([handle], [], [], 20)[0]
    os.close(handle)
    old_socket = json.loads((tmp_path / PID_FILE).read_text())["socket"]
    async with EmbeddedBus(tmp_path):
        assert not Path(old_socket).parent.exists()


async def test_a_left_over_server_is_ended_by_the_next_start(tmp_path: Path) -> None:
    parent, server = start_parent(tmp_path, "loose")
    handle = os.pidfd_open(server)
    kill(parent)
    assert not select.select([handle], [], [], 0)[0]
    old_socket = json.loads((tmp_path / PID_FILE).read_text())["socket"]
    async with EmbeddedBus(tmp_path) as bus:
        assert select.select([handle], [], [], 0)[0]
        assert bus.pid != server
        assert not Path(old_socket).parent.exists()
    os.close(handle)


async def test_the_server_of_a_running_parent_is_left_alone_and_named(tmp_path: Path) -> None:
    parent, server = start_parent(tmp_path, "tied")
    with pytest.raises(StateLocked, match=str(parent.pid)):
        await EmbeddedBus(tmp_path).start()
    os.kill(server, 0)  # it lives
    assert (tmp_path / PID_FILE).exists()
    kill(parent)
    async with EmbeddedBus(tmp_path) as bus:
        assert bus.returncode is None


async def test_a_pid_that_belongs_to_another_program_now_is_left_alone(tmp_path: Path) -> None:
    bystander = start_bystander()
    note = {"pid": bystander.pid, "parent_pid": 1, "socket": "/tmp/trading-bus-gone/bus"}
    (tmp_path / PID_FILE).write_text(json.dumps(note))
    async with EmbeddedBus(tmp_path):
        assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


@pytest.mark.parametrize("content", ["", "{", '{"pid": "x"}', "\x00\xff", '{"pid": 1}'])
async def test_a_pid_file_cut_by_a_crash_is_no_obstacle(tmp_path: Path, content: str) -> None:
    (tmp_path / PID_FILE).write_text(content, encoding="latin-1")
    async with EmbeddedBus(tmp_path) as bus:
        assert bus.returncode is None


async def test_a_missing_binary_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no-server: the message bus cannot be started"):
        await EmbeddedBus(tmp_path, binary=tmp_path / "no-server").start()
    assert not (tmp_path / PID_FILE).exists()


async def test_a_server_that_ends_at_once_is_a_clear_error_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken-server"
    broken.write_text("#!/bin/sh\necho cannot allocate anything >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(ConfigError, match=r"ended at once \(return code 3\): cannot allocate anything"):
        await EmbeddedBus(tmp_path, binary=broken).start()


async def test_a_killed_server_comes_back_empty_on_the_same_socket(tmp_path: Path) -> None:
    deaths: asyncio.Queue[int] = asyncio.Queue()
    async with EmbeddedBus(tmp_path) as bus:
        supervisor = asyncio.create_task(bus.supervise(deaths.put_nowait))
        broker = RedisBroker(bus.url)
        url, pid = bus.url, bus.pid
        assert pid is not None
        await broker.publish("signals", b"{}")
        os.kill(pid, signal.SIGKILL)
        assert await deaths.get() == -signal.SIGKILL
        await until(broker.ping)
        assert (bus.url, await broker.depth("signals")) == (url, 0)
        assert bus.pid != pid
        await broker.close()
    await supervisor
    assert deaths.empty()


async def test_a_server_that_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    deaths: list[int] = []
    async with EmbeddedBus(tmp_path, clock=TickingClock()) as bus:
        supervisor = asyncio.create_task(bus.supervise(deaths.append))
        while not supervisor.done():
            if bus.pid is not None and bus.returncode is None:
                os.kill(bus.pid, signal.SIGKILL)
            await asyncio.sleep(0.005)
        with pytest.raises(BrokerError, match=f"died {RESTARTS_MAX + 1} times in a minute"):
            await supervisor
    assert deaths == [-signal.SIGKILL] * RESTARTS_MAX


class TickingClock(ManualClock):
    """A clock on which waiting costs nothing, so that every death falls into one minute."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.001))

"""A compose file without Docker: its commands with its environment, as processes of this machine.

What a container would get by its network is mapped: names of hosts to addresses here, ports to free ones. Nothing else
is changed, so a wrong variable, command, order or health check of the file is found here and not at the user's.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from shared.clock import Clock, SystemClock
from shared.step_cache import cache_directory
from shared.testing.servers import free_port

SECONDS_MAX: Final = 120.0
POLL_SECONDS: Final = 0.1
_VARIABLE: Final = re.compile(r"\$\$|\$\{(?P<name>\w+)(?::(?P<kind>[?-])(?P<rest>[^}]*))?\}")


class ComposeError(Exception):
    """The file demands something that was not given."""


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Return text with `${NAME}`, `${NAME:-default}` and `${NAME:?demand}` as compose reads them."""

    def value(match: re.Match[str]) -> str:
        if match.group() == "$$":
            return "$"
        found = variables.get(match["name"], "")
        if found or match["kind"] is None:
            return found
        if match["kind"] == "?":
            raise ComposeError(f"{match['name']}: {match['rest']}")
        return str(match["rest"])

    return _VARIABLE.sub(value, text)


@dataclass
class ComposeTwin:
    """Services of a compose file as processes; `hosts` maps `name:port` as the file says it to an address here."""

    root: Path
    folder: Path
    variables: Mapping[str, str]
    hosts: Mapping[str, str]
    overrides: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Variables of single services that a test wants otherwise."""
    clock: Clock = field(default_factory=SystemClock)
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def services(self) -> dict[str, Any]:
        """Return the services of the file."""
        loaded: dict[str, Any] = yaml.safe_load((self.root / "docker-compose.yml").read_text())["services"]
        return loaded

    def environment(self, name: str) -> dict[str, str]:
        """Return what the process of a service gets: the file's variables, mapped, and nothing of this process."""
        given: dict[str, str] = {}
        for key, text in self.services[name]["environment"].items():
            if text is not None:
                given[key] = interpolated(str(text), self.variables)
            elif key in self.variables:  # a name without a value is handed on where it is set
                given[key] = self.variables[key]
        for host, address in self.hosts.items():
            given = {key: text.replace(host, address) for key, text in given.items()}
        if given.get("HEALTH_HOST") == "0.0.0.0":
            given["HEALTH_HOST"] = "127.0.0.1"
        given["HEALTH_PORT"] = str(self.ports.setdefault(name, free_port()))
        given |= self.overrides.get(name, {})
        own = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "HOME": str(self.folder)}
        return given | own | {"TRADING_CACHE": str(cache_directory())}

    def command(self, name: str) -> list[str]:
        """Return the image's entry point with the service's command."""
        entry = re.search(r"^ENTRYPOINT (\[.*\])$", (self.root / "Dockerfile").read_text(), re.M)
        assert entry is not None, "Dockerfile: no entry point"
        return [*json.loads(entry[1]), *self.services[name]["command"]]

    def log(self, name: str) -> Path:
        """Return the file that takes what a service says."""
        return self.folder / f"{name}.log"

    def run_job(self, name: str) -> None:
        """Run a service that ends by itself, and see that it ended well."""
        process = self.start(name)
        code = process.wait(SECONDS_MAX)
        if code:
            raise AssertionError(f"{name} ended with {code}:\n{self.log(name).read_text(errors='replace')[-3000:]}")

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start a service's command."""
        with self.log(name).open("ab") as said:
            self.processes[name] = subprocess.Popen(
                self.command(name),
                env=self.environment(name),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.processes[name]

    def url(self, name: str, path: str = "/ready") -> str:
        """Return where a service answers."""
        return f"http://127.0.0.1:{self.ports[name]}{path}"

    def wait_until_healthy(self, names: Sequence[str]) -> None:
        """Return when each service's own health check of the file passes."""
        for name in names:
            self._wait(name, lambda name=name: get(self.url(name))[0] == 200)
            test = self.services[name]["healthcheck"]["test"]
            assert test[0] == "CMD", name
            own_port = re.compile(r"127\.0\.0\.1:\d+")
            check = [own_port.sub(f"127.0.0.1:{self.ports[name]}", part) for part in test[1:]]
            environment = self.environment(name)
            ended = subprocess.run(check, env=environment, cwd=self.folder, capture_output=True, check=False)
            assert ended.returncode == 0, f"{name}: {ended.stderr.decode()[-500:]}"

    def stop(self) -> dict[str, int]:
        """Ask every process to end and return their exit codes."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        codes = {}
        for name, process in self.processes.items():
            try:
                codes[name] = process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = process.wait()
        return codes

    def _wait(self, name: str, reached: Any) -> None:
        deadline = self.clock.monotonic() + SECONDS_MAX
        while not reached():
            try:
                code: int | None = self.processes[name].wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                code = None
            if code is not None or self.clock.monotonic() > deadline:
                said = self.log(name).read_text(errors="replace")[-3000:]
                raise AssertionError(f"{name} is not healthy (exit code {code}); it said:\n{said}")


def until(reached: Callable[[], Any], what: str, so_far: Callable[[], object] = lambda: "") -> Any:
    """Return what `reached` gives as soon as it is true of something; what fails says how far it came."""
    clock, pause = SystemClock(), threading.Event()
    deadline = clock.monotonic() + SECONDS_MAX
    while not (found := reached()):
        if clock.monotonic() > deadline:
            raise AssertionError(f"after {SECONDS_MAX:g} s still not: {what} {so_far()}")
        pause.wait(POLL_SECONDS)
    return found


def get(url: str) -> tuple[int, str]:
    """Return status and text of a URL; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


@contextmanager
def running_prometheus(program: str, root: Path, folder: Path, targets: Mapping[str, int]) -> Iterator[str]:
    """Run a real Prometheus on the repository's configuration, its targets mapped here, once a second; give its URL."""
    text = (root / "monitoring" / "prometheus.yml").read_text().replace("15s", "1s").replace("10s", "1s")
    text = text.replace("rules/*.yml", f"{root}/monitoring/rules/*.yml")
    for name, port in targets.items():
        text = re.sub(rf"{name}:\d+", f"127.0.0.1:{port}", text)
    configuration = folder / "prometheus.yml"
    configuration.write_text(text)
    port = free_port()
    command = [program, f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'prometheus'}"]
    with (folder / "prometheus.log").open("wb") as said:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=said, stderr=said, stdin=subprocess.DEVNULL
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)

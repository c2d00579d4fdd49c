"""`python -m benchmarks.market_alarms [--json FILE]`: which alert rules fire in a real outage, and clear after it.

A real Prometheus reads the four services once a second instead of every fifteen; every duration of its rules is
divided by the same fifteen and nothing else is changed. Outages are made one after another while the market goes on,
and what was never seen to fire, or never to clear, is named.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.market_day import SYMBOLS, services
from benchmarks.market_exchange import LocalExchange, MarketOptions, local_exchange
from benchmarks.market_outages import OUTAGES, Outage, Platform
from shared.clock import Clock, SystemClock
from shared.config import SERVICE_PORTS
from shared.testing.bot_api import FakeBotApi, bot_api_in_thread
from shared.testing.compose_twin import get, running_prometheus
from shared.testing.process_runs import PROCESSES
from shared.testing.servers import free_port, postgres_run, redis_program, redis_run

ROOT = Path(__file__).resolve().parents[1]
SECONDS_OF_A_MINUTE = 4  # 15 s between two scrapes become 1 s
DURATION = re.compile(r"(?<=[\[ ])(\d+)m\b")
CLEAR_SECONDS_MAX = 90.0
TRADED = SYMBOLS[:4]
HISTORY = 700


def shortened_rules(root: Path, folder: Path) -> Path:
    """Write a copy of the monitoring folder whose durations are a fifteenth; return the folder that holds it."""
    target = folder / "shortened" / "monitoring"
    shutil.copytree(root / "monitoring", target)
    for path in (target / "rules").glob("*.yml"):
        short = "\n".join(_shortened(line) for line in path.read_text().splitlines())
        path.write_text(short + "\n")
    return target.parent


def _shortened(line: str) -> str:
    is_duration = "for:" in line or "[" in line or "offset" in line
    return DURATION.sub(lambda found: f"{int(found[1]) * SECONDS_OF_A_MINUTE}s", line) if is_duration else line


@dataclass
class AlertWatch:
    """What fires, asked for all the time: when each alert was first seen, and last not seen any more."""

    url: str
    clock: Clock = field(default_factory=SystemClock)
    fired: dict[str, float] = field(default_factory=dict)
    cleared: dict[str, float] = field(default_factory=dict)
    firing: frozenset[str] = frozenset()
    seen: set[str] = field(default_factory=set)
    began: float = 0.0

    def __post_init__(self) -> None:
        """Count seconds from now on."""
        self.began = self.clock.monotonic()

    def names(self) -> list[str]:
        """Return every alert rule that Prometheus has loaded."""
        groups = json.loads(get(f"{self.url}/api/v1/rules?type=alert")[1])["data"]["groups"]
        return [rule["name"] for group in groups for rule in group["rules"]]

    def look(self) -> None:
        """Ask once what fires."""
        status, text = get(f"{self.url}/api/v1/alerts")
        if status != 200:
            return
        alerts = json.loads(text)["data"]["alerts"]
        firing = frozenset(each["labels"]["alertname"] for each in alerts if each["state"] == "firing")
        now = round(self.clock.monotonic() - self.began, 1)
        for name in firing - self.firing:
            self.fired.setdefault(name, now)
            self.cleared.pop(name, None)  # again: what is over is over at the end
        for name in self.firing - firing:
            self.cleared[name] = now
        self.firing = firing
        self.seen |= firing

    def seconds(self) -> float:
        """Return the seconds since watching began."""
        return self.clock.monotonic() - self.began

    def wait_while(self, is_so: Callable[[], bool], seconds_max: float) -> None:
        """Return when something is no longer so, or the time is over."""
        deadline = self.clock.monotonic() + seconds_max
        while is_so() and self.clock.monotonic() < deadline:
            time.sleep(0.2)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Go on asking twice a second for the length of a block."""
        over = threading.Event()

        def ask() -> None:
            while not over.wait(0.5):
                self.look()

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def suffer(outage: Outage, platform: Platform, watch: AlertWatch) -> None:
    """Cause an outage until what it should raise has fired or its time is over, then end it.

    What fires still, of an outage before, is waited for: each is to be raised by what should raise it.
    """
    watch.wait_while(lambda: bool(outage.raises & watch.firing), CLEAR_SECONDS_MAX)
    print(f"{watch.seconds():6.1f} s  {outage.name}", flush=True)
    watch.seen = set()
    try:
        with outage.cause(platform):
            watch.wait_while(lambda: not outage.raises <= watch.seen, outage.seconds_max)
    except (AssertionError, OSError) as error:
        print(f"          could not be made as meant: {str(error)[:300]}", flush=True)
    missing = sorted(outage.raises - watch.seen)
    if missing:
        print(f"          not seen: {', '.join(missing)}", flush=True)
    if not platform.until_well():
        print("          not every service became ready after it", flush=True)


def alarms(folder: Path, prometheus: str, speed: float, behind_hours: float) -> dict[str, Any]:
    """Run the platform through every outage and return what was seen."""
    market = MarketOptions(TRADED, speed, HISTORY, behind_hours)
    ports = {name: free_port() for name in SERVICE_PORTS}
    with (
        postgres_run(durable=True) as postgres,
        redis_run(redis_program(), durable=True) as bus,
        bot_api_in_thread(FakeBotApi()) as api,
        local_exchange(folder, market) as exchange,
        services(folder / "services", (postgres.url, bus.url), exchange) as run,
    ):
        run.settings = {**run.settings, "symbols": ",".join(TRADED), **telegram_settings(api)}
        platform = Platform(run, exchange, bus, api, ports)
        migrated = run.trading("db", "upgrade", "--database-url", postgres.url)
        assert migrated.returncode == 0, migrated.stderr.decode()[-2000:]
        platform.start(*PROCESSES)
        with running_prometheus(prometheus, shortened_rules(ROOT, folder), folder, ports) as url:
            while get(f"{url}/-/ready")[0] != 200:
                time.sleep(0.2)
            while '"up"' not in (targets := get(f"{url}/api/v1/targets?state=active")[1]) or '"down"' in targets:
                time.sleep(0.2)
            watch = AlertWatch(url)
            names = watch.names()
            with watch.looking():
                for outage in OUTAGES:
                    suffer(outage, platform, watch)
                print(f"{watch.seconds():6.1f} s  quiet: the market catches up with the clock", flush=True)
                watch.wait_while(lambda: bool(watch.firing), CLEAR_SECONDS_MAX + seconds_behind(exchange, speed))
        verified = run.trading("verify", "--database-url", postgres.url)
        run.stop(*run.running)
    return seen(watch, names) | {"verify_exit_code": verified.returncode}


def seconds_behind(exchange: LocalExchange, speed: float) -> float:
    """Return how long the market needs until it has caught up with the clock."""
    said = exchange.status()
    return max(0.0, float(said["server_ms"]) - float(said["market_ms"])) / 1000 / (speed - 1)


def telegram_settings(api: FakeBotApi) -> dict[str, str]:
    """Return the settings that send messages to a Bot API of this machine, few of them waiting."""
    return {
        "telegram_enabled": "true",
        "telegram_bot_token": api.token,
        "telegram_chat_id": "42",
        "telegram_api_url": api.url,
        "telegram_queue_max": "20",
        "telegram_topics": "errors,summary",  # a market at speed has more to say than a person is told in a second
    }


def seen(watch: AlertWatch, names: list[str]) -> dict[str, Any]:
    """Return which of the rules fired, which cleared, and which did not."""
    fired, cleared = watch.fired, watch.cleared
    return {
        "rules": len(names),
        "fired_and_cleared": sorted(set(fired) & set(cleared)),
        "fired_only": sorted(set(fired) - set(cleared)),
        "not_seen": sorted(set(names) - set(fired)),
        "first_fired_at_seconds": fired,
        "last_cleared_at_seconds": cleared,
    }


def main() -> int:
    """Suffer every outage, print what was seen, and end with 1 when a rule was not seen to fire and to clear."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.market_alarms", description=__doc__)
    parser.add_argument("--speed", type=float, default=720.0, help="of candles")
    parser.add_argument("--behind", type=float, default=96.0, help="hours that the market lies behind at first")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        parser.error("prometheus is not installed; it is Debian's package of that name")
    with tempfile.TemporaryDirectory(prefix="trading-bench-") as name:
        found = alarms(Path(name), prometheus, arguments.speed, arguments.behind)
    for part, value in found.items():
        print(part, json.dumps(value))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2))
    return 0 if len(found["fired_and_cleared"]) == found["rules"] else 1


if __name__ == "__main__":
    sys.exit(main())

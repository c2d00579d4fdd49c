"""The compose file's own commands and environment as processes on real servers: healthy, watched, and leaking nothing.

One run serves every test here. It speaks at DEBUG, every secret is a canary, and every fault that can be made from
outside is made while it trades.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from shared.config import SERVICE_PORTS
from shared.testing.bot_api import FakeBotApi, bot_api_in_thread, garbage, refusal, server_error, too_many_requests
from shared.testing.compose_twin import ComposeError, ComposeTwin, get, interpolated, running_prometheus, until
from shared.testing.servers import ServerMissing, ServerRun, free_port, postgres_server, redis_program, redis_run

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "9876543210:canaryTelegram-AAAAAAAAAAAAAAAAAAAAA"
CANARIES = {
    "POSTGRES_PASSWORD": "canary%Postgres/p@ss:1",
    "REDIS_PASSWORD": "canary%Redis/p@ss:2",
    "TELEGRAM_BOT_TOKEN": TOKEN,
    "BINANCE_API_KEY": "canaryBinanceKey0123456789abcdef",
    "BINANCE_API_SECRET": "canaryBinanceSecret0123456789abc",
}
SETTINGS = {"LOG_LEVEL": "DEBUG", "SPEED": "400", "SYMBOLS": "BTC/USDT,ETH/USDT", "TELEGRAM_ENABLED": "true", "TELEGRAM_CHAT_ID": "42"}  # fmt: skip


def in_loop(work: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@dataclass
class Deployment:
    """What runs, and everything that was said by it."""

    twin: ComposeTwin
    api: FakeBotApi
    database_url: str
    bus: ServerRun

    def sample(self, service: str, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples of one service; 0 where there are none."""
        families = text_string_to_metric_families(get(self.twin.url(service, "/metrics"))[1])
        found = (each for family in families for each in family.samples if each.name == name)
        return sum(each.value for each in found if labels.items() <= each.labels.items())

    def fills(self) -> float:
        return self.sample("order-executor", "trading_fills_total")

    def turns(self) -> float:
        """Return how many batches have come through to the last service."""
        return self.sample("portfolio-manager", "trading_processing_seconds_count")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Start the servers, run the migrate job, start the four services, and wait until each is healthy."""
    folder = tmp_path_factory.mktemp("twin")
    with ExitStack() as stack:
        try:
            bus = stack.enter_context(
                redis_run(redis_program(), tcp_port=free_port(), password=CANARIES["REDIS_PASSWORD"])
            )
            server_url = stack.enter_context(
                postgres_server(user="trading", password=CANARIES["POSTGRES_PASSWORD"], tcp_port=free_port())
            )
        except ServerMissing as missing:
            pytest.skip(f"not installed: {missing}")
        in_loop(_execute(server_url, "CREATE DATABASE trading"))
        database_url = server_url.replace("/postgres", "/trading").replace("//postgres:", "//trading:")
        api = stack.enter_context(bot_api_in_thread(FakeBotApi(TOKEN)))
        address = urllib.parse.urlsplit(server_url)
        overrides = {name: {"REDIS_URL": bus.url} for name in SERVICE_PORTS}
        overrides["portfolio-manager"]["DATABASE_URL"] = database_url  # a password inside a URL is a secret too
        secrets = {name: text for name, text in CANARIES.items() if not name.startswith("REDIS")}
        twin = ComposeTwin(
            root=ROOT,
            folder=folder,
            variables={**SETTINGS, **secrets, "TELEGRAM_API_URL": api.url},
            hosts={"postgres:5432": f"{address.hostname}:{address.port}"},
            overrides=overrides,
        )
        twin.run_job("migrate")
        stack.callback(twin.stop)
        for name in SERVICE_PORTS:
            twin.start(name)
        twin.wait_until_healthy(list(SERVICE_PORTS))
        running = Deployment(twin, api, database_url, bus)
        until(lambda: running.fills() > 3, "the executor has booked fills")
        yield running


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def test_a_demanded_variable_is_demanded_and_a_default_is_one() -> None:
    with pytest.raises(ComposeError, match="set POSTGRES_PASSWORD"):
        interpolated("${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD in .env}", {})
    assert interpolated("${A:-b} ${C} $$d", {"C": "c"}) == "b c $d"


def test_the_environment_of_each_service_holds_its_own_secrets_only(deployment: Deployment) -> None:
    for name in SERVICE_PORTS:
        given = deployment.twin.environment(name)
        assert ("BINANCE_API_SECRET" in given) == (name == "order-executor")
        assert "GRAFANA_PASSWORD" not in given


def test_health_names_dependencies_and_the_services_own_loop(deployment: Deployment) -> None:
    loops = {"data-collector": "collector", "strategy-engine": "engine", "order-executor": "executor", "portfolio-manager": "portfolio"}  # fmt: skip
    for name, loop in loops.items():
        status, text = get(deployment.twin.url(name, "/health"))
        document = json.loads(text)
        assert (status, document["status"], document["service"]) == (200, "ok", name)
        assert {"database", "bus", loop} <= set(document["checks"])
        assert get(deployment.twin.url(name, "/live"))[0] == 200


def test_a_real_prometheus_sees_four_targets_and_draws_every_panel(deployment: Deployment, tmp_path: Path) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed: Debian package prometheus (make deps-debian)")
    with running_prometheus(program, ROOT, tmp_path, deployment.twin.ports) as url:

        def answer(path: str) -> Any:
            status, text = get(url + path)
            return json.loads(text)["data"] if status == 200 else None

        def targets_up() -> bool:
            found = answer("/api/v1/targets?state=active")
            return bool(found) and [each["health"] for each in found["activeTargets"]] == ["up"] * 4

        until(targets_up, "all four targets are up")
        until(
            lambda: (answer("/api/v1/query?query=count(count_over_time(up[30s])%20%3E%202)") or {}).get("result"),
            "three scrapes",
        )
        active = answer("/api/v1/targets?state=active")["activeTargets"]
        assert {each["labels"]["job"] for each in active} == {"trading-services"}
        until(lambda: not _empty_panels(answer), "every panel has data; empty:", lambda: _empty_panels(answer))
        loaded = answer("/api/v1/rules")["groups"]
        assert sum(len(group["rules"]) for group in loaded) >= 20
        assert [rule["name"] for group in loaded for rule in group["rules"] if rule["health"] == "err"] == []


def _empty_panels(answer: Callable[[str], Any]) -> list[str]:
    """Return the panels' expressions that give nothing; a rate needs two scrapes, so it is asked over a shorter time."""
    document = json.loads((ROOT / "monitoring/grafana/dashboards/trading.json").read_text())
    asked = [target["expr"] for panel in document["panels"] for target in panel.get("targets", [])]
    empty = []
    for expression in asked:
        found = answer("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        assert found is not None, f"refused by Prometheus: {expression}"
        if not found["result"]:
            empty.append(expression)
    # what has not happened in a run without faults of the market
    return [
        each
        for each in empty
        if not any(word in each for word in ("errors", "quarantined", "dead_letters", "gaps", "refused"))
    ]


def test_no_secret_leaks_whatever_fails(deployment: Deployment) -> None:
    twin = deployment.twin
    for make_fault in (_rubbish_on_the_bus, _cut_connections, _bus_dies_and_is_empty):
        make_fault(deployment)
        before = deployment.turns()
        until(lambda before=before: deployment.turns() > before + 3, "trading goes on after the fault")
    deployment.api.script.extend([too_many_requests(0.2), refusal(403, f"no {TOKEN}"), server_error(), garbage()])
    requests = deployment.api.request_count
    until(lambda: deployment.api.request_count > requests + 4, "the Bot API was asked through its faults")
    said = {**_http_answers(twin), **_process_list(twin), **_database_text(deployment), **_bus_text(deployment)}
    codes = twin.stop()
    assert set(codes.values()) == {0}, codes
    said |= {path.name: path.read_text(errors="replace") for path in twin.folder.glob("*.log")}
    logs = "".join(text for name, text in said.items() if name.endswith(".log"))
    for proof in ('"level":"debug"', "service.waits", "bus.unreadable", "a message was refused"):
        assert proof in logs, f"the run did not even show {proof}"
    assert _leaks(said) == []
    _follow_one_path(twin)


def _follow_one_path(twin: ComposeTwin) -> None:
    """See that one id leads from a candle's record to its fill's, through the logs of three processes."""
    ids: dict[str, set[str]] = {}
    for name in SERVICE_PORTS:
        for line in twin.log(name).read_text().splitlines():
            record = json.loads(line)  # whoever wrote it, a library too: one form
            assert {"time", "level", "service", "logger", "event"} <= set(record), line
            assert record["service"] == name
            ids.setdefault(record["event"], set()).add(record.get("correlation_id", ""))
    assert (
        ids["candle.stored"] & ids["candle.handled"] & ids["signal.stored"] & ids["order.placed"] & ids["order.filled"]
    )
    assert "" not in ids["signal.stored"] | ids["order.placed"] | ids["order.filled"]


def _leaks(said: dict[str, str]) -> list[str]:
    """Return where which canary shows, in any form in which URLs, JSON or Python write it."""
    found = []
    for name, canary in CANARIES.items():
        forms = {canary, urllib.parse.quote(canary, safe=""), urllib.parse.quote(canary), json.dumps(canary)[1:-1]}
        tail = canary.partition(":")[2]  # half a token, or half a password that a parser has cut, is a leak too
        forms |= {tail} if len(tail) > 8 else {canary.split("%")[-1].split("/")[0] + "/p"}
        found += [f"{name} in {where}" for where, text in said.items() if any(form in text for form in forms)]
    return found


def _rubbish_on_the_bus(deployment: Deployment) -> None:
    with redis.Redis.from_url(deployment.bus.url) as client:
        for stream in ("signals", "orders", "watermarks", "candles.BTC_USDT.1m"):
            client.xadd(stream, {"payload": b"\xff{not an event"})
            client.xadd(stream, {"other": b"1"})


def _cut_connections(deployment: Deployment) -> None:
    with redis.Redis.from_url(deployment.bus.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    in_loop(
        _execute(
            deployment.database_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'trading'",
        )
    )


def _bus_dies_and_is_empty(deployment: Deployment) -> None:
    deployment.bus.kill()
    until(lambda: get(deployment.twin.url("order-executor"))[0] == 503, "readiness shows that the bus is away")
    logs = [deployment.twin.log(name) for name in SERVICE_PORTS]
    until(lambda: any(b"service.waits" in log.read_bytes() for log in logs), "a service says that it waits for the bus")
    deployment.bus.start()


def _http_answers(twin: ComposeTwin) -> dict[str, str]:
    paths = ("/health", "/ready", "/live", "/metrics", "/", "/nothing?token=x")
    return {f"{name}{path}": get(twin.url(name, path))[1] for name in SERVICE_PORTS for path in paths}


def _process_list(twin: ComposeTwin) -> dict[str, str]:
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=False).stdout
    own = {str(process.pid) for process in twin.processes.values()}
    assert own & {line.split()[0] for line in listed.splitlines()[1:]}
    lines = [line for line in listed.splitlines() if "redis-server" not in line]  # its canary is the test's own doing
    return {"process list": "\n".join(lines)}


def _database_text(deployment: Deployment) -> dict[str, str]:
    async def dump() -> dict[str, str]:
        connection = await asyncpg.connect(deployment.database_url)
        try:
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            said = {}
            for (name,) in tables:
                rows = await connection.fetch(f'SELECT each::text FROM "{name}" AS each')
                said[f"table {name}"] = "\n".join(row[0] for row in rows)
            activity = await connection.fetch("SELECT query, application_name FROM pg_stat_activity")
            said["pg_stat_activity"] = "\n".join(map(str, activity))
            return said
        finally:
            await connection.close()

    found: dict[str, str] = in_loop(dump())
    assert found["table orders"]
    assert found["table dead_letters"]
    return found


def _bus_text(deployment: Deployment) -> dict[str, str]:
    with redis.Redis.from_url(deployment.bus.url) as client:
        keys: Any = client.keys("*")
        streams = {f"stream {key.decode()}": repr(client.xrange(key)) for key in keys if client.type(key) == b"stream"}
        assert streams
        return {**streams, "clients": repr(client.client_list())}

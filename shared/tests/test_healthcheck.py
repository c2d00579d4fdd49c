"""Health, asked over real HTTP."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from shared.clock import ManualClock, SystemClock
from shared.errors import ConfigError
from shared.healthcheck import HealthCheckServer, Heartbeat
from shared.metrics import ServiceMetrics


@pytest.fixture
async def server() -> AsyncIterator[HealthCheckServer]:
    registry = CollectorRegistry()
    ServiceMetrics("engine", registry)
    health = HealthCheckServer("engine", 0, registry=registry, check_seconds_max=0.2, clock=ManualClock())
    await health.start()
    yield health
    await health.stop()


async def get(server: HealthCheckServer, path: str) -> tuple[int, Any, str]:
    url = f"http://127.0.0.1:{server.port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        kind = response.headers["Content-Type"]
        return response.status, (await response.json() if "json" in kind else await response.text()), kind


async def test_health_is_ok_when_every_check_is(server: HealthCheckServer) -> None:
    async def database() -> tuple[bool, str]:
        return True, "3 ms"

    async def ping() -> None:
        return None

    server.register_check("database", database)
    server.register_check("queue", lambda: True)
    server.register_check("bus", ping)
    status, body, _ = await get(server, "/health")
    assert status == 200
    assert body == {
        "status": "ok",
        "service": "engine",
        "uptime_seconds": 0.0,
        "checks": {
            "event_loop": {"status": "ok", "detail": "last turn 0.0 s ago, at most 30.0 s allowed"},
            "database": {"status": "ok", "detail": "3 ms"},
            "queue": {"status": "ok", "detail": ""},
            "bus": {"status": "ok", "detail": ""},
        },
    }
    assert await server.run_checks() == body


async def test_health_is_degraded_when_one_is_not(server: HealthCheckServer) -> None:
    async def broken() -> bool:
        raise ConnectionError("redis://:hunter2@host refused")

    server.register_check("good", lambda: True)
    server.register_check("false", lambda: False)
    server.register_check("broken", broken)
    for path in ("/health", "/ready"):
        status, body, _ = await get(server, path)
        assert status == 503
        assert body["status"] == "degraded"
        assert {name: check["status"] for name, check in body["checks"].items()} == {
            "event_loop": "ok",
            "good": "ok",
            "false": "failed",
            "broken": "failed",
        }
        assert "ConnectionError" in body["checks"]["broken"]["detail"]
        assert "hunter2" not in str(body)


async def test_live_asks_only_what_a_restart_would_mend(server: HealthCheckServer) -> None:
    loop_turns = True
    server.register_check("database", lambda: False)
    server.register_check("loop", lambda: loop_turns, liveness=True)
    assert (await get(server, "/live"))[0] == 200
    loop_turns = False
    assert (await get(server, "/live"))[0] == 503


def ask_from_outside(server: HealthCheckServer, path: str) -> tuple[int, str]:
    """Ask as another process would, holding up the loop of whoever calls."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def test_an_event_loop_that_is_held_up_is_told_by_live_and_by_the_metric_and_comes_back() -> None:
    registry, clock = CollectorRegistry(), SystemClock()
    metrics = ServiceMetrics("engine", registry)
    server = HealthCheckServer("engine", 0, registry=registry, loop_seconds_max=0.5)
    server.tell_live(metrics.live)
    await server.start()
    try:
        assert (await get(server, "/live"))[0] == 200
        assert 'trading_service_up{service="engine"} 1.0' in (await get(server, "/metrics"))[1]
        deadline = clock.monotonic() + 20
        while (found := ask_from_outside(server, "/live"))[0] != 503 and clock.monotonic() < deadline:
            pass  # this test's own loop stands still meanwhile: nobody awaits
        assert found[0] == 503
        assert "it does not turn" in found[1]
        assert ask_from_outside(server, "/ready")[0] == 503
        assert 'trading_service_up{service="engine"} 0.0' in ask_from_outside(server, "/metrics")[1]
        while (await get(server, "/live"))[0] != 200:
            assert clock.monotonic() < deadline
        assert 'trading_service_up{service="engine"} 1.0' in (await get(server, "/metrics"))[1]
    finally:
        await server.stop()


async def test_a_service_whose_own_loop_stands_still_is_not_up_though_its_process_answers() -> None:
    registry = CollectorRegistry()
    metrics, turns = ServiceMetrics("engine", registry), False
    server = HealthCheckServer("engine", 0, registry=registry, clock=ManualClock())
    server.register_check("engine_loop", lambda: turns, liveness=True)
    server.tell_live(metrics.live)
    await server.start()
    assert (await get(server, "/live"))[0] == 503
    assert 'trading_service_up{service="engine"} 0.0' in (await get(server, "/metrics"))[1]
    turns = True
    assert 'trading_service_up{service="engine"} 1.0' in (await get(server, "/metrics"))[1]
    metrics.up(False)
    assert 'trading_service_up{service="engine"} 0.0' in (await get(server, "/metrics"))[1]
    await server.stop()


async def test_a_check_that_hangs_is_cut_off_and_holds_up_no_other(server: HealthCheckServer) -> None:
    begun, blocked, release = 0, 0, threading.Event()

    async def hang() -> bool:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()
        return True

    def block() -> bool:
        nonlocal blocked
        blocked += 1
        return release.wait(30)

    server.register_check("hangs", hang)
    server.register_check("blocks", block)
    server.register_check("good", lambda: True)
    for _ in range(3):
        status, body, _ = await get(server, "/health")
        assert status == 503
        assert body["checks"]["good"]["status"] == "ok"
        assert "no answer within 0.2 s" in body["checks"]["hangs"]["detail"]
        assert "no answer within 0.2 s" in body["checks"]["blocks"]["detail"]
    assert begun == 3, "a coroutine is cancelled and begun anew"
    assert blocked == 1, "no second thread hangs beside the first"
    release.set()


async def test_checks_run_together(server: HealthCheckServer) -> None:
    meet = asyncio.Barrier(3)

    async def wait_for_the_others() -> bool:
        await meet.wait()
        return True

    for name in "abc":
        server.register_check(name, wait_for_the_others)
    assert (await get(server, "/health"))[0] == 200


async def test_metrics_answer_in_the_form_prometheus_reads(server: HealthCheckServer) -> None:
    status, text, kind = await get(server, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain; version=")
    assert 'trading_service_up{service="engine"} 1.0' in text


async def test_an_unknown_path_is_not_found(server: HealthCheckServer) -> None:
    assert (await get(server, "/"))[0] == 404


async def test_a_port_in_use_says_what_to_do(server: HealthCheckServer) -> None:
    second = HealthCheckServer("other", server.port)
    with pytest.raises(ConfigError, match=rf"{server.port}.*in use.*HEALTH_PORT"):
        await second.start()
    await second.stop()


@pytest.mark.parametrize(("host", "port"), [("203.0.113.7", 0), ("no such host", 0), ("127.0.0.1", 99999)])
async def test_an_address_that_cannot_be_is_refused(host: str, port: int) -> None:
    with pytest.raises(ConfigError, match=r"health_port .* cannot listen"):
        await HealthCheckServer("engine", port, host=host).start()


async def test_it_starts_and_stops_more_than_once() -> None:
    health = HealthCheckServer("engine", 0)
    await health.stop()
    await health.start()
    await health.start()
    assert (await get(health, "/health"))[0] == 200
    await health.stop()
    await health.stop()
    health.port = 0
    await health.start()
    assert (await get(health, "/live"))[0] == 200
    await health.stop()


async def test_a_loop_that_no_longer_turns_is_seen() -> None:
    clock = ManualClock()
    heartbeat = Heartbeat(30, clock=clock)
    await clock.advance(30)
    assert (await heartbeat.check())[0]
    await clock.advance(1)
    assert not (await heartbeat.check())[0]
    heartbeat.beat()
    assert (await heartbeat.check())[0]

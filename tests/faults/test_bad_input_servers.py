"""A server that is not there, or says nothing, is named within a bound, and its password never is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shared.clock import SystemClock

SERVICES = ("data-collector", "strategy-engine", "order-executor", "portfolio-manager")
PASSWORD = "s3cret-pass"
SECONDS_MAX = 30.0
SOON = ("--health-port", "0", "--start-seconds-max", "0.5")  # nobody starts the server while the test waits


@pytest.fixture
def closed_port() -> int:
    """Return a port where nobody listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Return a port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    kept.append(server.accept()[0])
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        for connection in kept:
            connection.close()


@pytest.mark.parametrize("service", SERVICES)
def test_a_database_that_refuses_is_named_without_its_password(
    service: str, trading: Any, refused: Any, closed_port: int
) -> None:
    url = f"postgresql://trader:{PASSWORD}@127.0.0.1:{closed_port}/trading"
    outcome = trading("run", service, "--database-url", url, "--redis-url", "redis://127.0.0.1:1", *SOON)
    refused(outcome, f"127.0.0.1:{closed_port}", "cannot be reached")
    assert PASSWORD not in outcome.said


def test_a_database_that_says_nothing_is_given_up_within_a_bound(trading: Any, refused: Any, silent_port: int) -> None:
    url = f"postgresql://trader:{PASSWORD}@127.0.0.1:{silent_port}/trading"
    began = SystemClock().monotonic()
    outcome = trading("run", "order-executor", "--database-url", url, "--redis-url", "redis://127.0.0.1:1", *SOON)
    refused(outcome, f"127.0.0.1:{silent_port}", "cannot be reached")
    assert PASSWORD not in outcome.said
    assert SystemClock().monotonic() - began < SECONDS_MAX


@pytest.mark.parametrize("service", SERVICES)
def test_a_bus_that_refuses_is_named_without_its_password(
    service: str, trading: Any, refused: Any, closed_port: int, sqlite_url: str
) -> None:
    url = f"redis://:{PASSWORD}@127.0.0.1:{closed_port}/0"
    outcome = trading("run", service, "--database-url", sqlite_url, "--redis-url", url, *SOON)
    refused(outcome, f"redis_url: redis://127.0.0.1:{closed_port}/0 cannot be used", "correct REDIS_URL")
    assert PASSWORD not in outcome.said


def test_a_bus_that_says_nothing_is_given_up_within_a_bound(
    trading: Any, refused: Any, silent_port: int, sqlite_url: str
) -> None:
    url = f"redis://:{PASSWORD}@127.0.0.1:{silent_port}/0"
    began = SystemClock().monotonic()
    arguments = ("--database-url", sqlite_url, "--redis-url", url, *SOON)
    refused(trading("run", "strategy-engine", *arguments), f"127.0.0.1:{silent_port}")
    assert SystemClock().monotonic() - began < SECONDS_MAX


def test_up_names_the_bus_it_was_given(trading: Any, refused: Any, replay: Any, closed_port: int) -> None:
    url = f"redis://:{PASSWORD}@127.0.0.1:{closed_port}/0"
    outcome = trading(*replay(40), "--redis-url", url)
    refused(outcome, f"127.0.0.1:{closed_port}")
    assert PASSWORD not in outcome.said


@pytest.mark.integration
def test_a_wrong_password_is_refused_and_not_repeated(trading: Any, refused: Any, postgres_server: str) -> None:
    url = postgres_server.replace("50%25off%2Fp%40ss%3Aword", PASSWORD)
    assert PASSWORD in url
    outcome = trading("run", "order-executor", "--database-url", url, "--redis-url", "redis://127.0.0.1:1", *SOON)
    refused(outcome, "refused user or password", "database_url")
    assert PASSWORD not in outcome.said


def test_a_database_url_that_cannot_be_read_shows_nothing_of_itself(
    trading: Any, refused: Any, clean_place: Path
) -> None:
    for url in (f"postgresql://trader:{PASSWORD}@[::1/x", f"postgresql://trader:{PASSWORD}@host:port/x"):
        outcome = trading("run", "order-executor", "--database-url", url, "--redis-url", "redis://h")
        refused(outcome, "database_url")
        assert PASSWORD not in outcome.said

"""Every call that leaves a process is in one table, and the table says what the code does."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from shared.config import ENVIRONMENT_NAMES

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "operations.md"
# what opens a connection to somebody else, by the last two words of the call
OPENERS = {
    "aiohttp.ClientSession",
    "session.ws_connect",
    "_session.ws_connect",
    "create_async_engine",
    "ConnectionPool.from_url",
    "getattr(ccxt)",
    "asyncpg.connect",
    "request.urlopen",
    "asyncio.open_connection",
    "asyncio.open_unix_connection",
    "socket.create_connection",
}
PRODUCT = ("shared/src", "services/*/src", "services/strategy-engine/strategies", "cli/src")
# answers calls, or is for tests; a bus of our own is started and pinged, not called
NOT_OUTSIDE = ("paper_exchange/", "/testing", "shared/embedded_bus.py", "shared/bus_leftover.py")
POLLS = {"services/data-collector/src/data_collector/ahead.py"}  # looks at its own pace, with or without an answer


class Call(NamedTuple):
    """One row of the table."""

    what: str
    opened: list[str]
    retried: list[str]
    breakers: list[str]
    text: str


def table() -> list[Call]:
    section = PAGE.read_text().split("## Calls to the outside")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    paths = [[re.findall(r"`([\w/.-]+\.py)`", cell) for cell in row] for row in rows]
    return [Call(row[0], where[1], where[2], where[4], " ".join(row)) for row, where in zip(rows, paths, strict=True)]


def sources() -> list[Path]:
    found = [path for pattern in PRODUCT for folder in ROOT.glob(pattern) for path in folder.rglob("*.py")]
    return [path for path in found if not any(part in path.as_posix() for part in NOT_OUTSIDE)]


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Return everything that stands in a file; several tests look at each."""
    return list(ast.walk(ast.parse(path.read_text())))


def called(node: ast.Call) -> str:
    """Return the last two words of what is called, e.g. `aiohttp.ClientSession`."""
    function = node.func
    if isinstance(function, ast.Call):  # getattr(ccxt, name)(...)
        inner = function
        if isinstance(inner.func, ast.Name) and inner.func.id == "getattr" and isinstance(inner.args[0], ast.Name):
            return f"getattr({inner.args[0].id})"
        return ""
    if isinstance(function, ast.Attribute):
        owner = function.value
        name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
        return f"{name}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else ""


def words_of(path: str) -> set[str]:
    nodes = nodes_of(ROOT / path)
    return {called(node) for node in nodes if isinstance(node, ast.Call)} | {
        node.id for node in nodes if isinstance(node, ast.Name)
    }


def test_every_file_that_opens_a_connection_is_in_the_table_and_no_other() -> None:
    opening = {
        path.relative_to(ROOT).as_posix()
        for path in sources()
        for node in nodes_of(path)
        if isinstance(node, ast.Call) and called(node) in OPENERS
    }
    assert opening == {path for call in table() for path in call.opened}


@pytest.mark.parametrize("call", table(), ids=lambda call: call.what)
def test_what_the_table_says_is_done_is_done_there(call: Call) -> None:
    for path in call.retried:
        assert words_of(path) & {"retry_with_backoff", "Backoff"}, f"{path} tries nothing again"
    for path in call.breakers:
        assert "CircuitBreaker" in words_of(path), f"{path} has no breaker"
    assert call.retried
    assert call.breakers or "a person waits" in call.text


@pytest.mark.parametrize("call", table(), ids=lambda call: call.what)
def test_the_table_names_settings_that_exist(call: Call) -> None:
    named = set(re.findall(r"`([A-Z_]{6,})`", call.text))
    assert named <= ENVIRONMENT_NAMES, named - ENVIRONMENT_NAMES


def test_nobody_else_decides_about_trying_again() -> None:
    # a wait inside an except clause is a retry that the table does not know
    hidden = []
    for path in sources():
        for handler in nodes_of(path):
            if isinstance(handler, ast.ExceptHandler):
                waits = [node for node in ast.walk(handler) if isinstance(node, ast.Call)]
                if any(called(node).endswith(".sleep") for node in waits):
                    hidden.append(path.relative_to(ROOT).as_posix())
    allowed = {path for call in table() for path in call.retried}
    assert sorted(set(hidden) - allowed - POLLS) == []

"""Strategies lie in no floor of the house, so their imports are read from their source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STRATEGIES = ROOT / "services" / "strategy-engine" / "strategies"
CONTRACT = {"shared.strategy", "shared.indicators", "shared.models", "strategies.base"}
NUMBERS = {"numpy", "numba", "pydantic"}
STANDARD = {
    "__future__", "abc", "bisect", "cmath", "collections", "dataclasses", "datetime", "decimal", "enum", "fractions",
    "functools", "heapq", "itertools", "math", "numbers", "operator", "statistics", "typing",
}  # fmt: skip
REACHING_OUT = {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"}


def imported_modules(tree: ast.AST) -> set[str]:
    """Return every module that a source names in an import, relative ones with their dots."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            of_shared = module in {"shared", "strategies"}
            found |= {f"{module}.{alias.name}" for alias in node.names} if of_shared else {module}
    return found


def is_allowed(module: str) -> bool:
    """Say whether a plug-in may import a module."""
    package = module.partition(".")[0]
    return package in NUMBERS | STANDARD or any(module == name or module.startswith(f"{name}.") for name in CONTRACT)


def called_names(tree: ast.AST) -> set[str]:
    """Return the bare names that a source calls."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {call.func.id for call in calls if isinstance(call.func, ast.Name)}


def plugin_files() -> list[Path]:
    return sorted(STRATEGIES.glob("*.py"))


def test_there_are_plugins_to_look_at() -> None:
    assert STRATEGIES / "base.py" in plugin_files()


@pytest.mark.parametrize("path", plugin_files(), ids=lambda path: path.name)
def test_a_plugin_imports_the_contract_numbers_and_nothing_else(path: Path) -> None:
    outside = {module for module in imported_modules(ast.parse(path.read_text())) if not is_allowed(module)}
    assert not outside, f"{path.relative_to(ROOT)} imports {sorted(outside)}"


@pytest.mark.parametrize("path", plugin_files(), ids=lambda path: path.name)
def test_a_plugin_calls_nothing_that_reaches_outside(path: Path) -> None:
    reaching = called_names(ast.parse(path.read_text())) & REACHING_OUT
    assert not reaching, f"{path.relative_to(ROOT)} calls {sorted(reaching)}"


@pytest.mark.parametrize(
    "source",
    [
        "import socket",
        "import numpy, os",
        "from shared import db",
        "from shared.broker import RedisBroker",
        "def late():\n    import subprocess",
        "from . import base",
        "import mathematics",
        "import shared.models_of_another_house",
    ],
)
def test_an_import_from_outside_is_seen_wherever_it_stands(source: str) -> None:
    assert not all(is_allowed(module) for module in imported_modules(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "import math",
        "from shared import indicators",
        "from shared.strategy import BaseStrategy",
        "import numpy.typing as npt",
    ],
)
def test_what_the_contract_offers_is_allowed(source: str) -> None:
    assert all(is_allowed(module) for module in imported_modules(ast.parse(source)))

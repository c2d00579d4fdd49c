"""What a strategy file may import and call, read from its syntax before it is run.

This keeps honest files honest: a strategy decides from candles and touches nothing outside. It is no sandbox; a file
from a stranger is a program from a stranger.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

CONTRACT_MODULES = ("shared.strategy", "shared.indicators", "shared.models", "strategies.base")
NUMBER_PACKAGES = frozenset({"numpy", "numba", "pydantic"})
STANDARD_MODULES = frozenset(
    [
        "__future__",
        "abc",
        "bisect",
        "cmath",
        "collections",
        "contextlib",
        "copy",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "functools",
        "heapq",
        "itertools",
        "math",
        "numbers",
        "operator",
        "re",
        "statistics",
        "string",
        "textwrap",
        "types",
        "typing",
        "typing_extensions",
    ]
)
FORBIDDEN_NAMES = {
    "open": "reads or writes files",
    "exec": "runs text as code",
    "eval": "runs text as code",
    "compile": "runs text as code",
    "__import__": "imports what cannot be checked",
    "__builtins__": "reaches what cannot be checked",
    "__loader__": "reaches what cannot be checked",
    "input": "waits for a person",
    "breakpoint": "waits for a person",
    "print": "writes to the terminal",
}
FORBIDDEN_NUMPY = frozenset(
    [
        "load",
        "save",
        "savez",
        "savez_compressed",
        "loadtxt",
        "savetxt",
        "genfromtxt",
        "fromfile",
        "tofile",
        "memmap",
        "DataSource",
        "fromregex",
    ]
)
FORBIDDEN_ATTRIBUTES = frozenset({"__subclasses__", "__globals__", "__builtins__", "__code__", "__loader__"})
CLOCK_READS = frozenset({"now", "utcnow", "today"})
CLOCK_OWNERS = frozenset({"datetime", "date", "dt"})


class Breach(NamedTuple):
    """One thing a strategy file may not do, with the line and the way out."""

    line: int
    what: str
    fix: str


def find_breaches(tree: ast.Module) -> list[Breach]:
    """Return every breach of the rules in a file, by line."""
    found: list[Breach] = []
    for node in ast.walk(tree):
        found += _breaches_of(node)
    return sorted(found)


def _breaches_of(node: ast.AST) -> Iterator[Breach]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _import_breach(node.lineno, alias.name)
    elif isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        if module in {"shared", "strategies", "numpy"}:
            for alias in node.names:
                yield from _import_breach(node.lineno, f"{module}.{alias.name}")
        else:
            yield from _import_breach(node.lineno, module)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in FORBIDDEN_NAMES:
        if node.id != "open":  # a step's argument is named open: there only the call reaches outside
            yield Breach(node.lineno, f"uses {node.id}, which {FORBIDDEN_NAMES[node.id]}", "decide from candles alone")
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
        yield Breach(node.lineno, "calls open, which reads or writes files", "decide from candles alone")
    elif isinstance(node, ast.Attribute):
        yield from _attribute_breach(node)


def _import_breach(line: int, module: str) -> Iterator[Breach]:
    package, _, rest = module.partition(".")
    if module.startswith("."):
        yield Breach(line, f"imports {module}, a relative name", "write: from strategies.base import BaseStrategy")
    elif package == "base":
        yield Breach(line, "imports base, which is no package", "write: from strategies.base import BaseStrategy")
    elif package == "numpy" and set(rest.split(".")) & (FORBIDDEN_NUMPY | {"ctypeslib", "distutils", "f2py", "random"}):
        yield Breach(line, f"imports {module}, which reaches outside or is chance", "decide from candles alone")
    elif package not in NUMBER_PACKAGES | STANDARD_MODULES and not _in_contract(module):
        allowed = (
            f"{', '.join(CONTRACT_MODULES)}, {', '.join(sorted(NUMBER_PACKAGES))} and the standard library's maths"
        )
        yield Breach(line, f"imports {module}", f"a strategy may import {allowed}")


def _in_contract(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in CONTRACT_MODULES)


def _attribute_breach(node: ast.Attribute) -> Iterator[Breach]:
    owner = node.value
    if isinstance(owner, ast.Name) and owner.id in {"np", "numpy"} and node.attr in FORBIDDEN_NUMPY:
        yield Breach(node.lineno, f"uses numpy's {node.attr}, which reads or writes files", "decide from candles alone")
    elif isinstance(owner, ast.Name) and owner.id in {"np", "numpy"} and node.attr == "random":
        yield Breach(node.lineno, "uses chance (numpy's random)", "the same candles must give the same signals")
    elif node.attr in FORBIDDEN_ATTRIBUTES:
        yield Breach(
            node.lineno, f"uses {node.attr}, which reaches what cannot be checked", "decide from candles alone"
        )
    elif node.attr in CLOCK_READS:
        name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
        if name in CLOCK_OWNERS:
            what = f"reads the machine's clock ({name}.{node.attr})"
            yield Breach(node.lineno, what, "use candle.close_time: the same candles must give the same signals")

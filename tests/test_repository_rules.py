"""Rules of the house that no linter knows: sizes, names, tests that run, what a tracked file may say."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES_MAX, FUNCTION_LINES_MAX = 500, 60
FILE_LINES_GOOD, FUNCTION_LINES_GOOD = 300, 40
# a ratchet: how many are longer than is good; these numbers may fall and never rise
LONG_FILES_MAX, LONG_FUNCTIONS_MAX = 22, 9
NAMELESS = {"utils", "util", "helpers", "helper", "misc", "common", "stuff"}
GENERATED = "/alembic/versions/"


@cache
def tracked_files() -> list[Path]:
    """Return every file that is, or would be, committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def sources() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".py"]


def files_of_tests() -> list[Path]:
    return [path for path in sources() if path.name.startswith("test_") and "tests" in path.parts]


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every statement, however deep; what stands within an expression is no function of ours."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for block in ("body", "orelse", "handlers", "finalbody", "cases"):
            waiting += getattr(node, block, ())


@cache
def functions_of(path: Path) -> list[tuple[str, int]]:
    """Return each function's place and its lines, without its docstring and decorators."""
    found = []
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            docstring = (first.end_lineno or 0) - first.lineno + 1 if is_docstring else 0
            found.append(
                (f"{relative(path)}:{node.lineno} {node.name}", (node.end_lineno or 0) - node.lineno + 1 - docstring)
            )
    return found


def longer_than(limit: int, sizes: list[tuple[str, int]]) -> list[str]:
    return [f"{where}: {lines} lines" for where, lines in sorted(sizes, key=lambda row: -row[1]) if lines > limit]


def file_sizes() -> list[tuple[str, int]]:
    return [(relative(path), len(path.read_text().splitlines())) for path in sources() if GENERATED not in str(path)]


def function_sizes() -> list[tuple[str, int]]:
    return [row for path in sources() if GENERATED not in str(path) for row in functions_of(path)]


def test_no_file_passes_the_wall() -> None:
    assert longer_than(FILE_LINES_MAX, file_sizes()) == []


def test_no_function_passes_the_wall() -> None:
    assert longer_than(FUNCTION_LINES_MAX, function_sizes()) == []


def test_long_files_never_become_more() -> None:
    found = longer_than(FILE_LINES_GOOD, file_sizes())
    assert len(found) <= LONG_FILES_MAX, f"split one of these, or shorten it:\n{chr(10).join(found)}"


def test_long_functions_never_become_more() -> None:
    found = longer_than(FUNCTION_LINES_GOOD, function_sizes())
    assert len(found) <= LONG_FUNCTIONS_MAX, f"split one of these, or shorten it:\n{chr(10).join(found)}"


def test_the_ratchet_is_as_tight_as_it_can_be() -> None:
    slack = (LONG_FILES_MAX - len(longer_than(FILE_LINES_GOOD, file_sizes())),
             LONG_FUNCTIONS_MAX - len(longer_than(FUNCTION_LINES_GOOD, function_sizes())))  # fmt: skip
    assert max(slack) <= 5, f"well done: lower the two numbers of the ratchet by {slack}"


def test_every_file_and_folder_has_a_name_that_says_something() -> None:
    nameless = [
        relative(path)
        for path in tracked_files()
        if NAMELESS & {Path(part).stem for part in path.relative_to(ROOT).parts}
    ]
    assert nameless == []


def test_no_tests_folder_is_a_package() -> None:
    # two packages `tests` hide each other's files, and everything stays green
    packages = [relative(path) for path in sources() if path.name == "__init__.py" and path.parent.name == "tests"]
    assert packages == []
    nested = [
        relative(path) for path in sources() if path.name == "__init__.py" and "tests" in path.relative_to(ROOT).parts
    ]
    assert nested == []


def test_every_test_file_has_a_name_of_its_own() -> None:
    counted = Counter(path.name for path in files_of_tests())
    assert [name for name, count in counted.items() if count > 1] == []


def written_tests() -> set[tuple[str, str]]:
    """Return the file and name of each `def test_` that stands in a test file."""
    functions = [
        (relative(path), node.name)
        for path in files_of_tests()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    found = [(path, name) for path, name in functions if name.startswith("test_")]
    twice = [row for row, count in Counter(found).items() if count > 1]
    assert not twice, f"the second hides the first: {twice}"
    return set(found)


def collected_tests() -> set[tuple[str, str]]:
    """Return the file and name of each test function that pytest would run from the root."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "--assert=plain",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-2000:]
    ids = [line for line in ended.stdout.splitlines() if "::" in line]
    names = {(line.split("::")[0], re.sub(r"\[.*", "", line.split("::", 1)[1]).split("::")[-1]) for line in ids}
    return {(file, name) for file, name in names if name.startswith("test_")}


@pytest.mark.thorough
def test_every_test_that_is_written_is_collected() -> None:
    written, collected = written_tests(), collected_tests()
    assert sorted(written - collected) == [], "written, and never run"
    assert sorted(collected - written) == [], "run, and written nowhere"


def text_of(path: Path) -> str | None:
    """Return a tracked file's text, or None where it is no text."""
    data = path.read_bytes()
    return None if b"\0" in data[:4096] else data.decode("utf-8", errors="replace")


MACHINE_PATH = re.compile(r"(?<![\w./~$}-])/(?:root|home/\w+|Users/\w+|work)/\w")
INDEX_ADDRESS = re.compile(r"pypi\.org|pythonhosted|--(?:extra-)?index-url|--find-links|/simple\b")


@pytest.mark.parametrize("pattern", [MACHINE_PATH, INDEX_ADDRESS], ids=["machine path", "package index"])
def test_no_tracked_file_names_a_machine_or_a_package_index(pattern: re.Pattern[str]) -> None:
    found = []
    for path in tracked_files():
        if path == Path(__file__):  # it holds the patterns
            continue
        for number, line in enumerate((text_of(path) or "").splitlines(), 1):
            if match := pattern.search(line):
                found.append(f"{relative(path)}:{number}: {match.group()}")
    assert found == []


def test_the_patterns_see_what_they_are_for() -> None:
    assert MACHINE_PATH.search("open('/home/someone/file')")
    assert INDEX_ADDRESS.search("--index-url https://example.org/simple")
    assert not MACHINE_PATH.search("a/home/page/of")


def test_every_locked_package_is_pinned_with_hashes() -> None:
    text = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"\n(?=\S)", text.replace("\\\n", " ").strip())
    wrong = [
        entry[:60]
        for entry in entries
        if not re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+.* --hash=sha256:[0-9a-f]{64}", entry, re.S)
    ]
    assert len(entries) > 50
    assert wrong == []


def test_the_lock_holds_what_every_member_asks_for() -> None:
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.M))
    asked = set()
    for path in (path for path in tracked_files() if path.name == "pyproject.toml"):
        names = re.findall(
            r'"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?(?:[<>=!~;][^"]*)?"[,\]\n]', dependencies_block(path.read_text())
        )
        asked |= {name.lower() for name in names if not name.startswith("trading-")}
    assert asked - locked == set()


def dependencies_block(text: str) -> str:
    """Return the text of a pyproject's lists of dependencies."""
    return "".join(re.findall(r"^(?:dependencies|dev) = \[.*?\]$", text, re.M | re.S))


@pytest.mark.thorough  # `make lint` asks the same
def test_every_member_declares_what_it_imports() -> None:
    ended = subprocess.run([sys.executable, "tools/declared.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def test_every_make_target_says_what_it_does() -> None:
    targets = re.findall(r"^([a-z][a-z0-9-]*):(.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert [name for name, rest in targets if "## " not in rest] == []
    shown = subprocess.run(["make", "--silent"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [name for name, _ in targets if f"  {name} " not in shown] == []

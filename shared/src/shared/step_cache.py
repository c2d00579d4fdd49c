"""Generated modules on disk: each in a file named by its own hash, numba's machine code beside it.

An edited step is another file, so old ones stay behind. A note beside each module says what it is for and, by its time
stamp, when a process last took it; whoever adds a module removes the longest unused ones above the bounds below. Any
file may vanish at any moment, then: what is missing is written or compiled anew.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from shared.errors import PluginError

CACHE_VARIABLE = "TRADING_CACHE"
MODULE_PREFIX = "trading_step_"
NOTE_SUFFIX = ".use"
VERSIONS_MAX = 8  # modules of one purpose, that is of one strategy's step and the loops over it
MODULES_MAX = 400  # modules of all purposes
VARIANTS_MAX = 64  # machine codes of one module: a window of another length is another record
ATTEMPTS_MAX = 3


def module_name(text: str) -> str:
    """Return the name of the module that `text` is: its own hash."""
    return f"{MODULE_PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def load_generated(text: str, purpose: str = "") -> ModuleType:
    """Import generated `text` from its file in the cache, writing it first when it is new.

    Of the modules of one `purpose` the newest `VERSIONS_MAX` are kept.
    """
    name = module_name(text)
    if name in sys.modules:
        return sys.modules[name]
    for _ in range(ATTEMPTS_MAX):
        path = _stored(f"{name}.py", text, purpose)
        try:
            return _imported(name, path)
        except FileNotFoundError:  # another process took the file for an old one, between two of our lines
            continue
    raise PluginError(
        f"{cache_directory()}: compiled steps vanish as soon as written; set {CACHE_VARIABLE} to a folder"
    )


def _imported(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # numba looks its functions up by module name
    try:
        try:
            spec.loader.exec_module(module)
        except (EOFError, ValueError, TypeError):  # Python's own byte code of it was cut short: made anew
            Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def forget_compiled(path: Path, *, imported: bool) -> None:
    """Throw the machine code of a generated module away, or that of the modules it imports."""
    text = path.read_text(encoding="utf-8")
    names = set(re.findall(rf"^from ({MODULE_PREFIX}\w+) import", text, re.MULTILINE)) if imported else {path.stem}
    for name in names:
        for stored in (path.parent / "__pycache__").glob(f"{name}.*"):
            stored.unlink(missing_ok=True)


def cache_directory() -> Path:
    """Return where compiled steps are kept: TRADING_CACHE, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen) / "steps"
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "trading-platform" / "steps"


def _stored(file_name: str, text: str, purpose: str) -> Path:
    for directory in (cache_directory, _private_directory):
        try:
            path = directory() / file_name
            is_new = not path.is_file()
            _note_use(path, purpose)  # before: whoever looks for old ones from here on leaves this one alone
            _write_once(path, text)
            _note_use(path, purpose)  # after: until there was a module, its note was in the way
            _drop_variants(path)
            if is_new:
                remove_unused(path.parent)
            return path
        except (OSError, RuntimeError):  # read-only, full, or no home: compile for this process alone
            continue
    raise PluginError(f"{cache_directory()}: compiled steps cannot be written; set {CACHE_VARIABLE} to a folder")


@functools.cache
def _private_directory() -> Path:
    holder = tempfile.TemporaryDirectory(prefix="trading-steps-")
    _private_holders().append(holder)
    return Path(holder.name)


@functools.cache
def _private_holders() -> list[tempfile.TemporaryDirectory[str]]:
    return []  # keeps the folder alive until the process ends


def remove_unused(directory: Path) -> None:
    """Remove the longest unused modules above the bounds, with their machine code, and code without a module."""
    kept: Counter[str] = Counter()
    for number, (_, purpose, path) in enumerate(sorted(_uses(directory), reverse=True)):
        kept[purpose] += 1
        if number >= MODULES_MAX or (purpose and kept[purpose] > VERSIONS_MAX):
            path.unlink(missing_ok=True)
            path.with_suffix(NOTE_SUFFIX).unlink(missing_ok=True)
    code = (directory / "__pycache__").glob(f"{MODULE_PREFIX}*")
    for stored in (*code, *directory.glob(f"{MODULE_PREFIX}*{NOTE_SUFFIX}")):
        if not (directory / f"{stored.name.partition('.')[0]}.py").exists():
            stored.unlink(missing_ok=True)


def _uses(directory: Path) -> Iterator[tuple[int, str, Path]]:
    """Give when each module was last taken (ns since 1970), what for, and its file."""
    for path in directory.glob(f"{MODULE_PREFIX}*.py"):
        note = path.with_suffix(NOTE_SUFFIX)
        for stamp in (note, path):  # a module of an older build has no note
            with suppress(FileNotFoundError):
                yield stamp.stat().st_mtime_ns, note.read_text(encoding="utf-8") if stamp == note else "", path
                break


def _note_use(path: Path, purpose: str) -> None:
    (path.parent / "__pycache__").mkdir(parents=True, exist_ok=True, mode=0o700)
    path.with_suffix(NOTE_SUFFIX).write_text(purpose, encoding="utf-8")


def _drop_variants(path: Path) -> None:
    codes = list((path.parent / "__pycache__").glob(f"{path.stem}.*.nbc"))
    if len(codes) > VARIANTS_MAX:
        with suppress(FileNotFoundError):  # another process does the same
            for oldest in sorted(codes, key=lambda code: code.stat().st_mtime_ns)[:-VARIANTS_MAX]:
                oldest.unlink()


def _write_once(path: Path, text: str) -> None:
    """Create the file whole or not at all; an equal one is left alone, so its time stamp keeps the cache valid."""
    directory = path.parent
    if not (os.access(directory, os.W_OK) and os.access(directory / "__pycache__", os.W_OK)):
        raise PermissionError(f"{directory} is not writable")
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=".new-", suffix=".py")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        try:
            os.link(temporary, path)  # another process may have been first: then its file stands
        except OSError:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)

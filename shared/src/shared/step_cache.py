"""Generated modules on disk: each in a file named by its own hash, numba's machine code beside it."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from shared.errors import PluginError

CACHE_VARIABLE = "TRADING_CACHE"
MODULE_PREFIX = "trading_step_"


def module_name(text: str) -> str:
    """Return the name of the module that `text` is: its own hash."""
    return f"{MODULE_PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def load_generated(text: str) -> ModuleType:
    """Import generated `text` from its file in the cache, writing it first when it is new."""
    name = module_name(text)
    if name in sys.modules:
        return sys.modules[name]
    path = _stored(f"{name}.py", text)
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


def _stored(file_name: str, text: str) -> Path:
    for directory in (cache_directory, _private_directory):
        try:
            return _write_once(directory(), file_name, text)
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


def _write_once(directory: Path, file_name: str, text: str) -> Path:
    """Create the file whole or not at all; an equal one is left alone, so its time stamp keeps the cache valid."""
    compiled_files = directory / "__pycache__"
    compiled_files.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (os.access(directory, os.W_OK) and os.access(compiled_files, os.W_OK)):
        raise PermissionError(f"{directory} is not writable")
    path = directory / file_name
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return path
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
    return path

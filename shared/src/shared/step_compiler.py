"""Turns a strategy's `step` into machine code that is kept between processes and never served stale.

A generated module holds everything a step needs: the indicator functions it calls, the constants it names, the step
itself and the loops that drive it. Its file is named by the hash of its whole text (which names the versions of numba
and of this generator), so an edited step or indicator is another file with another cache: there is nothing to go
stale. Loops over many candles are added to `STEP_LOOPS`, in the same module, for the same reason.

numba is imported by the generated module only, that is when the first step is compiled.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import linecache
import math
import os
import pickle
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from enum import EnumType, IntEnum
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from shared.errors import PluginError

GENERATOR_VERSION = 1
CACHE_VARIABLE = "TRADING_CACHE"

STEP_LOOPS = '''
@njit(nogil=True, error_model="numpy")
def advance(state, params, open_time, open, high, low, close, volume):
    """Count one candle and step; one with a number that is not finite changes nothing."""
    if not (
        math.isfinite(open)
        and math.isfinite(high)
        and math.isfinite(low)
        and math.isfinite(close)
        and math.isfinite(volume)
    ):
        return 0
    state.candle_count += 1
    return int(step(state, params, open_time, open, high, low, close, volume))


@njit(cache=True, nogil=True, error_model="numpy")
def advance_at(states, index, params, open_time, open, high, low, close, volume):
    """Advance one of many instances: passing an array and an index is cheaper than passing a record."""
    return advance(states[index], params[index], open_time, open, high, low, close, volume)
'''


@functools.cache
def step_source(step: Callable[..., int]) -> str:
    """Return the text of the generated module for `step`: equal text means equal behaviour."""
    renamed = [] if step.__name__ == "step" else [f"step = {step.__name__}"]
    return "\n".join([_head(), *_definitions([step]), *renamed, STEP_LOOPS])


def load_step(step: Callable[..., int]) -> ModuleType:
    """Return the generated module of `step`, compiled at its first call or loaded from the cache."""
    return load_generated(step_source(step))


def prepare(call: Callable[..., Any], *arguments: Any) -> None:
    """Call once, so that machine code is made or loaded; a damaged cache of it is thrown away and made anew."""
    from numba.core.errors import NumbaError  # the module of `call` has imported numba already

    try:
        call(*arguments)
    except NumbaError as error:
        told = str(error).strip().splitlines()
        raise PluginError(
            f"the step has no compiled form: {told[-1] if told else error!r}; correct the step"
        ) from error
    except (EOFError, pickle.UnpicklingError, ValueError, ImportError, LookupError, AttributeError):
        path = Path(call.__code__.co_filename)
        for stored in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            stored.unlink(missing_ok=True)
        call(*arguments)


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the machine-code form of one plain function of numbers and arrays (array twins of the indicators)."""
    cached = (
        f'{function.__name__}_compiled = njit(cache=True, nogil=True, error_model="numpy")({function.__name__}_loop)'
    )
    definitions = _definitions([function])
    definitions[-1] = _renamed(definitions[-1], function.__name__)
    module = load_generated("\n".join([_head(), *definitions, cached]))
    result: Callable[..., Any] = getattr(module, f"{function.__name__}_compiled")
    return result


def _renamed(definition: str, name: str) -> str:
    plain = definition.split("\n", 1)[1]  # without its decorator: the caller adds one that caches
    return plain.replace(f"def {name}(", f"def {name}_loop(", 1)


def _head() -> str:
    version = importlib.metadata.version("numba")
    return (
        f'"""Generated: numba {version}, generator {GENERATOR_VERSION}. Never edited: named by its own hash."""\n'
        "import math\n\nimport numpy as np\nfrom numba import njit\n"
    )


# --- collecting what a function needs -------------------------------------------------------------------------


def _definitions(roots: list[Callable[..., Any]]) -> list[str]:
    """Return the source of `roots` and of all they use, dependencies first."""
    emitted: dict[str, str] = {}
    owners: dict[str, object] = {}
    for root in roots:
        _collect(_plain(root), emitted, owners)
    return list(emitted.values())


def _plain(function: Any) -> FunctionType:
    unwrapped = getattr(function, "py_func", function)  # a helper that a plug-in has already given to numba
    if not isinstance(unwrapped, FunctionType):
        raise PluginError(f"{function!r}: a step must be a plain function; write it with def at module level")
    return unwrapped


def _collect(function: FunctionType, emitted: dict[str, str], owners: dict[str, object]) -> None:
    name = function.__name__
    if name in owners:
        if owners[name] is not function:
            raise PluginError(f"{_place(function)}: another function of the step is named {name!r} too; rename one")
        return
    owners[name] = function
    definition = _parse(function)
    for used in _global_names(definition, function):
        if used in function.__globals__:
            _collect_value(used, function.__globals__[used], function, emitted, owners)
        elif not hasattr(builtins, used):
            raise PluginError(f"{_place(function)}: the step uses {used!r}, which is defined nowhere")
    emitted[name] = f'@njit(nogil=True, error_model="numpy")\n{ast.unparse(definition)}'


def _collect_value(
    name: str, value: object, user: FunctionType, emitted: dict[str, str], owners: dict[str, object]
) -> None:
    """Emit one global that a step reads: a function, a number, an IntEnum, math or numpy."""
    if isinstance(value, FunctionType) or hasattr(value, "py_func"):
        function = _plain(value)
        _collect(function, emitted, owners)
        if function.__name__ != name:
            emitted[name] = f"{name} = {function.__name__}"
        return
    text = _constant_text(name, value)
    if text is None:
        raise PluginError(
            f"{_place(user)}: the step uses {name!r} ({type(value).__name__}), which has no compiled form; "
            "pass it as a parameter, or use numbers, math, numpy and plain functions only"
        )
    if emitted.get(name, text) != text:
        raise PluginError(f"{_place(user)}: {name!r} has two meanings within the step; rename one")
    emitted[name] = text


def _constant_text(name: str, value: object) -> str | None:
    if isinstance(value, bool | int | float):
        finite = isinstance(value, int) or math.isfinite(value)
        number = repr(int(value) if isinstance(value, IntEnum) else value)
        return f"{name} = {number if finite else f'float({number!r})'}"
    if isinstance(value, ModuleType) and value.__name__ in {"math", "numpy"}:
        return f"import {value.__name__} as {name}"
    if getattr(value, "__module__", None) == "math":
        return f"from math import {getattr(value, '__name__', name)} as {name}"
    return None


def _place(function: FunctionType) -> str:
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno} {function.__name__}"


def _parse(function: FunctionType) -> ast.FunctionDef:
    """Return the function's syntax without decorators, annotations and docstring; refuse text that is not its own."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError) as error:
        raise PluginError(f"{_place(function)}: its source cannot be read; write the step in a file") from error
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise PluginError(f"{_place(function)}: a step must be written with def")
    definition.decorator_list = []
    if not _is_of_its_file(function.__code__):
        raise PluginError(f"{_place(function)}: the file changed after it was imported; start again")
    definition.returns = None
    for argument in (*definition.args.args, *definition.args.kwonlyargs, *definition.args.posonlyargs):
        argument.annotation = None
    if ast.get_docstring(definition) is not None and len(definition.body) > 1:
        definition.body = definition.body[1:]
    _EnumNumbers(function.__globals__).visit(definition)
    return definition


class _EnumNumbers(ast.NodeTransformer):
    """Writes `Action.BUY` as its number."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        owner = self._names.get(node.value.id) if isinstance(node.value, ast.Name) else None
        if isinstance(owner, EnumType) and issubclass(owner, IntEnum) and node.attr in owner.__members__:
            return ast.copy_location(ast.Constant(int(owner[node.attr])), node)
        return self.generic_visit(node)


def _is_of_its_file(code: CodeType) -> bool:
    """Say whether the file's text, as it would be read now, compiles to `code`."""
    text = "".join(linecache.getlines(code.co_filename))
    whole = compile(text, code.co_filename, "exec", dont_inherit=True)
    return any(
        (found.co_firstlineno, found.co_code, found.co_consts, found.co_names)
        == (code.co_firstlineno, code.co_code, code.co_consts, code.co_names)
        for found in _nested_codes(whole)
    )


def _nested_codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _nested_codes(constant)


def _global_names(definition: ast.FunctionDef, function: FunctionType) -> list[str]:
    local = {*function.__code__.co_varnames, *function.__code__.co_cellvars}
    if function.__code__.co_freevars:
        raise PluginError(
            f"{_place(function)}: the step closes over {', '.join(function.__code__.co_freevars)}; "
            "make it a parameter or a module constant"
        )
    loaded = (node.id for node in ast.walk(definition) if isinstance(node, ast.Name))
    return [name for name in dict.fromkeys(loaded) if name not in local]


# --- the cache on disk ----------------------------------------------------------------------------------------


def load_generated(text: str) -> ModuleType:
    """Import generated `text` from its file in the cache, writing it first when it is new."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    name = f"trading_step_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    path = _stored(f"{name}.py", text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # numba looks its functions up by module name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


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

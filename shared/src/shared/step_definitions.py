"""Collects the source of plain functions, and of all they use, as text that numba can compile in one module."""

# ruff: noqa: ARG001 - a step takes every number of its candle

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import linecache
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import EnumType, IntEnum
from types import CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any

from shared.errors import PluginError
from shared.step_intrinsics import intrinsic_text

PLAIN_DECORATOR = '@njit(nogil=True, error_model="numpy")'
INLINED_DECORATOR = '@njit(nogil=True, error_model="numpy", forceinline=True)'
CACHED_DECORATOR = '@njit(cache=True, nogil=True, error_model="numpy")'
STEP_NAME = "step"
ANSWER_NAME = "step_answer"  # the step, its answer made a whole number
FILES_KEPT_MAX = 64


def strategy_step(
    state: Any, params: Any, open_time: int, open: float, high: float, low: float, close: float, volume: float
) -> int:
    """Stand for the strategy's own step in a loop: the generated module puts the step in its place."""
    raise AssertionError("a loop runs in its generated module only")


def definitions(roots: Iterable[Callable[..., Any]]) -> list[str]:
    """Return the source of `roots` and of all they use, dependencies first; `roots` become part of what calls them."""
    plain = [_plain(root) for root in roots]
    collector = _Collector(inlined=frozenset(root.__name__ for root in plain))
    for root in plain:
        collector.add(root)
    return list(collector.emitted.values())


def loop_definitions(
    loops: Iterable[Callable[..., Any]], prefix: str, imported: Mapping[Callable[..., Any], str] = MappingProxyType({})
) -> list[str]:
    """Return the same for loops over a step; every name begins with `prefix`, so that no strategy's name is taken.

    A loop calls `strategy_step`; it is cached by itself, what it uses becomes part of it, but for functions that are
    `imported` from the generated module that the mapping names.
    """
    roots = [_plain(loop) for loop in loops]
    collector = _Collector(prefix, frozenset(root.__name__ for root in roots), imported)
    for root in roots:
        collector.add(root)
    return list(collector.emitted.values())


class _Collector:
    """Definitions by name in the order in which they can be executed."""

    def __init__(
        self,
        prefix: str = "",
        cached: frozenset[str] = frozenset(),
        imported: Mapping[Callable[..., Any], str] = MappingProxyType({}),
        inlined: frozenset[str] = frozenset(),
    ) -> None:
        self.emitted: dict[str, str] = {}
        self._owners: dict[str, object] = {}
        self._prefix = prefix
        self._cached = cached
        self._imported = imported
        self._inlined = inlined

    def add(self, function: FunctionType) -> None:
        name = function.__name__
        if name in self._owners:
            if self._owners[name] is not function:
                raise PluginError(f"{_place(function)}: another function of the step is named {name!r} too; rename one")
            return
        self._owners[name] = function
        definition = _parse(function)
        names = _global_names(definition, function)
        renamed = {}
        for used in names:
            if used in function.__globals__:
                renamed[used] = self._add_value(used, function.__globals__[used], function)
            elif not hasattr(builtins, used):
                raise PluginError(f"{_place(function)}: the step uses {used!r}, which is defined nowhere")
        if self._prefix:
            definition.name = self._prefix + name
            _Renamed(renamed).visit(definition)
        decorator = PLAIN_DECORATOR
        if name in self._cached or name in self._inlined:
            decorator = CACHED_DECORATOR if name in self._cached else INLINED_DECORATOR
        self.emitted[name] = f"{decorator}\n{ast.unparse(definition)}"

    def _add_value(self, name: str, value: object, user: FunctionType) -> str:
        """Emit one global that a function reads (a function, a number, an IntEnum, math or numpy); return its name."""
        if value is strategy_step:
            return ANSWER_NAME
        called = self._prefix + name
        instructions = intrinsic_text(value, called)
        if instructions is not None:
            self.emitted[name] = instructions
            return called
        if isinstance(value, FunctionType) or hasattr(value, "py_func"):
            function = _plain(value)
            if function in self._imported:
                self.emitted[name] = (
                    f"from {self._imported[function]} import {self._prefix}{function.__name__} as {called}"
                )
                return called
            self.add(function)
            if function.__name__ != name:
                self.emitted[name] = f"{called} = {self._prefix}{function.__name__}"
            return called
        text = _constant_text(called, value)
        if text is None:
            raise PluginError(
                f"{_place(user)}: the step uses {name!r} ({type(value).__name__}), which has no compiled form; "
                "pass it as a parameter, or use numbers, math, numpy and plain functions only"
            )
        if self.emitted.get(name, text) != text:
            raise PluginError(f"{_place(user)}: {name!r} has two meanings within the step; rename one")
        self.emitted[name] = text
        return called


class _Renamed(ast.NodeTransformer):
    """Writes globals by their names in the generated module."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._names.get(node.id, node.id)
        return node


def _plain(function: Any) -> FunctionType:
    unwrapped = getattr(function, "py_func", function)  # a helper that a plug-in has already given to numba
    if not isinstance(unwrapped, FunctionType):
        raise PluginError(f"{function!r}: a step must be a plain function; write it with def at module level")
    return unwrapped


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
    return _code_key(code) in _codes_of(code.co_filename, text)


@functools.lru_cache(maxsize=FILES_KEPT_MAX)
def _codes_of(file_name: str, text: str) -> frozenset[object]:
    whole = compile(text, file_name, "exec", dont_inherit=True)
    return frozenset(_code_key(found) for found in _nested_codes(whole))


def _code_key(code: CodeType) -> tuple[object, ...]:
    constants = tuple((type(value), repr(value)) for value in code.co_consts if not isinstance(value, CodeType))
    inner = tuple(_code_key(value) for value in code.co_consts if isinstance(value, CodeType))
    return (code.co_firstlineno, code.co_code, constants, inner, code.co_names)


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

"""Turns a strategy's `step` into machine code that is kept between processes and never served stale.

A generated module holds everything a step needs: the indicator functions it calls, the constants it names, the step
itself and the loops that drive it. Its file is named by the hash of its whole text (which names the versions of numba
and of this generator), so an edited step or indicator is another file with another cache: there is nothing to go
stale. The live call is in every such module (`STEP_LOOPS`); `load_loops` makes one that holds other loops too, which
call `strategy_step` where the strategy's own step is meant.

numba is imported by the generated module only, that is when the first step is compiled.
"""

from __future__ import annotations

import functools
import importlib.metadata
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from shared.errors import PluginError, TradingError
from shared.step_cache import cache_directory, forget_compiled, load_generated, module_name
from shared.step_definitions import (
    ANSWER_NAME,
    INLINED_DECORATOR,
    STEP_NAME,
    definitions,
    loop_definitions,
    strategy_step,
)
from shared.step_intrinsics import fetch_ahead, multiply_add, own_record, put_back, record_at, seldom

__all__ = [
    "base_source",
    "cache_directory",
    "compiled",
    "faults_told",
    "fetch_ahead",
    "load_base",
    "load_loops",
    "load_step",
    "loops_source",
    "multiply_add",
    "own_record",
    "prepare",
    "put_back",
    "record_at",
    "seldom",
    "step_source",
    "strategy_step",
]

GENERATOR_VERSION = 3
LOOP_PREFIX = "loop_"

STEP_LOOPS = f'''
{INLINED_DECORATOR}
def {ANSWER_NAME}(state, params, open_time, open, high, low, close, volume):
    """Step; what is no number, such as the nothing of a step that forgot to return, does not compile."""
    return int(step(state, params, open_time, open, high, low, close, volume))


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
    return {ANSWER_NAME}(state, params, open_time, open, high, low, close, volume)


@njit(cache=True, nogil=True, error_model="numpy")
def advance_at(states, index, params, open_time, open, high, low, close, volume):
    """Advance one of many instances: passing an array and an index is cheaper than passing a record."""
    return advance(states[index], params[index], open_time, open, high, low, close, volume)
'''


@functools.cache
def step_source(step: Callable[..., int]) -> str:
    """Return the text of the generated module for `step`: equal text means equal behaviour."""
    renamed = [] if step.__name__ == STEP_NAME else [f"{STEP_NAME} = {step.__name__}"]
    return "\n".join([_head(), *definitions([step]), *renamed, STEP_LOOPS])


def load_step(step: Callable[..., int]) -> ModuleType:
    """Return the generated module of `step`, compiled at its first call or loaded from the cache."""
    return load_generated(step_source(step), _place(step))


type Functions = tuple[Callable[..., Any], ...]


@functools.cache
def loops_source(step: Callable[..., int], loops: Functions, base: Functions = ()) -> str:
    """Return the text of the module that holds `step` and loops over it: equal text means equal behaviour."""
    return "\n".join([step_source(step), *_loop_texts(loops, base)])


@functools.cache
def base_source(base: Functions) -> str:
    """Return the text of the module of functions that no step is part of."""
    return "\n".join([_head(), *loop_definitions(base, LOOP_PREFIX)])


@functools.cache
def _loop_texts(loops: Functions, base: Functions) -> tuple[str, ...]:
    imported = dict.fromkeys(base, module_name(base_source(base))) if base else {}
    return tuple(loop_definitions(loops, LOOP_PREFIX, imported))


def load_loops(step: Callable[..., int], loops: Functions, base: Functions = ()) -> SimpleNamespace:
    """Return the machine-code forms of `loops` over `step`, each under its own name.

    Parameters
    ----------
    step : callable
        A compiled strategy's step.
    loops : tuple of callable
        Plain functions of numbers, arrays and records that call `strategy_step(state, params, open_time, open, high,
        low, close, volume)` once a candle, after adding 1 to `state.candle_count`. What they call is found by itself.
    base : tuple of callable, optional
        What of it is to be compiled once for all strategies, in a module of its own. The text of the loops' module
        names that one by its hash, so an edited function is never served stale here either.

    Returns
    -------
    SimpleNamespace
        One compiled function a loop, in one module with the step: compiled at the first call with certain types, or
        loaded from the cache of an earlier process. Call them first through `prepare`.

    Raises
    ------
    PluginError
        If the step or a loop uses what has no compiled form.
    """
    if base:
        load_base(base)
    module = load_generated(loops_source(step, loops, base), f"{_place(step)} {_names(loops)}")
    return _functions_of(module, loops)


def load_base(base: Functions) -> SimpleNamespace:
    """Return the machine-code forms of functions that are compiled once for all strategies, each under its own name."""
    return _functions_of(load_generated(base_source(base), f"base {_names(base)}"), base)


def _place(step: Callable[..., int]) -> str:
    """Return what stays when a step is edited: the stem of its file, and its name."""
    return f"{Path(step.__code__.co_filename).stem}.{step.__name__}"


def _names(functions: Functions) -> str:
    return ",".join(each.__name__ for each in functions)


def _functions_of(module: ModuleType, functions: Functions) -> SimpleNamespace:
    return SimpleNamespace(**{each.__name__: getattr(module, LOOP_PREFIX + each.__name__) for each in functions})


# TypeError: code for another record, which two processes that saved at the same moment can leave under our number
DAMAGE = (EOFError, pickle.UnpicklingError, ValueError, ImportError, LookupError, AttributeError, TypeError)


def prepare(call: Callable[..., Any], *arguments: Any) -> None:
    """Call once, so that machine code is made or loaded; a damaged cache of it is thrown away and made anew.

    What it shares with other strategies takes long to make, so that goes only if its own was not the damage.
    """
    path = Path(call.__code__.co_filename)
    try:
        _call(call, arguments)
    except DAMAGE:
        forget_compiled(path, imported=False)
        try:
            _call(call, arguments)
        except DAMAGE:
            forget_compiled(path, imported=True)
            try:
                _call(call, arguments)
            except DAMAGE as error:  # no damage then: numba has no word of its own for a field that is not there
                raise PluginError(
                    f"the step has no compiled form: {type(error).__name__}: {error}; correct the step, which may use "
                    "fields of state_fields, derived_params and Params only"
                ) from error


def _call(call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    from numba.core.errors import NumbaError  # the module of `call` has imported numba already

    try:
        call(*arguments)
    except NumbaError as error:
        raise PluginError(f"the step has no compiled form: {_told(str(error))}; correct the step") from error


def _told(text: str) -> str:
    """Return what of numba's many lines a person needs: what was wrong, and with what."""
    lines = [line.strip() for line in text.splitlines()]
    for answer in ("none", "unicode_type", "Literal[str]"):
        if any(line.startswith(f">>> int({answer}") for line in lines):
            return f"it answers {answer}, where HOLD, BUY or SELL is needed on every path"
    said = [line for line in lines if line and not line.startswith(("Failed in ", "During:", "There ", "- Of which"))]
    shown = said[:1] + [line for line in said[1:] if line.startswith(">>>")][:1]
    return " ".join(shown) or text.strip()


@contextmanager
def faults_told(strategy: str, when: Callable[[], str]) -> Iterator[None]:
    """Turn what a step raises in machine code into a PluginError; `when` says at which candle."""
    try:
        yield
    except TradingError:
        raise
    except Exception as error:  # foreign code: anything
        fault = f"{type(error).__name__}: {error}"
        raise PluginError(f"{strategy}: its step raised {fault} ({when()}); correct the step") from error


@functools.cache
def compiled(function: Callable[..., Any], base: Functions = ()) -> Callable[..., Any]:
    """Return the machine-code form of one plain function of numbers and arrays; `base` as in `load_loops`."""
    if base:
        load_base(base)
    module = load_generated("\n".join([_head(), *_loop_texts((function,), base)]), f"alone {_names((function,))}")
    result: Callable[..., Any] = getattr(module, LOOP_PREFIX + function.__name__)
    return result


def _head() -> str:
    version = importlib.metadata.version("numba")
    return (
        f'"""Generated: numba {version}, generator {GENERATOR_VERSION}. Never edited: named by its own hash."""\n'
        "import math\n\nimport numpy as np\nfrom numba import njit\n"
    )

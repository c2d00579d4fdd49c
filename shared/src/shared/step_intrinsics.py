"""What a loop says that Python has no words for: plain functions here, instructions in its generated module."""

# ruff: noqa: ARG001 - what an instruction takes is used there

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

OWN_BYTES_MAX = 512


def record_at[T](first: T, index: int) -> T:
    """Return the record so many places after `first` in the array that holds it, which the caller keeps alive.

    In machine code a record is one pointer; an array is eight numbers and a count of its owners, which is an atomic
    write at every call it is passed to.
    """
    raise AssertionError("a loop runs in its generated module only")


def own_record[T](record: T) -> T:
    """Return a copy of a record that only the calling function can reach, so that its numbers stay in registers.

    A record with arrays in it, or one that is large, is returned itself.
    """
    raise AssertionError("a loop runs in its generated module only")


def put_back[T](own: T, record: T) -> None:
    """Write what `own_record` gave for `record` back into it."""
    raise AssertionError("a loop runs in its generated module only")


def fetch_ahead(column: Any, row: int) -> None:
    """Ask for a number of an array before it is needed; any row may be named, also one beyond the end.

    A column that is looked at now and then only is not brought by the processor itself, and each look waits for memory.
    """
    raise AssertionError("a loop runs in its generated module only")


def seldom(condition: bool) -> bool:
    """Return `condition`, which is mostly false: what follows from it is kept out of the way of the rest."""
    return condition


def multiply_add(left: float, right: float, addend: float) -> float:
    """Return left x right + addend, rounded once: one instruction."""
    return float(Fraction(left) * Fraction(right) + Fraction(addend))


def add_pair(array: Any, place: int, first: float, second: float) -> None:
    """Add to two neighbouring float64 of an array, in one instruction; `place` is not looked at: it must be within."""
    array[place] += first
    array[place + 1] += second


_HEAD = """
from numba.core import cgutils as NAME_cgutils
from numba.extending import intrinsic as NAME_intrinsic

@NAME_intrinsic
"""

_RECORD_AT = """def NAME(typing_context, first, index):
    def lower(context, builder, signature, arguments):
        return builder.gep(arguments[0], [arguments[1]])
    return first(first, index), lower
"""

_IS_OWNED = f"""    is_owned = record.size <= {OWN_BYTES_MAX} and not any(hasattr(f.type, "ndim") for f in record.fields.values())
"""

_OWN_RECORD = f"""def NAME(typing_context, record):
{_IS_OWNED}    def lower(context, builder, signature, arguments):
        if not is_owned:
            return arguments[0]
        own = NAME_cgutils.alloca_once(builder, context.get_data_type(record))
        own.align = 16
        NAME_cgutils.raw_memcpy(builder, own, arguments[0], NAME_cgutils.intp_t(record.size), 1)
        return own
    return record(record), lower
"""

_PUT_BACK = f"""def NAME(typing_context, own, record):
{_IS_OWNED}    def lower(context, builder, signature, arguments):
        if is_owned:
            NAME_cgutils.raw_memcpy(builder, arguments[1], arguments[0], NAME_cgutils.intp_t(record.size), 1)
        return context.get_dummy_value()
    from numba.core.types import none
    return none(own, record), lower
"""

_FETCH_AHEAD = """def NAME(typing_context, column, row):
    from numba.core.types import none
    from llvmlite import ir
    def lower(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        fetch = NAME_cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(fetch, [place, number(0), number(3), number(1)])
        return context.get_dummy_value()
    return none(column, row), lower
"""

_SELDOM = """def NAME(typing_context, condition):
    from numba.core.types import boolean
    from llvmlite import ir
    def lower(context, builder, signature, arguments):
        bit = ir.IntType(1)
        expect = NAME_cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(bit, [bit, bit]), "llvm.expect.i1"
        )
        return builder.call(expect, [arguments[0], bit(0)])
    return boolean(boolean), lower
"""

_MULTIPLY_ADD = """def NAME(typing_context, left, right, addend):
    from numba.core.types import float64
    def lower(context, builder, signature, arguments):
        return builder.fma(*arguments)
    return float64(float64, float64, float64), lower
"""

_ADD_PAIR = """def NAME(typing_context, array, place, first, second):
    from numba.core.types import float64, int64, none
    from llvmlite import ir
    def lower(context, builder, signature, arguments):
        numbers, place, first, second = arguments
        pair = ir.VectorType(ir.DoubleType(), 2)
        data = context.make_array(signature.args[0])(context, builder, numbers).data
        where = builder.bitcast(builder.gep(data, [place]), pair.as_pointer())
        added = builder.insert_element(ir.Constant(pair, ir.Undefined), first, ir.IntType(32)(0))
        added = builder.insert_element(added, second, ir.IntType(32)(1))
        builder.store(builder.fadd(builder.load(where, align=8), added), where, align=8)
        return context.get_dummy_value()
    return none(array, int64, float64, float64), lower
"""

_TEXTS: tuple[tuple[Callable[..., Any], str], ...] = (
    (record_at, _RECORD_AT),
    (own_record, _OWN_RECORD),
    (put_back, _PUT_BACK),
    (fetch_ahead, _FETCH_AHEAD),
    (seldom, _SELDOM),
    (multiply_add, _MULTIPLY_ADD),
    (add_pair, _ADD_PAIR),
)


def intrinsic_text(value: object, name: str) -> str | None:
    """Return the text that defines `value` under `name` in a generated module; None for all that is not listed here."""
    return next(((_HEAD + text).replace("NAME", name) for function, text in _TEXTS if function is value), None)

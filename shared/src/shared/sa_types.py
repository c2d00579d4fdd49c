"""The two column types that must not lose anything: exact money and UTC time, the same on both databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import msgspec
from sqlalchemy import TIMESTAMP, Numeric, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import operators
from sqlalchemy.types import TypeDecorator, TypeEngine

MONEY_DIGITS_MAX = 38
MONEY_DECIMALS_MAX = 18
WHOLE_SECOND_LENGTH = 22
_encode = msgspec.json.Encoder().encode
_QUANTUM = Decimal(1).scaleb(-MONEY_DECIMALS_MAX)
_ONE = Decimal(1)
_WHOLE_MAX = Decimal(10) ** (MONEY_DIGITS_MAX - MONEY_DECIMALS_MAX)
_CONTEXT = Context(prec=MONEY_DIGITS_MAX + MONEY_DECIMALS_MAX, rounding=ROUND_HALF_EVEN)
_NULL_TESTS = frozenset({operators.is_, operators.is_not})


def money_to_numeric(value: Decimal) -> Decimal:
    """Return `value` with at most 18 decimals (half-even); NaN, infinity and more than 20 whole digits are refused."""
    if not value.is_finite():
        raise ValueError(f"money: {value} is not a number; only finite values are stored")
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -MONEY_DECIMALS_MAX and value.adjusted() < MONEY_DIGITS_MAX:
        value = value.quantize(_QUANTUM, context=_CONTEXT)
    if value.copy_abs() >= _WHOLE_MAX:  # abs() would round to the precision of the thread's context
        raise ValueError(
            f"money: {value} has more than {MONEY_DIGITS_MAX - MONEY_DECIMALS_MAX} digits before the point"
        )
    return value


def money_from_numeric(value: Decimal) -> Decimal:
    """Return `value` without the zeros that NUMERIC appends to eighteen decimals."""
    short = value.normalize(_CONTEXT)
    return short.quantize(_ONE, context=_CONTEXT) if short == short.to_integral_value() else short


def money_to_text(value: Decimal) -> str:
    """Return `value` as plain digits without exponent: what SQLite keeps exactly."""
    text = str(value)
    # Twenty characters hold neither a nineteenth decimal nor a twenty-first digit; others are looked at closely.
    if len(text) <= 20 and "E" not in text and value.is_finite():
        return text
    return format(money_to_numeric(value), "f")


def utc_to_text(moment: datetime) -> str:
    """Return an aware time as fixed-width UTC text whose order is the order of time."""
    if moment.tzinfo is not UTC:
        moment = utc_checked(moment)
    text = _encode(moment).decode()  # "2024-07-26T12:31:00Z" with its quotes, in a third of isoformat's time
    if len(text) == WHOLE_SECOND_LENGTH:
        return f"{text[1:11]} {text[12:20]}.000000+00:00"
    return moment.isoformat(" ", "microseconds")


def utc_checked(moment: datetime) -> datetime:
    """Return an aware time in UTC; a naive one is refused."""
    if moment.tzinfo is None:
        raise ValueError(f"time without zone: {moment!r}; pass an aware datetime (UTC)")
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def _unless_none[T, R](convert: Callable[[T], R]) -> Callable[[T | None], R | None]:
    def convert_or_none(value: T | None) -> R | None:
        return None if value is None else convert(value)

    return convert_or_none


class Money(TypeDecorator[Decimal]):
    """An exact amount or price: NUMERIC(38,18) on PostgreSQL, plain text on SQLite.

    SQL must not compare, order or sum it, because text would do so wrongly: its operators raise.
    """

    impl = Numeric
    cache_ok = True

    class Comparator(TypeDecorator.Comparator[Decimal]):
        """The operators of a money column: only the test for NULL is left."""

        def operate(self, op: Any, *other: Any, **kwargs: Any) -> Any:
            """Refuse everything but a test for NULL."""
            if op in _NULL_TESTS or (op in (operators.eq, operators.ne) and other == (None,)):
                return super().operate(op, *other, **kwargs)
            raise TypeError(f"money is not computed or compared in SQL ({op.__name__}); read it and use Decimal")

    comparator_factory = Comparator

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return text for SQLite, NUMERIC elsewhere."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(Numeric(MONEY_DIGITS_MAX, MONEY_DECIMALS_MAX))

    def bind_processor(self, dialect: Dialect) -> Callable[[Decimal | None], Any]:
        """Return what turns a Decimal into the driver's value."""
        return _unless_none(money_to_text if dialect.name == "sqlite" else money_to_numeric)

    def result_processor(  # the signature is SQLAlchemy's
        self,
        dialect: Dialect,
        coltype: object,  # noqa: ARG002
    ) -> Callable[[Any], Decimal | None] | None:
        """Return what turns the driver's value into a Decimal."""
        return _unless_none(Decimal if dialect.name == "sqlite" else money_from_numeric)


class UtcDateTime(TypeDecorator[datetime]):
    """An instant to the microsecond: TIMESTAMP WITH TIME ZONE on PostgreSQL, fixed-width UTC text on SQLite."""

    impl = TIMESTAMP
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return text for SQLite, TIMESTAMP WITH TIME ZONE elsewhere."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(TIMESTAMP(timezone=True))

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], Any]:
        """Return what turns an aware time into the driver's value."""
        return _unless_none(utc_to_text if dialect.name == "sqlite" else utc_checked)

    def result_processor(  # the signature is SQLAlchemy's
        self,
        dialect: Dialect,
        coltype: object,  # noqa: ARG002
    ) -> Callable[[Any], datetime | None] | None:
        """Return what turns the driver's value into an aware UTC time; asyncpg gives one already."""
        return _unless_none(datetime.fromisoformat) if dialect.name == "sqlite" else None

"""Option values of a backtest: text, as a person writes it, into typed values."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from backtester.options import AMOUNT_MAX
from shared.domain.sizing import Sizing, parse_sizing
from shared.errors import ConfigError
from shared.plugins import CONFIG_WORDS


class NumberType(click.ParamType):  # type: ignore[type-arg]  # older releases know no argument
    """A finite Decimal."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        """Return the number as it was written."""
        if isinstance(value, Decimal):
            return value
        try:
            number = Decimal(str(value).strip())
        except InvalidOperation:
            self.fail(f"{value!r} is not a number", param, ctx)
        if not number.is_finite():
            self.fail(f"{value!r} is not a finite number", param, ctx)
        if number.copy_abs() > AMOUNT_MAX:
            self.fail(f"{value!r} is out of range: at most {AMOUNT_MAX:,f}", param, ctx)
        return number


class TimeType(click.ParamType):  # type: ignore[type-arg]  # older releases know no argument
    """An ISO 8601 time, UTC unless it says otherwise."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the aware time."""
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
        except ValueError:
            self.fail(f"{value!r} is not a time; write for example 2024-08-04 or 2024-08-04T12:00:00Z", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class SizingType(click.ParamType):  # type: ignore[type-arg]  # older releases know no argument
    """How much an entry buys."""

    name = "rule"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Sizing:
        """Return the rule."""
        try:
            return value if isinstance(value, Sizing) else parse_sizing(str(value))
        except (ValueError, ConfigError) as error:
            self.fail(str(error), param, ctx)


class ParameterType(click.ParamType):  # type: ignore[type-arg]  # older releases know no argument
    """`key=value` of a strategy; whole numbers, fractions and true or false become such."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Return (key, value)."""
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not (key.strip() and equals):
            self.fail(f"{value!r} is not of the form key=value, for example period=21", param, ctx)
        return key.strip(), _plain_value(text.strip())


def parameters(pairs: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """Return what `--param` gave, by name; one that is given twice, or is no parameter of a run, is a ConfigError."""
    params: dict[str, Any] = {}
    for key, value in pairs:
        if key in params:
            raise ConfigError(f"--param {key}: given twice; give it once")
        if key in CONFIG_WORDS:
            raise ConfigError(
                f"--param {key}: is no parameter of a run: it says which instances `trading up` starts; leave it out, "
                "the strategy and the symbol named here are run"
            )
        params[key] = value
    return params


def _plain_value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text

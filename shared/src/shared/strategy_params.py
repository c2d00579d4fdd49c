"""Typed parameters of a strategy, and the words in which a mistake in them is explained."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared.errors import PluginError

QUANTITY_MAX = Decimal(10) ** 18


class StrategyParams(BaseModel):
    """What every strategy takes; a subclass adds fields with defaults. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    quantity: Decimal = Field(
        default=Decimal("0.01"), gt=0, le=QUANTITY_MAX, description="base units, used by sizing `fixed`"
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_booleans_as_numbers(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key, value in values.items():
                field = cls.model_fields.get(str(key))
                if isinstance(value, bool) and field is not None and field.annotation is not bool:
                    raise ValueError(f"{key} must be a number or a word, was {value}")
        return values


def near_match(word: str, known: list[str]) -> str:
    """Return the words that help after a misspelt key: the likely one, or all of them."""
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return f"did you mean {by_lower[close[0]]!r}?" if close else f"known: {', '.join(sorted(known)) or 'none'}"


def validate_params[P: StrategyParams](model: type[P], values: Mapping[str, Any] | P | None, where: str) -> P:
    """Return `values` as `model`, or raise a PluginError that names `where`, the key and the likely fix."""
    if isinstance(values, model):
        return values
    given = {} if values is None else values.model_dump() if isinstance(values, BaseModel) else dict(values)
    known = list(model.model_fields)
    for key in given:
        if key not in known:
            raise PluginError(f"{where}: unknown key {str(key)!r}; {near_match(str(key), known)}")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        found = f"{key}: {message}, was {first['input']!r}" if key else message
        raise PluginError(f"{where}: {found}; correct it or leave it out for the default") from error


def params_numbers(params: StrategyParams) -> dict[str, int | float]:
    """Return the parameters that a step may read: numbers as they are, a choice as its place in the list of choices."""
    numbers: dict[str, int | float] = {}
    for name, field in type(params).model_fields.items():
        value = getattr(params, name)
        if name == "quantity":
            continue
        if get_origin(field.annotation) is not None and value in get_args(field.annotation):
            numbers[name] = get_args(field.annotation).index(value)
        elif isinstance(value, bool | int):
            numbers[name] = int(value)
        elif isinstance(value, float | Decimal):
            numbers[name] = float(value)
    return numbers

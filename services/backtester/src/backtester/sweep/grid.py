"""The grid of a sweep: what a person writes after `--grid`, and every combination of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from backtester.options import AMOUNT_MAX
from shared.errors import ConfigError

TRIALS_MAX = 100_000
VALUES_MAX = 10_000
AMOUNT_MIN = 1 / AMOUNT_MAX

type Axes = dict[str, tuple[Any, ...]]


def parse_axis(text: str) -> tuple[str, tuple[Any, ...]]:
    """Return the name and values of `name=first:last:step` (last included) or `name=a,b,c`.

    Raises
    ------
    ConfigError
        If there is no name, no value, a reversed range, a step that is not above 0, or a value twice.

    Example: "period=5:20:5" -> ("period", (5, 10, 15, 20)).
    """
    name, equals, written = (part.strip() for part in text.partition("="))
    if not (name and equals and written):
        raise ConfigError(f"--grid {text!r}: is not name=first:last:step nor name=a,b,c; write period=5:30:1")
    values = _range(text, written.split(":")) if ":" in written else _listed(text, written.split(","))
    if len(set(values)) < len(values):
        raise ConfigError(f"--grid {text!r}: a value stands there twice; name each once")
    return name, values


def _range(text: str, parts: Sequence[str]) -> tuple[Any, ...]:
    if len(parts) not in (2, 3):
        raise ConfigError(f"--grid {text!r}: a range is first:last or first:last:step, was {len(parts)} parts")
    first, last, step = (_number(text, part) for part in (*parts, *["1"] * (3 - len(parts))))
    if step <= 0:
        raise ConfigError(f"--grid {text!r}: the step must be above 0, was {step}")
    if last < first:
        raise ConfigError(
            f"--grid {text!r}: the range is reversed: {last} lies before {first}; write the smaller first"
        )
    count = int((last - first) / step) + 1
    if count > VALUES_MAX:
        raise ConfigError(f"--grid {text!r}: {count:,} values, at most {VALUES_MAX:,}; take a larger step")
    return tuple(_plain(first + place * step) for place in range(count))


def _listed(text: str, words: Sequence[str]) -> tuple[Any, ...]:
    if not all(word.strip() for word in words):
        raise ConfigError(f"--grid {text!r}: a value is empty; write name=a,b,c")
    return tuple(_value(text, word.strip()) for word in words)


def _number(text: str, word: str) -> Decimal:
    try:
        number = Decimal(word.strip())
    except InvalidOperation:
        raise ConfigError(f"--grid {text!r}: {word!r} is not a number; write first:last:step") from None
    if not number.is_finite():
        raise ConfigError(f"--grid {text!r}: {word!r} is not a finite number")
    return _in_range(text, number)


def _in_range(text: str, number: Decimal) -> Decimal:
    """Return the number; one of endless digits, which only looks short, would be counted for ever."""
    if number and not AMOUNT_MIN <= number.copy_abs() <= AMOUNT_MAX:
        raise ConfigError(f"--grid {text!r}: a number is out of range: {AMOUNT_MIN} to {AMOUNT_MAX:,f}, or 0")
    return number


def _value(text: str, word: str) -> Any:
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    try:
        number = Decimal(word)
    except InvalidOperation:
        return word
    return _plain(_in_range(text, number)) if number.is_finite() else word


def _plain(number: Decimal) -> int | float:
    whole = int(number)
    return whole if number == whole else float(number)


def parse_grid(texts: Sequence[str], fixed: Mapping[str, Any], trials_max: int = TRIALS_MAX) -> Axes:
    """Return the axes of a grid; one that is empty, given twice, fixed elsewhere or too large is a ConfigError."""
    if not texts:
        raise ConfigError("--grid: there is none; give at least one, for example --grid short_period=5:30:1")
    axes: Axes = {}
    count = 1
    for text in texts:
        name, values = parse_axis(text)
        if name in axes:
            raise ConfigError(f"--grid {name}: given twice; give it once, with every value")
        if name in fixed:
            raise ConfigError(f"--grid {name}: also given as --param {name}; a parameter is either fixed or swept")
        axes[name] = values
        count *= len(values)
    if count > trials_max:
        raise ConfigError(
            f"--grid: {count:,} combinations, at most {trials_max:,} (trials_max); take larger steps or fewer parameters"
        )
    return axes


def combinations(axes: Axes) -> Iterator[dict[str, Any]]:
    """Yield every combination, the last axis turning fastest."""
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))

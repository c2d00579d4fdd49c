"""Several writes as one statement: PostgreSQL does all of them or none, for one question and one answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

_PLACE = re.compile(r"\$(\d+)")


class Write(NamedTuple):
    """One write in PostgreSQL's own style, and what it changes: two writes of one `target` follow one another."""

    statement: str
    parameters: Sequence[Any]
    target: str


class Guard(NamedTuple):
    """What must hold for writes to count: `statement` gives one row with one truth value, NULL or false raises."""

    statement: str
    parameters: Sequence[Any]
    refusal: Callable[[], Exception]


def in_parts(writes: Sequence[Write]) -> list[list[Write]]:
    """Return the writes, in order, in parts that change each target once: those of one part see the same moment."""
    parts: list[list[Write]] = []
    targets: set[str] = set()
    for write in writes:
        if not parts or write.target in targets:
            parts.append([])
            targets = set()
        parts[-1].append(write)
        targets.add(write.target)
    return parts


def chained(writes: Sequence[Write], guard: Guard | None) -> tuple[str, list[Any]]:
    """Return one statement that does all of `writes`, and its parameters.

    Where the guard does not hold, it divides by zero: nothing is written then.
    """
    steps: Sequence[Write | Guard] = writes if guard is None else (guard, *writes)
    parameters = [value for step in steps for value in step.parameters]
    if len(writes) == 1 and guard is None:
        return writes[0].statement, parameters
    counts = tuple(len(step.parameters) for step in steps)
    return _text(tuple(step.statement for step in steps), counts, guard is not None), parameters


@lru_cache(maxsize=512)
def _text(statements: tuple[str, ...], counts: tuple[int, ...], is_guarded: bool) -> str:
    names = [f"w{number}" for number in range(len(statements))]
    if is_guarded:
        names[0] = "guard(holds)"
    steps, offset = [], 0
    for name, statement, count in zip(names, statements, counts, strict=True):
        steps.append(f"{name} AS ({_shifted(statement, offset)})")
        offset += count
    answer = "1 / (SELECT CASE WHEN holds THEN 1 ELSE 0 END FROM guard)" if is_guarded else "1"
    return f"WITH {', '.join(steps)} SELECT {answer}"


def _shifted(statement: str, offset: int) -> str:
    return _PLACE.sub(lambda place: f"${int(place[1]) + offset}", statement)

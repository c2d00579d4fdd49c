"""The record that a step keeps its state in: numbers by name, and rows of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RING_MIN = 64


@dataclass(frozen=True, slots=True)
class Ring:
    """A row of numbers in the state record, at least `length` long, all zero at first: float64, or int64.

    Its room is a power of two, so that neighbouring parameters share one compiled step.
    """

    length: int
    kind: type[float] | type[int] = float

    @property
    def room(self) -> int:
        """Return the numbers it holds."""
        return max(RING_MIN, 1 << max(self.length - 1, 0).bit_length())


type Fields = Mapping[str, int | float | Ring]


def step_record(fields: Fields) -> NDArray[np.void]:
    """Return one record of `fields` at their values."""
    layout: list[tuple[str, Any] | tuple[str, Any, tuple[int, ...]]] = []
    for name, value in fields.items():
        if isinstance(value, Ring):
            layout.append((name, np.int64 if value.kind is int else np.float64, (value.room,)))
        else:
            layout.append((name, np.float64 if isinstance(value, float) else np.int64))
    record = np.zeros(1, dtype=np.dtype(layout))
    for name, value in fields.items():
        if not isinstance(value, Ring):
            record[name] = value
    return record

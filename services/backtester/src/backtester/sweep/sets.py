"""The valid sets of a grid, as strategies and as the records that the loops step over."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backtester.sweep.grid import Axes, combinations
from backtester.wording import counted
from shared.errors import ConfigError, PluginError
from shared.plugins import StrategyPlugin
from shared.strategy import CompiledStrategy
from shared.strategy_params import near_match

SETS_TOGETHER = 16

type Records = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Sets:
    """Every set of a grid that the strategy takes, numbered from 0, and why the others are none."""

    base: CompiledStrategy
    given: tuple[dict[str, Any], ...]
    skipped: dict[str, int]
    skipped_example: str

    def strategy(self, number: int) -> CompiledStrategy:
        """Return the strategy of one set."""
        return configured(self.base, self.given[number])


def configured(base: CompiledStrategy, values: Mapping[str, Any]) -> CompiledStrategy:
    """Return `base` with other values for some parameters; a set that it refuses is a PluginError."""
    fresh = copy.copy(base)
    merged = {**(base.given_params or base.params.model_dump()), **values}
    fresh.configure(merged)
    fresh.given_params = merged
    return fresh


def find_sets(plugin: StrategyPlugin, symbol: str, fixed: Mapping[str, Any], axes: Axes, timeframe: str) -> Sets:
    """Return the sets of a grid; a strategy without a step, an unknown parameter or a grid without any is an error."""
    base = plugin.create(symbol)
    if not isinstance(base, CompiledStrategy):
        raise ConfigError(
            f"sweep: {plugin.name} has no step, and a sweep runs steps only; write one, or run `trading backtest`"
        )
    known = list(type(base).Params.model_fields)
    for option, name in [("--param", name) for name in fixed] + [("--grid", name) for name in axes]:
        if name not in known:
            raise ConfigError(f"{option} {name}: {plugin.name} has no such parameter; {near_match(name, known)}")
    given: list[dict[str, Any]] = []
    skipped: Counter[str] = Counter()
    example = ""
    for values in combinations(axes):
        try:
            configured(base, {**fixed, **values}).check_start(timeframe)
        except PluginError as error:
            skipped[_kind(str(error), values)] += 1
            example = example or str(error)
        else:
            given.append({**fixed, **values})
    if not given:
        raise ConfigError(f"--grid: none of {counted(skipped.total(), 'combination')} is valid; the first: {example}")
    return Sets(base, tuple(given), dict(skipped), example)


def _kind(said: str, values: Mapping[str, Any]) -> str:
    """Return a refusal without its numbers, so that equal ones count together."""
    words = said.partition(": ")[2] or said
    words = words.split(", was ", maxsplit=1)[0].split(";", maxsplit=1)[0]
    for value in values.values():
        words = words.replace(f" ({value})", "").replace(f" {value} ", " … ")
    return words


@dataclass(frozen=True, slots=True)
class Batch:
    """Sets that step together: their numbers, strategies and records of one layout."""

    numbers: tuple[int, ...]
    strategies: tuple[CompiledStrategy, ...]
    states: Records
    values: Records


def batches(sets: Sets, numbers: list[int]) -> Iterator[Batch]:
    """Yield the named sets in batches; only equal layouts of state and parameters can step together."""
    waiting: dict[str, list[tuple[int, CompiledStrategy]]] = {}
    for number in numbers:
        strategy = sets.strategy(number)
        states, values = strategy.records
        layout = f"{states.dtype.descr}{values.dtype.descr}"
        group = waiting.setdefault(layout, [])
        group.append((number, strategy))
        if len(group) == SETS_TOGETHER:
            yield _batch(waiting.pop(layout))
    for group in waiting.values():
        yield _batch(group)


def _batch(group: list[tuple[int, CompiledStrategy]]) -> Batch:
    records = [strategy.records for _, strategy in group]
    return Batch(
        numbers=tuple(number for number, _ in group),
        strategies=tuple(strategy for _, strategy in group),
        states=np.concatenate([states for states, _ in records]),
        values=np.concatenate([values for _, values in records]),
    )

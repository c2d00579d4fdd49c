"""Which fault happens now, and how often each one has."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from paper_exchange.faults.plan import Fault, FaultPlan
from shared.clock import seeded_random


class Moment(NamedTuple):
    """When something happens: the number of the candle since the run began, and seconds of machine time."""

    candle: int
    seconds: float


class _Armed:
    """A fault, its own chance, and how often it was met and happened."""

    def __init__(self, fault: Fault, seed: str) -> None:
        self.fault = fault
        self.met = 0
        self.fired = 0
        self._chance = seeded_random(seed)

    def happens(self, moment: Moment) -> bool:
        """Return whether the fault happens at this occasion, counting it when it does."""
        if not self._is_due(moment) or self.fired >= self.fault["times"]:
            return False
        self.met += 1
        if self.met <= self.fault["skip"]:
            return False
        if self.fault["chance"] < 1 and self._chance.random() >= self.fault["chance"]:
            return False
        self.fired += 1
        return True

    def _is_due(self, moment: Moment) -> bool:
        fault = self.fault
        if fault["candle"] or fault["every"]:
            past = moment.candle - (fault["candle"] or fault["every"])
            if fault["every"] and past >= 0:
                past %= fault["every"]
            if not 0 <= past < fault["candles"]:
                return False
        after: float = fault["after_seconds"]
        return after < 0 or 0 <= moment.seconds - after < float(fault["seconds"])


class FaultBoard:
    """The faults of a run; they may be replaced while it goes on."""

    def __init__(self, plan: FaultPlan) -> None:
        self._armed: list[_Armed] = []
        self.replace(plan)

    def replace(self, plan: FaultPlan) -> None:
        """Forget every fault and begin with those of `plan`, whose counts are 0."""
        self._armed = []
        self.add(plan)

    def add(self, plan: FaultPlan) -> None:
        """Keep the faults there are and add those of `plan`; a known name is replaced."""
        names = {fault.name for fault in plan.faults}
        kept = [armed for armed in self._armed if armed.fault.name not in names]
        self._armed = kept + [_Armed(fault, f"{plan.seed}|{fault.name}") for fault in plan.faults]

    def of_stream(self, stream: str, *, is_closed: bool, moment: Moment) -> list[Fault]:
        """Return the faults that happen to a frame of `stream`."""
        return list(self._happening("streams", stream, moment, is_closed=is_closed))

    def of_request(self, path: str, moment: Moment) -> list[Fault]:
        """Return the faults that happen to a request of `path`."""
        return list(self._happening("path", path, moment))

    def of_machine(self, moment: Moment) -> list[Fault]:
        """Return the faults that happen to the machine itself."""
        return [armed.fault for armed in self._armed if armed.fault.kind == "refuse" and armed.happens(moment)]

    def report(self) -> list[dict[str, Any]]:
        """Return every fault with how often it has happened."""
        return [
            {"name": armed.fault.name, "kind": armed.fault.kind, "fired": armed.fired, "met": armed.met}
            for armed in self._armed
        ]

    def _happening(self, target: str, name: str, moment: Moment, *, is_closed: bool | None = None) -> Iterator[Fault]:
        for armed in self._armed:
            pattern = armed.fault.settings.get(target)
            if pattern is None or not fnmatchcase(name, pattern):
                continue
            if is_closed is not None and not _concerns(armed.fault, is_closed):
                continue
            if armed.happens(moment):
                yield armed.fault


def _concerns(fault: Fault, is_closed: bool) -> bool:
    if fault.kind == "early_close":
        return not is_closed
    frames: str = fault["frames"]
    return frames == "all" or (frames == "closed") == is_closed

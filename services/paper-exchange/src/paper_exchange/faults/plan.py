"""What a faults file may say, and how it says it wrong.

A file (YAML or JSON) has a `seed` and a list `faults`. Each fault has a `kind`, says when it happens, and has
settings of its own kind (`KINDS`). When:

- `candle`: at the candle of that number since the run began (the first one is 1), for `candles` of them,
  again each `every` candles;
- `after_seconds`: from so many seconds of machine time after the beginning on, for `seconds`;
- `chance`: each time with that probability; `skip`: not the first so many times; `times`: at most so often.

Without any of these it happens each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from shared.errors import ConfigError

FAULTS_MAX: Final = 1000
FILE_BYTES_MAX: Final = 1_000_000
FRAMES: Final = ("closed", "open", "all")
MALFORMATIONS: Final = ("cut", "nan", "negative", "text", "missing", "null", "empty", "html", "list")
_FORM: Final = "write a list of faults like {kind: drop, candle: 5}"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a value must be: a number within a range, one of some words, a switch, or any text."""

    default: Any
    least: float = 0
    most: float = 1e9
    words: tuple[str, ...] = ()

    def check(self, value: Any) -> str:
        """Return what is wrong with a value, empty when nothing is."""
        if isinstance(self.default, bool):
            return "" if isinstance(value, bool) else "expected true or false"
        if self.words:
            return "" if value in self.words else f"expected one of {', '.join(self.words)}"
        if isinstance(self.default, str):
            return "" if isinstance(value, str) else "expected a text"
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if isinstance(self.default, int) and not is_whole:
            return "expected a whole number"
        if not is_whole and not isinstance(value, float):
            return "expected a number"
        return "" if self.least <= value <= self.most else f"expected {self.least:g} to {self.most:g}"


_WHEN: Final[Mapping[str, Setting]] = MappingProxyType(
    {
        "candle": Setting(0),
        "candles": Setting(1, least=1),
        "every": Setting(0),
        "after_seconds": Setting(-1.0),
        "seconds": Setting(1.0),
        "chance": Setting(1.0, most=1),
        "skip": Setting(0),
        "times": Setting(1_000_000_000, least=1),
    }
)
_STREAMS: Final = Setting("*@kline_*")
_PATH: Final = Setting("*")
KINDS: Final[Mapping[str, Mapping[str, Setting]]] = MappingProxyType(
    {
        # of the streams
        "silence": {"streams": Setting("*"), "frames": Setting("all", words=FRAMES)},
        "drop": {
            "streams": _STREAMS,
            "frames": Setting("closed", words=FRAMES),
            "code": Setting(1006, least=1000, most=4999),
            "delivered": Setting(False),
        },
        "duplicate": {
            "streams": _STREAMS,
            "frames": Setting("closed", words=FRAMES),
            "copies": Setting(1, least=1, most=100),
        },
        "reorder": {
            "streams": _STREAMS,
            "frames": Setting("closed", words=FRAMES),
            "by": Setting(1, least=1, most=1000),
        },
        "malformed": {
            "streams": _STREAMS,
            "frames": Setting("closed", words=FRAMES),
            "form": Setting("any", words=("any", *MALFORMATIONS)),
            "instead": Setting(True),
        },
        "early_close": {"streams": _STREAMS},
        "hole": {"streams": _STREAMS, "frames": Setting("closed", words=("closed",))},
        "shutdown": {"streams": _STREAMS, "frames": Setting("closed", words=FRAMES)},
        # of REST
        "error": {
            "path": _PATH,
            "status": Setting(503, least=500, most=599),
            "code": Setting(-1001, least=-9999, most=-1),
            "text": Setting("Internal error; unable to process your request. Please try again."),
        },
        "slow": {"path": _PATH, "delay_seconds": Setting(5.0, most=3600)},
        "rate_limit": {"path": _PATH, "retry_after": Setting(5, most=86_400)},
        "ban": {"path": _PATH, "retry_after": Setting(120, most=259_200)},
        "html": {"path": _PATH, "status": Setting(403, least=400, most=599)},
        "cut_answer": {"path": _PATH},
        "late_candle": {"path": Setting("*lines"), "rows": Setting(1, least=1, most=1000)},
        # of the machine
        "refuse": {"cut": Setting(True)},
    }
)
STREAM_KINDS: Final = frozenset(kind for kind, settings in KINDS.items() if "streams" in settings)
REST_KINDS: Final = frozenset(kind for kind, settings in KINDS.items() if "path" in settings)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault as it was asked for; `settings` holds every setting of its kind and of `when`."""

    kind: str
    name: str
    settings: Mapping[str, Any]

    def __getitem__(self, setting: str) -> Any:
        """Return a setting, its default when it was not given."""
        return self.settings[setting]


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """Every fault of a run."""

    faults: tuple[Fault, ...] = ()
    seed: int = 1
    source: str = field(default="", compare=False)


def read_fault_plan(path: Path) -> FaultPlan:
    """Return the faults of a YAML or JSON file; what is wrong with it is a `ConfigError`."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"faults: {path} cannot be read ({error.strerror}); check the path") from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"faults: {path} is larger than {FILE_BYTES_MAX} bytes; {_FORM}")
    try:
        document = yaml.safe_load(raw)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark is not None else ""
        raise ConfigError(f"faults: {path} is neither YAML nor JSON{line}; {_FORM}") from None
    return parse_fault_plan(document, str(path))


def parse_fault_plan(document: Any, source: str) -> FaultPlan:
    """Return the plan that a parsed document describes."""
    if isinstance(document, list):
        document = {"faults": document}
    if not isinstance(document, dict) or not isinstance(document.get("faults"), list):
        raise ConfigError(f"faults: {source} has no list `faults`; {_FORM}")
    unknown = sorted(set(map(str, document)) - {"seed", "faults"})
    if unknown:
        raise ConfigError(f"faults: {source}: {unknown[0]!r} is unknown; known are seed and faults")
    seed = document.get("seed", 1)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ConfigError(f"faults: {source}: seed: expected a whole number, was {seed!r}; write seed: 1")
    if len(document["faults"]) > FAULTS_MAX:
        raise ConfigError(f"faults: {source}: {len(document['faults'])} faults, at most {FAULTS_MAX}; use `every`")
    faults = tuple(_fault(number, item, source) for number, item in enumerate(document["faults"], 1))
    names = [fault.name for fault in faults]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"faults: {source}: two faults are named {twice!r}; give each a name of its own")
    return FaultPlan(faults, seed, source)


def _fault(number: int, item: Any, source: str) -> Fault:
    where = f"faults: {source}: fault {number}"
    if not isinstance(item, dict):
        raise ConfigError(f"{where}: expected settings, was {item!r}; {_FORM}")
    kind = item.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"{where}: kind {kind!r} is unknown; {_nearest(str(kind), KINDS)}")
    known = {**_WHEN, **KINDS[kind]}
    name = item.get("name", f"{kind}-{number}")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{where}: name: expected a text, was {name!r}; leave it away or write one")
    settings = {setting: rule.default for setting, rule in known.items()}
    for setting, value in item.items():
        if setting in ("kind", "name"):
            continue
        if setting not in known:
            raise ConfigError(f"{where} ({kind}): {setting!r} is unknown; {_nearest(str(setting), known)}")
        wrong = known[setting].check(value)
        if wrong:
            raise ConfigError(f"{where} ({kind}): {setting}: {wrong}, was {value!r}; mend it or leave it away")
        settings[setting] = value
    return Fault(kind, name, MappingProxyType(settings))


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"

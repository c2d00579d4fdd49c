"""Names of settings: what a person may have meant by one that is unknown, and how a `.env` file is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from shared.errors import ConfigError

GUARDED_PREFIXES: Final = ("RISK_", "TELEGRAM_", "BINANCE_", "CIRCUIT_BREAKER_", "HEALTH_", "PAPER_")
# Names that other programs use and that lie close to a short key of ours.
FOREIGN_NAMES: Final = frozenset({"STAGE", "STATUS", "STATS", "SPEC", "SPEECH", "STORE", "SITE", "STATIC", "SLATE"})
DISTANCE_MAX: Final = 2
ENV_FILE_BYTES_MAX: Final = 1_000_000
_LINE: Final = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*)")


def edit_distance(left: str, right: str) -> int:
    """Return how many letters must be put in, taken out or changed to make `left` into `right`."""
    previous = list(range(len(right) + 1))
    for row, letter in enumerate(left, start=1):
        current = [row]
        for column, other in enumerate(right, start=1):
            change = previous[column - 1] + (letter != other)
            current.append(min(previous[column] + 1, current[-1] + 1, change))
        previous = current
    return previous[-1]


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return the known name closest to `name`; of several, the first in alphabetical order."""
    return min(sorted(known), key=lambda candidate: edit_distance(name, candidate))


def unknown_name_text(name: str, known: Iterable[str]) -> str:
    """Return the second half of a refusal: what may have been meant."""
    near = nearest_name(name, known)
    close = edit_distance(name, near) <= max(DISTANCE_MAX, len(name) // 2)
    return f"did you mean {near}?" if close else f"{near} is the nearest known one; `.env.example` lists all"


def refuse_misspelt_environment(environment: Iterable[str], known: frozenset[str]) -> None:
    """Refuse names in the process environment that are almost, but not quite, a setting of ours.

    A process environment belongs to many programs, so an unknown name is only refused when it begins like a group
    of ours or is a misspelling. The shorter a key, the more ordinary words lie near it (PATH is two letters from
    DATA): keys of four letters or less are never compared, those of five with one letter's difference.
    """
    for name in sorted(environment):
        upper = name.upper()
        if name in known or upper in FOREIGN_NAMES:
            continue
        if name.startswith(GUARDED_PREFIXES):
            raise ConfigError(f"environment {name}: no such setting; {unknown_name_text(name, known)}")
        for key in sorted(known):
            if _is_misspelling(upper, key):
                raise ConfigError(f"environment {name}: no such setting; did you mean {key}? Else rename or unset it")


def _is_misspelling(name: str, key: str) -> bool:
    shorter = min(len(name), len(key))
    allowed = 0 if shorter <= 4 else 1 if shorter == 5 else DISTANCE_MAX
    if allowed == 0 or abs(len(name) - len(key)) > allowed:
        return False
    return edit_distance(name, key) <= allowed


def read_env_file(path: Path, known: frozenset[str]) -> dict[str, str]:
    """Return the settings in a `.env` file: `NAME=value` lines, comments, quotes; every name must be known."""
    values: dict[str, str] = {}
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        where = f"{path} line {number}"
        if match is None:  # the line itself may hold a secret and is not shown
            raise ConfigError(f"{where}: not of the form NAME=value; put a # before a comment")
        name = match["name"]
        if name not in known:
            raise ConfigError(f"{where}: no such setting {name}; {unknown_name_text(name, known)}")
        if name in values:
            raise ConfigError(f"{where}: {name} is given twice; keep one of the two lines")
        values[name] = _unquote(match["value"], where)
    return values


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > ENV_FILE_BYTES_MAX:
            raise ConfigError(f"{path}: larger than {ENV_FILE_BYTES_MAX} bytes; this is not a settings file")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save it as UTF-8") from None


def _unquote(value: str, where: str) -> str:
    if value[:1] in {'"', "'"}:
        quote = value[0]
        end = value.find(quote, 1)
        rest = value[end + 1 :].strip() if end > 0 else ""
        if end < 0 or (rest and not rest.startswith("#")):
            raise ConfigError(
                f"{where}: a quote {quote} is not closed at the value's end; write NAME={quote}value{quote}"
            )
        return value[1:end]
    return re.split(r"\s#", value, maxsplit=1)[0].strip()


def present_values(source: Mapping[str, str], known: frozenset[str]) -> dict[str, str]:
    """Return the known, non-empty entries of an environment: an empty variable is an absent one."""
    return {name: value for name, value in source.items() if name in known and value.strip()}

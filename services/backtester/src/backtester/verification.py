"""A recorded result is run again: its hashes and figures must still be what comes out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from backtester.export import SCHEMA
from backtester.wording import counted
from shared.errors import ConfigError
from shared.redaction import HIDDEN

DIFFERENCES_MAX = 40
RESULT_BYTES_MAX = 1_000_000_000
# what differs from run to run by nature, and what only says where and when a run was made
VOLATILE = frozenset({"seconds", "trial", "command", "version", "notes", "data.path", "engine"})
OVERRIDES = ("--data", "--strategies-dir", "--database-url", "--state")
_ENGINES_DIFFER_MAX = Decimal("1e-9")  # of the initial balance: what two engines may differ by
_TEXT_MAX = 60


class RecordedRun(NamedTuple):
    """A result file as it was written, and the words that made it."""

    path: Path
    document: dict[str, Any]
    words: tuple[str, ...]


class Difference(NamedTuple):
    """One figure that is not what was recorded."""

    where: str
    recorded: str
    now: str

    def __str__(self) -> str:
        """Return the figure with both values."""
        return f"{self.where}: recorded {self.recorded}, now {self.now}"


def read_recorded(path: Path) -> RecordedRun:
    """Return the result in a file; a ConfigError says why one cannot be run again."""
    try:
        if path.stat().st_size > RESULT_BYTES_MAX:
            raise ConfigError(f"{path}: is larger than {RESULT_BYTES_MAX:,} bytes; name a result of --json")
        document = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal, parse_int=Decimal)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error}); name a result of --json") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not JSON ({error}); name a result of --json") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ConfigError(f"{path}: is no result of the schema {SCHEMA}, found {schema!r}; name a result of --json")
    return RecordedRun(path, document, _words(path, document.get("command")))


def repeat_words(recorded: RecordedRun, given: Sequence[str]) -> list[str]:
    """Return the arguments that make the run again; `given` may say where its data and code are now, nothing else."""
    strange = [word for word in given if word.startswith("-") and word.partition("=")[0] not in OVERRIDES]
    if strange:
        raise ConfigError(
            f"--verify: takes only {', '.join(OVERRIDES)} beside it, found {strange[0]}; the file says the rest"
        )
    return [*recorded.words, *given]


def differences(recorded: RecordedRun, now: str) -> list[Difference]:
    """Return what `now`, the JSON of the run made again, says otherwise; what was never recorded is not compared."""
    document = json.loads(now, parse_float=Decimal, parse_int=Decimal)
    same_engine = recorded.document.get("engine") == document.get("engine")
    size = recorded.document.get("initial_balance")
    slack = Decimal(0) if same_engine or not isinstance(size, Decimal) else size * _ENGINES_DIFFER_MAX
    return list(_walk("", recorded.document, document, slack))


def report_lines(recorded: RecordedRun, found: Sequence[Difference]) -> list[str]:
    """Return what a person reads."""
    lines = [f"DIFFERENCE  {difference}" for difference in found[:DIFFERENCES_MAX]]
    if len(found) > DIFFERENCES_MAX:
        lines.append(f"            and {len(found) - DIFFERENCES_MAX:,} more")
    data = recorded.document.get("data")
    sha256 = data.get("sha256") if isinstance(data, dict) else None
    code = recorded.document.get("code_hash")
    if found:
        outcome = counted(len(found), "difference")
    else:
        outcome = f"the same again: every figure and {counted(len(recorded.document.get('trades', ())), 'trade')}"
    lines.append(f"verify {recorded.path}: {outcome} (recorded data {str(sha256)[:16]}, code {code})")
    return lines


def _words(path: Path, command: Any) -> tuple[str, ...]:
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:
        words = []
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    if first == len(words):
        raise ConfigError(f"{path}: carries no command to run again; name a result that `trading backtest` wrote")
    return tuple(_without_hidden(words[first:]))


def _without_hidden(words: Sequence[str]) -> Iterator[str]:
    """Yield the words less a database address whose password was not recorded."""
    skip = False
    for place, word in enumerate(words):
        if skip:
            skip = False
        elif word == "--database-url" and HIDDEN in "".join(words[place + 1 : place + 2]):
            skip = True
        elif not (word.startswith("--database-url=") and HIDDEN in word):
            yield word


def _walk(where: str, recorded: Any, now: Any, slack: Decimal) -> Iterator[Difference]:
    if where in VOLATILE:
        return
    if isinstance(recorded, dict) and isinstance(now, dict):
        for name, value in recorded.items():
            path = f"{where}.{name}" if where else name
            if name in now:
                yield from _walk(path, value, now[name], slack)
            elif path not in VOLATILE:
                yield Difference(path, _short(value), "absent")
    elif isinstance(recorded, list) and isinstance(now, list):
        if len(recorded) != len(now):
            yield Difference(where, counted(len(recorded), "row"), counted(len(now), "row"))
        for place, (one, other) in enumerate(zip(recorded, now, strict=False)):
            yield from _walk(f"{where}[{place}]", one, other, slack)
    elif not _equal(recorded, now, slack):
        yield Difference(where, _short(recorded), _short(now))


def _equal(recorded: Any, now: Any, slack: Decimal) -> bool:
    if isinstance(recorded, Decimal) and isinstance(now, Decimal):
        return abs(recorded - now) <= slack or float(recorded) == float(now)  # a program may have written it anew
    return type(recorded) is type(now) and bool(recorded == now)


def _short(value: Any) -> str:
    text = str(value) if isinstance(value, Decimal | str) else json.dumps(value, default=str)
    return text if len(text) <= _TEXT_MAX else f"{text[: _TEXT_MAX - 3]}..."

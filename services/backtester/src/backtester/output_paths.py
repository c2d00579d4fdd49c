"""Where a command may write: checked before anything runs, so that no long run ends without its result."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from shared.errors import ConfigError

STANDARD_OUTPUT = "-"


def check_outputs(outputs: Mapping[str, str | Path | None], inputs: Iterable[str | Path | None]) -> None:
    """Refuse an output (by option; None: not wanted) that is no file, another's place, a file read, or out of reach."""
    wanted = {option: str(given) for option, given in outputs.items() if given is not None}
    for option, given in wanted.items():
        if given in ("", "."):
            raise ConfigError(f"{option}: names no file; give one")
    places = {option: given if given == STANDARD_OUTPUT else _place(given) for option, given in wanted.items()}
    read = {_place(given): str(given) for given in inputs if given}
    taken: dict[str, str] = {}
    for option, place in places.items():
        if place in taken:
            raise ConfigError(f"{taken[place]} and {option}: two go to the same place; give each a file of its own")
        if place in read:
            raise ConfigError(f"{option} {wanted[option]}: would take the place of {read[place]}, which is read here")
        taken[place] = option
        folder = Path(wanted[option]).parent
        if place != STANDARD_OUTPUT and not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise ConfigError(f"{wanted[option]}: {folder} is not a folder that can be written; make it first")


def _place(given: str | Path) -> str:
    return str(Path(given).expanduser().resolve())

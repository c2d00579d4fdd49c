"""Pages from templates: slots such as `<!--title-->`, each filled once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files

from backtester.wording import plain_text

_SLOT = re.compile(r"<!--([a-z_]+)-->")


def asset(package: str, name: str) -> str:
    """Return a text file of a package's `assets` folder."""
    return files(package).joinpath("assets", name).read_text(encoding="utf-8")


def fill_slots(template: str, slots: Mapping[str, str]) -> str:
    """Return the template with every slot filled; what a slot brings is not looked at again."""
    return _SLOT.sub(lambda slot: slots[slot[1]], template)


def as_text(text: str) -> str:
    """Return text as HTML shows it, on one line and without control characters."""
    return escape(plain_text(text), quote=True)

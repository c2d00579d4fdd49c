"""What no log, message or reply may show: secrets known by value, by the name they stand under, and by their form."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

HIDDEN: Final = "[redacted]"
SECRET_LENGTH_MIN: Final = 4  # anything shorter is part of ordinary words
DEPTH_MAX: Final = 6
NAMES_REMEMBERED_MAX: Final = 2048
_SECRET_WORDS: Final = frozenset(
    {
        "token",
        "secret",
        "password",
        "passwd",
        "passphrase",
        "apikey",
        "authorization",
        "signature",
        "credentials",
        "dsn",
    }
)
_WORDS: Final = re.compile(r"[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]+")
# (what a text must hold, in small letters, for the form to be looked for; the form; what stands in its place)
_FORMS: Final = (
    ((":",), re.compile(r"(\b(?:bot)?)\d{3,20}:[A-Za-z0-9_-]{20,}"), rf"\1{HIDDEN}"),
    (("/bot",), re.compile(r"(/bot)[^/\s\"']+(?=/)"), rf"\1{HIDDEN}"),
    (("://",), re.compile(r"(://[^\s:/@\"']*:)[^\s/\"']+@"), rf"\1{HIDDEN}@"),
    (
        ("apikey", "api_key", "signature", "access_token"),
        re.compile(r"(?i)(\b(?:X-MBX-APIKEY|signature|api_?key|access_token)\b[\"']?\s*[=:]\s*[\"']?)[\w%+/.~-]+"),
        rf"\1{HIDDEN}",
    ),
    (
        ("authorization",),
        re.compile(r"(?i)(\bAuthorization\b[\"']?\s*[=:]\s*[\"']?(?:Bearer|Basic)?\s*)[\w+/=.~-]+"),
        rf"\1{HIDDEN}",
    ),
)


@lru_cache(maxsize=NAMES_REMEMBERED_MAX)
def is_secret_name(name: str) -> bool:
    """Return whether what stands under `name` is hidden whatever it is."""
    words = [word.lower() for word in _WORDS.findall(name)]
    return bool(words) and (words[-1] == "key" or not _SECRET_WORDS.isdisjoint(words))


class Redactor:
    """Hides secrets in text and in nested values; new ones may be added at any time."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: tuple[str, ...] = ()
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Hide these values too, in the forms in which JSON and URLs write them."""
        forms = set(self._secrets)
        for secret in secrets:
            if len(secret) >= SECRET_LENGTH_MIN:
                written = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
                forms |= {secret, *written, quote(secret, safe="", errors="replace")}
        self._secrets = tuple(sorted(forms, key=lambda form: (-len(form), form)))  # the longest first

    def text(self, text: str) -> str:
        """Return `text` without any secret."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, HIDDEN)
        small = text.lower()
        for needles, form, instead in _FORMS:
            if any(needle in small for needle in needles):
                text = form.sub(instead, text)
        return text

    def value(self, name: str, value: Any, depth: int = 0) -> Any:
        """Return `value`, hidden if its name says so, else with what lies inside it hidden by name."""
        if value is None or isinstance(value, bool):
            return value
        if is_secret_name(name):
            return HIDDEN
        if isinstance(value, str | int | float):  # nearly always, and quicker than asking for what is abstract
            return value
        if depth < DEPTH_MAX:
            if isinstance(value, Mapping):
                return {key: self.value(str(key), item, depth + 1) for key, item in value.items()}
            if isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
                return [self.value("", item, depth + 1) for item in value]
        return value


def redact_text(text: str) -> str:
    """Return `text` without what has the form of a secret."""
    return Redactor().text(text)

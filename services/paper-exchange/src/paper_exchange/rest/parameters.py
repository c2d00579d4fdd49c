"""Reads and checks the parameters of one request, in the protocol's own words when something is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final

from paper_exchange.market.intervals import INTERVALS, zone_ms
from paper_exchange.rest import errors

SYMBOL_FORM: Final = "^[A-Z0-9-_.]{1,20}$"
SYMBOLS_FORM: Final = '^\\[("[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}){0,1}\\]$'
WHOLE_FORM: Final = "^[0-9]{1,20}$"
ZONE_FORM: Final = "^(([+-]?(([0-9]|0[0-9]|1[0-4])(:[0-5][0-9])?)))$"
_MICROSECONDS_FROM: Final = 10**14  # a time as large as this is in microseconds
_SYMBOLS = re.compile(r'\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}")*\]')


class Parameters:
    """The parameters of one request; every reader remembers that its name was understood."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, str] = {}
        self._read: set[str] = set()
        for name, value in pairs:
            if name in self._values:
                raise errors.repeated(name)
            self._values[name] = value

    def check_all_read(self) -> None:
        """Refuse parameters that no reader asked for."""
        sent = len(self._values)
        read = sum(name in self._read for name in self._values)
        if read < sent:
            raise errors.unread(read, sent) if self._read else errors.surplus(0, sent)

    def text(self, name: str) -> str | None:
        """Return a value, None when it was not sent; an empty one is refused."""
        self._read.add(name)
        value = self._values.get(name)
        if value == "":
            raise errors.empty(name)
        return value

    def needed(self, name: str) -> str:
        """Return a value that must be there."""
        self._read.add(name)
        value = self._values.get(name)
        if not value:
            raise errors.missing(name)
        return value

    def symbol(self, name: str = "symbol") -> str:
        """Return a symbol that must be there, in the venue's form."""
        return _symbol(name, self.needed(name))

    def symbols(self) -> list[str] | None:
        """Return the symbols of `symbol` or `symbols`, None for all of them; both are refused."""
        one, several = self.text("symbol"), self.text("symbols")
        if one is not None and several is not None:
            raise errors.optional_combination()
        if one is not None:
            return [_symbol("symbol", one)]
        if several is None:
            return None
        if not _SYMBOLS.fullmatch(several):
            raise errors.illegal("symbols", SYMBOLS_FORM)
        found: list[str] = json.loads(several)
        if len(set(found)) < len(found):
            raise errors.repeated("symbols")
        return found

    def interval(self) -> str:
        """Return an interval that must be there."""
        value = self.needed("interval")
        if value not in INTERVALS:
            raise errors.invalid_interval()
        return value

    def whole(self, name: str) -> int | None:
        """Return a number without a sign or a point, None when it was not sent."""
        value = self.text(name)
        if value is None:
            return None
        if not re.fullmatch(r"[0-9]{1,20}", value):
            raise errors.illegal(name, WHOLE_FORM)
        return int(value)

    def limit(self, default: int, most: int) -> int:
        """Return how many rows are wanted: at least one, more than `most` is cut to it."""
        value = self.whole("limit")
        if value == 0:
            raise errors.invalid("limit")
        return default if value is None else min(value, most)

    def time_ms(self, name: str) -> int | None:
        """Return an instant in milliseconds, also when it was sent in microseconds."""
        value = self.whole(name)
        if value is None:
            return None
        return value // 1000 if value >= _MICROSECONDS_FROM else value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """Return one of `choices`, the first when nothing was sent."""
        value = self.text(name)
        if value is None:
            return choices[0]
        if value not in choices:
            raise errors.invalid(name)
        return value

    def zone(self) -> str:
        """Return `timeZone`, empty for UTC."""
        value = self.text("timeZone")
        if value is None:
            return ""
        if not re.fullmatch(r"[+-]?([0-9]|0[0-9]|1[0-4])(:[0-5][0-9])?", value):
            raise errors.illegal("timeZone", ZONE_FORM)
        east_ms = zone_ms(value)
        if not -12 * 3_600_000 <= east_ms <= 14 * 3_600_000:
            raise errors.invalid("timeZone")
        return value if east_ms else ""


def _symbol(name: str, value: str) -> str:
    if not re.fullmatch(r"[A-Z0-9\-_.]{1,20}", value):
        raise errors.illegal(name, SYMBOL_FORM)
    return value

"""Instrument rules by symbol: those that ship, none at all, or a person's own file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from shared.domain.rounding import Instrument
from shared.errors import ConfigError

KNOWN = "known"
FREE = "free"
FILE_BYTES_MAX = 1_000_000
_FIELDS = ("tick_size", "step_size", "notional_min")
_FILE_FORM = "write `instruments:` with a line per symbol: BTC/USDT: {tick_size: '0.01', step_size: '0.00001', notional_min: '5'}"


@dataclass(frozen=True, slots=True)
class InstrumentBook:
    """The rules of every symbol of a run, and what a person should know about them."""

    rules: dict[str, Instrument]
    notes: tuple[str, ...]

    def __getitem__(self, symbol: str) -> Instrument:
        """Return the rules of `symbol`; free ones where none are known."""
        return self.rules.get(symbol) or Instrument(symbol=symbol)


def load_instruments(choice: str, symbols: Iterable[str]) -> InstrumentBook:
    """Return the rules that `choice` (known, free or a file) gives to `symbols`."""
    wanted = list(symbols)
    if choice == FREE:
        return InstrumentBook({}, ("instrument rules: free (no tick, step 1e-8, no minimum)",))
    if choice == KNOWN:
        text, where = files("shared").joinpath("known_instruments.yaml").read_text(), "the rules that ship"
    else:
        path = Path(choice)
        if not path.is_file():
            raise ConfigError(f"instrument: {choice!r} is no file; give a file, `known` or `free`")
        text, where = _read(path), str(path)
    document = _parse(text, where)
    found = {symbol: _instrument(symbol, fields, where) for symbol, fields in document["instruments"].items()}
    notes = [
        f"instrument rules: {where}, {document.get('source', 'no source stated')}, {document.get('date', 'undated')}"
    ]
    notes += [
        f"{symbol}: not in {where}, trades free (no tick, no minimum)" for symbol in wanted if symbol not in found
    ]
    return InstrumentBook({symbol: found[symbol] for symbol in wanted if symbol in found}, tuple(notes))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"instrument: {path} cannot be read ({error.strerror}); {_FILE_FORM}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"instrument: {path} is larger than {FILE_BYTES_MAX} bytes; {_FILE_FORM}")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"instrument: {path} is no text; {_FILE_FORM}") from None


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"instrument: {where} is no YAML ({error.__class__.__name__}); {_FILE_FORM}") from None
    if not isinstance(document, dict) or not isinstance(document.get("instruments"), dict):
        raise ConfigError(f"instrument: {where} has no `instruments`; {_FILE_FORM}")
    return document


def _instrument(symbol: Any, fields: Any, where: str) -> Instrument:
    if not isinstance(fields, dict) or not set(fields) <= set(_FIELDS):
        raise ConfigError(f"instrument: {where}: {symbol}: expected {', '.join(_FIELDS)}, was {fields!r}; {_FILE_FORM}")
    try:
        rules = {name: Decimal(str(value)) for name, value in fields.items()}
        if not all(value.is_finite() for value in rules.values()):
            raise ValueError(f"numbers are needed, was {fields!r}")
        return Instrument(symbol=str(symbol), **rules)
    except (InvalidOperation, ValueError) as error:
        raise ConfigError(f"instrument: {where}: {symbol}: {error}; {_FILE_FORM}") from None

"""Frames that nobody should be able to read as a candle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from paper_exchange.faults.plan import MALFORMATIONS

type Spoil = Callable[[bytes], bytes]


def spoil(text: bytes, form: str, number: int) -> bytes:
    """Return a frame spoiled in a way; with `any` each one is spoiled in another way, by its number."""
    return _SPOILERS[MALFORMATIONS[number % len(MALFORMATIONS)] if form == "any" else form](text)


def _with_candle(change: Callable[[dict[str, Any]], None]) -> Spoil:
    """Return what changes the candle within an event, or the event where it holds none."""

    def apply(text: bytes) -> bytes:
        event = msgspec.json.decode(text)
        data = event.get("data", event)
        change(data.get("k", data))
        return msgspec.json.encode(event)

    return apply


_SPOILERS: Final[Mapping[str, Spoil]] = MappingProxyType(
    {
        "cut": lambda text: text[: len(text) * 2 // 3],
        "nan": _with_candle(lambda candle: candle.update(c="NaN")),
        "negative": _with_candle(lambda candle: candle.update(l="-1.00000000")),
        "text": _with_candle(lambda candle: candle.update(o="a lot")),
        "missing": _with_candle(lambda candle: candle.pop("c", None)),
        "null": _with_candle(lambda candle: candle.update(h=None)),
        "empty": lambda _: b"",
        "html": lambda _: b"<html><body><h1>502 Bad Gateway</h1></body></html>",
        "list": lambda text: b"[" + text + b"]",
    }
)

"""Which streams a path or a name means."""

from __future__ import annotations

from typing import NamedTuple

from paper_exchange.market.intervals import INTERVALS


class StreamPath(NamedTuple):
    """What a WebSocket path asks for: streams from the beginning, and whether events come in an envelope."""

    streams: tuple[str, ...]
    is_combined: bool


def read_path(path: str, streams_text: str | None) -> StreamPath | None:
    """Return what a path means, None when it is no stream path; anything may stand before `ws` or `stream`.

    Example: /ws/btcusdt@trade -> that stream, bare; /any/stream with streams=a/b -> both, in envelopes.
    """
    parts = [part for part in path.split("/") if part]
    if parts and parts[-1] == "stream":
        return StreamPath(tuple(_names((streams_text or "").split("/"))), True)
    if "ws" in parts:
        return StreamPath(tuple(_names(parts[parts.index("ws") + 1 :])), False)
    return None


def _names(parts: list[str]) -> list[str]:
    """Return the names among `parts`; a bare number is a client's own count of its connections."""
    return list(dict.fromkeys(part for part in parts if part and not part.isdigit()))


def kline_stream(symbol: str, interval: str) -> str:
    """Return the name of a candle stream."""
    return f"{symbol.lower()}@kline_{interval}"


def all_klines(symbol: str) -> frozenset[str]:
    """Return the names of every candle stream of a symbol."""
    return frozenset(kline_stream(symbol, interval) for interval in INTERVALS)

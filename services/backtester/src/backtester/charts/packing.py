"""Numbers for a page in few bytes: a table of facts and one long price series, pressed into text."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from backtester.data import CandleData

SERIES_ROWS_MAX = 700_000
DECIMALS_MAX = 8
_LEVEL = 6
_MISS_MAX = 1e-9  # of a price, relative


class PackedSeries(NamedTuple):
    """A price series as differences of whole ticks, its bytes sorted by weight; `facts` say how to read it."""

    facts: Mapping[str, Any]
    planes: bytes


def pack_closes(data: CandleData) -> PackedSeries | None:
    """Return every close of `data`; None where it is too long, or its prices fit no grid of whole ticks."""
    decimals = _decimals(data)
    if data.rows > SERIES_ROWS_MAX or decimals is None:
        return None
    ticks = np.rint(data.close * 10.0**decimals).astype(np.int64)
    steps = np.diff(ticks, prepend=ticks[0])
    if np.abs(steps).max() >= 2**30:
        return None
    folded = ((steps << 1) ^ (steps >> 63)).astype("<u4")
    jumps = np.diff(data.open_time_ms) // data.timeframe_ms
    holes = np.flatnonzero(jumps > 1)
    facts = {
        "start": int(data.open_time_ms[0]),
        "step": data.timeframe_ms,
        "rows": data.rows,
        "first": int(ticks[0]),
        "decimals": decimals,
        "holes": np.column_stack((holes + 1, jumps[holes] - 1)).tolist(),
    }
    return PackedSeries(facts, folded.view(np.uint8).reshape(-1, 4).T.tobytes())


def press(facts: Mapping[str, Any], planes: bytes = b"") -> str:
    """Return base64 of gzip of: four bytes of length (little end first), so many of JSON, the rest `planes`."""
    text = json.dumps(facts, allow_nan=False, separators=(",", ":")).encode()
    return press_bytes(len(text).to_bytes(4, "little") + text + planes)


def press_bytes(content: bytes) -> str:
    """Return base64 of gzip of `content`; the same content always gives the same text."""
    return base64.b64encode(gzip.compress(content, _LEVEL, mtime=0)).decode()


def _decimals(data: CandleData) -> int | None:
    for decimals in range(DECIMALS_MAX + 1):
        scaled = data.close * 10.0**decimals
        if (np.abs(scaled - np.rint(scaled)) <= _MISS_MAX * scaled).all() and scaled.max() < 2**52:
            return decimals
    return None

"""The local exchange as a process of its own: started, asked what it told, given faults while it runs."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from shared.testing.process_runs import SCRIPTS

KLINES_MAX = 1000
MINUTE_MS = 60_000
ATTEMPTS_MAX = 60
PAUSE_SECONDS = 0.25

type Row = tuple[int, Decimal, Decimal, Decimal, Decimal, Decimal]


@dataclass(frozen=True)
class LocalExchange:
    """A running exchange: its process, where it answers, and the market it plays."""

    process: subprocess.Popen[str]
    rest: str
    stream: str

    def status(self) -> dict[str, Any]:
        """Return what the exchange says of itself: market time, shift, closed candles, faults."""
        said: dict[str, Any] = self._asked("/paper/status")
        return said

    def set_faults(self, faults: Sequence[dict[str, Any]]) -> None:
        """Let exactly these faults happen from now on."""
        self._asked("/paper/faults", "PUT", list(faults))

    def candles(self, symbol: str, since_ms: int, until_ms: int) -> list[Row]:
        """Return every candle of a symbol that opens within [since_ms, until_ms), as the exchange recorded it."""
        rows: list[Row] = []
        while since_ms < until_ms:
            page = self._asked(
                f"/api/v3/klines?symbol={symbol.replace('/', '')}&interval=1m&startTime={since_ms}"
                f"&endTime={until_ms - 1}&limit={KLINES_MAX}"
            )
            rows += [(int(row[0]), *(Decimal(text) for text in row[1:6])) for row in page]  # type: ignore[misc]
            if len(page) < KLINES_MAX:
                break
            since_ms = int(page[-1][0]) + MINUTE_MS
        return rows

    def _asked(self, path: str, method: str = "GET", body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.rest + path, data=data, method=method)
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return json.load(response)
            except OSError:  # it refuses connections at times: that is one of its faults
                if attempt == ATTEMPTS_MAX:
                    raise
                time.sleep(PAUSE_SECONDS)
        raise AssertionError("unreachable")


@dataclass(frozen=True)
class MarketOptions:
    """What the exchange plays, and what goes wrong from the beginning."""

    symbols: Sequence[str]
    speed: float
    history: int
    behind_hours: float = 24.0
    faults: Sequence[dict[str, Any]] = ()


@contextmanager
def local_exchange(folder: Path, market: MarketOptions) -> Iterator[LocalExchange]:
    """Run `paper-exchange` on a free port, its market standing still until somebody asks for it."""
    plan = folder / "faults.json"
    plan.write_text(json.dumps({"seed": 7, "faults": list(market.faults)}))
    command = [SCRIPTS / "paper-exchange", "--port", "0", "--feed", "simulated", "--symbols", ",".join(market.symbols)]
    command += ["--speed", str(market.speed), "--history", str(market.history), "--behind", str(market.behind_hours)]
    command += ["--faults", plan, "--wait"]
    with (folder / "paper-exchange.log").open("w") as said:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True
        )
    try:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        assert len(words) == 4, f"the exchange did not start: {(folder / 'paper-exchange.log').read_text()[-2000:]}"
        yield LocalExchange(process, words[1], words[3])
    finally:
        process.kill()
        process.wait()

"""`python -m benchmarks.telegram [--seconds S] [--rounds N] [--json FILE]`: what a Bot API that misbehaves costs trading.

Each behaviour is run in turn, round by round, at 50 candles a second; of the rounds the quickest counts, because what
disturbs the machine only ever makes a run slower.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.market import Market, one_minute_market
from benchmarks.rates import run_up
from shared.testing.bot_api import (
    FakeBotApi,
    Outcome,
    bot_api_in_thread,
    garbage,
    hang,
    refusal,
    server_error,
    too_many_requests,
)

OFF = "no messages"
BEHAVIOURS: dict[str, Outcome | None] = {
    OFF: None,
    "answers": None,
    "hangs": hang(),
    "429 for an hour": too_many_requests(3600),
    "400": refusal(400, "Bad Request"),
    "502": server_error(),
    "rubbish": garbage(),
}


def one_run(folder: Path, market: Market, name: str, seconds: int) -> dict[str, Any]:
    """Run the platform against one behaviour and return its figures."""
    options = ("--speed", "3000", "--duration", str(seconds))
    place = folder / name.replace(" ", "-")
    place.mkdir(parents=True)
    if name == OFF:
        return run_up(place, "state", market, *options)
    with bot_api_in_thread(FakeBotApi(always=BEHAVIOURS[name])) as api:
        # by the environment: a token has no business in the list of processes
        os.environ |= {"TELEGRAM_BOT_TOKEN": api.token, "TELEGRAM_CHAT_ID": "42", "TELEGRAM_API_URL": api.url}
        os.environ["TELEGRAM_ENABLED"] = "true"
        try:
            figures = run_up(place, "state", market, *options)
        finally:
            for key in ("TELEGRAM_BOT_TOKEN", "TELEGRAM_CHAT_ID", "TELEGRAM_API_URL", "TELEGRAM_ENABLED"):
                del os.environ[key]
        return figures | {"requests": api.request_count}


def telegram_latency(folder: Path, market: Market, seconds: int, rounds: int) -> list[dict[str, Any]]:
    """Return, for each behaviour, the quickest round's latency from candle to order, and its ratio to no messages."""
    best: dict[str, dict[str, Any]] = {}
    for number in range(rounds):
        for name in BEHAVIOURS:
            found = one_run(folder / str(number), market, name, seconds)
            latency = found["latency_ms"]
            known = best.setdefault(
                name, {"what": f"Bot API: {name}", "p50_ms": latency["p50"], "p99_ms": latency["p99"]}
            )
            known["p50_ms"] = min(known["p50_ms"], latency["p50"])
            known["p99_ms"] = min(known["p99_ms"], latency["p99"])
            known |= {"orders": found["orders"], "requests": found.get("requests", 0)}
    for row in best.values():
        row["p50_ratio"] = round(row["p50_ms"] / best[OFF]["p50_ms"], 3)
        row["p99_ratio"] = round(row["p99_ms"] / best[OFF]["p99_ms"], 3)
    return list(best.values())


def main() -> None:
    """Measure, print a line each, and write JSON where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telegram", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="of each run")
    parser.add_argument("--rounds", type=int, default=3, help="the quickest of so many counts")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trading-bench-") as name:
        folder = Path(name)
        rows = telegram_latency(folder, one_minute_market(folder, 4_000), arguments.seconds, arguments.rounds)
    for row in rows:
        print(json.dumps(row))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    sys.exit(main())

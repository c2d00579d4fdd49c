"""`trading up` on a venue: names that are looked up, names it has not, and a venue that is not there."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from paper_exchange.market.sources import file_recording
from paper_exchange.server import ExchangeOptions, PaperExchange
from paper_exchange.testing import simulated_file
from shared.clock import SystemClock

TRADING = Path(sys.executable).parent / "trading"


async def trading(*options: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        TRADING, *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    text, _ = await process.communicate()
    return process.returncode or 0, text.decode()


def on(urls: Any) -> tuple[str, ...]:
    return ("up", "--feed", "binance", "--binance-rest-url", urls.rest, "--binance-stream-url", urls.stream,
            "--health-port", "0")  # fmt: skip


async def test_a_bare_name_is_looked_up_and_traded_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    options = ExchangeOptions(speed=120.0, wait=True)
    recording = file_recording([simulated_file("BTC/USDT", "1m", rows=900)], 600)
    async with PaperExchange(recording, options, SystemClock()).running() as urls:
        out = tmp_path / "out.json"
        code, text = await trading(
            *on(urls), "--symbols", "btcusdt", "--duration", "8", "--state", str(tmp_path / "a"), "--json", str(out)
        )
        assert code == 0, text
        report = json.loads(out.read_text())
        assert report["candles"] > 100
        assert "BTC/USDT" in text
        code, text = await trading(*on(urls), "--symbols", "BTC/USDTT", "--state", str(tmp_path / "b"))
        assert code == 2
        assert "binance has no market 'BTC/USDTT'; did you mean BTC/USDT?" in text
        assert "Traceback" not in text.replace("\\n", "")


async def test_a_venue_that_is_not_there_is_waited_for_without_a_traceback(tmp_path: Path) -> None:
    away = ("up", "--feed", "binance", "--binance-rest-url", "http://127.0.0.1:9", "--binance-stream-url",
            "ws://127.0.0.1:9", "--health-port", "0", "--retry-attempts-max", "2")  # fmt: skip
    code, text = await trading(*away, "--symbols", "BTC/USDT", "--duration", "3", "--state", str(tmp_path / "a"))
    assert code == 0, text
    assert "Traceback" not in text
    code, text = await trading(*away, "--symbols", "BTCUSDT", "--state", str(tmp_path / "b"))
    assert code == 2
    assert "BTCUSDT cannot be looked up, the venue does not answer" in text
    assert "Traceback" not in text

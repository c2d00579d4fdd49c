"""A run of `trading up` in which everything that is measured happens once: each metric has a sane value."""

from __future__ import annotations

import asyncio
import math
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import redis
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from shared.config import ENVIRONMENT_NAMES
from shared.metrics import MetricFamilies
from shared.testing.bot_api import FakeBotApi, refusal, server_error
from shared.testing.compose_twin import get, until
from shared.testing.platform_runs import COMMAND
from shared.testing.servers import free_port

START = datetime(2025, 1, 1, tzinfo=UTC)
SERVICES = {"data-collector", "strategy-engine", "order-executor", "portfolio-manager"}
PLUGIN = '''
from shared.models import Candle, OrderSide, Signal
from shared.strategy import BaseStrategy


class {name}(BaseStrategy):
    """Buys and sells by turns; or fails at its tenth candle."""

    name = "{word}"
    warmup_period = 1

    def reset(self) -> None:
        self.seen = 0

    def on_candle(self, candle: Candle) -> Signal | None:
        self.seen += 1
        if "{word}" == "faulty" and self.seen == 10:
            raise ValueError("on purpose")
        if self.seen % 4:
            return None
        side = OrderSide.BUY if self.seen % 8 else OrderSide.SELL
        return self.signal(candle, side, "by turns")
'''


def write_candles(path: Path) -> None:
    """Write minutes with a hole and one candle in another unit."""
    rows = [
        (START + timedelta(minutes=number), 100 + math.sin(number / 5), number)
        for number in range(4000)
        if number not in (60, 61)
    ]
    closes = [close if number != 70 else close * 1e6 for _, close, number in rows]
    times = pl.Series([moment for moment, _, _ in rows]).cast(pl.Datetime("ms", "UTC"))
    prices = dict.fromkeys(("open", "high", "low", "close"), closes)
    pl.DataFrame({"open_time": times, **prices, "volume": [1.0] * len(rows)}).write_parquet(path)


def scraped(port: int) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return every sample of ours by family name."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    status, text = get(f"http://127.0.0.1:{port}/metrics")
    for family in text_string_to_metric_families(text if status == 200 else ""):
        if family.name.startswith("trading_"):
            found.setdefault(family.name, []).extend((each.labels, each.value) for each in family.samples)
    return {name: samples for name, samples in found.items() if samples}


def is_tried_again(samples: dict[str, list[tuple[dict[str, str], float]]]) -> bool:
    """Say whether Telegram was called again: it is the last thing to happen, as it waits before."""
    return any(number for own, number in samples.get("trading_retries", ()) if own["call"] == "telegram")


def forge(redis_url: str) -> None:
    """Say something on the bus that nobody can read."""
    with redis.Redis.from_url(redis_url) as client:
        client.xadd("signals", {"payload": b"\xff"})


@pytest.mark.integration
async def test_every_metric_of_the_platform_is_observed_by_a_run(tmp_path: Path, redis_url: str) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for name, word in (("Turns", "turns"), ("Faulty", "faulty")):
        (plugins / f"{word}_strategy.py").write_text(PLUGIN.format(name=f"{name}Strategy", word=word))
    write_candles(tmp_path / "candles.parquet")
    declared = {family.describe()[0].name for family in vars(MetricFamilies(CollectorRegistry())).values()}
    port = free_port()
    async with FakeBotApi() as api:
        api.script.extend([server_error(), refusal(403, "no")])
        environment = {name: text for name, text in os.environ.items() if name.upper() not in ENVIRONMENT_NAMES}
        environment |= {"TELEGRAM_ENABLED": "true", "TELEGRAM_BOT_TOKEN": api.token, "TELEGRAM_CHAT_ID": "42"}
        options = ["--feed", "replay", "--data", f"BTC/USDT:1m={tmp_path / 'candles.parquet'}", "--speed", "3000"]
        options += ["--strategies-dir", str(plugins), "--redis-url", redis_url, "--instrument", "free"]
        options += ["--risk-order-rate-max", "1", "--telegram-api-url", api.url, "--health-port", str(port)]
        run = await asyncio.create_subprocess_exec(
            COMMAND, "up", "--state", tmp_path / "state", *options,
            env=environment, cwd=tmp_path, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await asyncio.to_thread(until, lambda: "trading_fills" in scraped(port), "fills")
            forge(redis_url)
            missing = lambda: sorted(declared - set(scraped(port)))  # noqa: E731 - said only when it fails
            await asyncio.to_thread(until, lambda: not missing(), "every metric; missing:", missing)
            await asyncio.to_thread(until, lambda: is_tried_again(scraped(port)), "a message is tried again")
            samples = scraped(port)
        finally:
            run.terminate()
            await asyncio.wait_for(run.wait(), 20)
    assert_sane(samples)


def assert_sane(samples: dict[str, list[tuple[dict[str, str], float]]]) -> None:
    """See that values are what such a run makes of them."""

    def value(name: str, **labels: str) -> float:
        return sum(found for own, found in samples[f"trading_{name}"] if labels.items() <= own.items())

    for name, found in samples.items():
        assert all(math.isfinite(number) for _, number in found), name
        assert {labels["service"] for labels, _ in found} <= SERVICES | {"up"}, name
    assert {labels["service"] for labels, number in samples["trading_service_up"] if number == 1} == SERVICES | {"up"}
    assert 9_000 < value("equity_quote") < 11_000
    assert 0 <= value("drawdown_ratio") < 0.1
    assert -1_000 < value("pnl_quote", kind="day") < 1_000
    assert value("control_state") == 0
    assert 0 <= value("exposure_ratio", symbol="BTC/USDT") <= 0.2
    assert value("gaps", stream="BTC/USDT 1m") >= 1
    assert value("quarantined") >= 1
    assert value("dead_letters", stream="signals") >= 1
    assert value("errors", error_type="StrategyFault") == 1
    assert value("refused") >= 1, samples["trading_refused"]
    assert value("ignored") >= 1
    assert value("retries", call="telegram") >= 1
    assert value("notifications", outcome="failed") >= 1
    assert value("check_ok") == len(samples["trading_check_ok"])
    assert value("breaker_state") == 0
    assert 0 <= value("data_age_seconds") < value("data_age_seconds_max") == 60
    assert value("stream_length", stream="candles.BTC_USDT.1m") > 10
    assert 0 <= value("end_to_end_lag_seconds", service="portfolio-manager") < 86_400

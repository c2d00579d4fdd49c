"""The same candles give the same tables: at any batch size, at every repetition, over kills, of either feed."""

from __future__ import annotations

import signal
from datetime import timedelta
from pathlib import Path

import pytest

from data_collector.feeds.simulated import SIMULATION_START
from shared.models import to_milliseconds
from shared.testing.platform_runs import PlatformRun, handled
from shared.testing.reference import reference_path
from shared.testing.state_tables import read_tables, state_differences

pytestmark = pytest.mark.e2e

ROWS = 360
HISTORY = 600
# History is sent at once, the candle after it not before a minute has passed: there the run is stopped.
SIMULATED = (
    *("--feed", "simulated", "--seed", "7", "--history-candles", str(HISTORY), "--speed", "1"),
    *("--symbols", "BTC/USDT,ETH/USDT", "--timeframes", "1m,5m", "--balance", "100000"),
)


def test_a_replay_gives_the_same_tables_at_any_batch_size(tmp_path: Path) -> None:
    import polars

    source = reference_path("data/candles/binance-BTCUSDT-1m-2024crash.parquet")
    path = tmp_path / "candles.parquet"
    polars.read_parquet(source).tail(14_000).head(ROWS).write_parquet(path)
    options = ("--feed", "replay", "--data", f"BTC/USDT:1m={path}", "--speed", "max", "--balance", "100000")
    found = []
    for batch_rows_max in (500, 1, 7):
        run = PlatformRun(tmp_path / f"batches-of-{batch_rows_max}", options)
        ended = run.finish("--batch-rows-max", str(batch_rows_max), "--feed-ahead-max", str(40 * batch_rows_max))
        assert ended.code == 0, ended.output
        found.append(read_tables(run.database))
    assert len(found[0]["trades"]) > 20
    assert state_differences(found[0], found[1]) == []
    assert state_differences(found[0], found[2]) == []


def test_a_seed_gives_the_same_market_and_the_same_trades(tmp_path: Path) -> None:
    everything = handled("portfolio", to_milliseconds(SIMULATION_START))
    first = PlatformRun(tmp_path / "first", SIMULATED)
    assert first.stop_when(everything, signal.SIGTERM).code == 0, first.said()
    again = PlatformRun(tmp_path / "again", SIMULATED)
    middle = SIMULATION_START - timedelta(minutes=HISTORY // 2)
    assert again.kill_when(handled("executor", to_milliseconds(middle)), "--batch-rows-max", "31"), again.said()
    assert again.stop_when(everything, signal.SIGINT).code == 130, again.said()
    tables = read_tables(first.database)
    assert len(tables["trades"]) > 50
    assert state_differences(tables, read_tables(again.database)) == []

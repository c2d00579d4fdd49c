"""Finer candles beside a run: what they decide, and when they are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from backtester.data import load_candles
from backtester.detail import DetailCandles, load_detail
from backtester.options import BacktestOptions
from backtester.run import BacktestRequest, run_backtest
from shared.errors import ConfigError, TradingError
from shared.testing.builders import BTC, START
from shared.testing.reference import reference_path

pytestmark = pytest.mark.thorough

MINUTES = 60
COARSE = 5
CRASH = "data/candles/binance-BTCUSDT-1m-2024crash.parquet"


def minutes(rows: int = MINUTES) -> pl.DataFrame:
    """Return one-minute candles that rise by one a minute, each from a half below its open to a half above its close."""
    opens = [100.0 + number for number in range(rows)]
    return pl.DataFrame(
        {
            "open_time": [START + timedelta(minutes=number) for number in range(rows)],
            "open": opens,
            "high": [price + 1.5 for price in opens],
            "low": [price - 0.5 for price in opens],
            "close": [price + 1.0 for price in opens],
            "volume": [1.0] * rows,
        }
    ).with_columns(pl.col("open_time").dt.cast_time_unit("ms"))


def coarse_of(fine: pl.DataFrame, width: str = f"{COARSE}m") -> pl.DataFrame:
    names = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    grouped = fine.group_by_dynamic("open_time", every=width)
    return grouped.agg([getattr(pl.col(name), how)() for name, how in names.items()])


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., DetailCandles]:
    """Give a function that writes both files, after a change to the fine one, and reads them together."""

    def write(change: Callable[[pl.DataFrame], pl.DataFrame] = lambda fine: fine) -> DetailCandles:
        coarse_of(minutes()).write_parquet(tmp_path / "coarse.parquet")
        change(minutes()).write_parquet(tmp_path / "fine.parquet")
        coarse = load_candles(tmp_path / "coarse.parquet", BTC, "5m")
        return load_detail(tmp_path / "fine.parquet", coarse)

    return write


def test_every_candle_has_its_finer_ones(pair: Callable[..., DetailCandles], tmp_path: Path) -> None:
    detail = pair()
    assert detail.usable.all()
    candles = list(load_candles(tmp_path / "coarse.parquet", BTC, "5m").candles())
    parts = detail(candles[3])
    assert [part.open_time for part in parts] == [START + timedelta(minutes=15 + number) for number in range(5)]
    assert parts[0].open == candles[3].open


def test_a_candle_that_lacks_what_made_its_range_is_left_to_the_worst_case(
    pair: Callable[..., DetailCandles], tmp_path: Path
) -> None:
    detail = pair(lambda fine: pl.concat([fine[:15], fine[16:29], fine[30:31], fine[32:40], fine[45:]]))
    assert [place for place, good in enumerate(detail.usable.tolist()) if not good] == [3, 5, 8]  # 6 keeps its range
    candles = list(load_candles(tmp_path / "coarse.parquet", BTC, "5m").candles())
    assert detail(candles[8]) == ()
    assert "3 candle(s) lack" in detail.note


def moved(name: str, by: float, row: int = 12) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda fine: fine.with_columns(
        pl.when(pl.int_range(pl.len()) == row).then(pl.col(name) + by).otherwise(pl.col(name)).alias(name)
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (moved("high", 20), "2024-03-04 00:10 UTC goes beyond it"),
        (moved("low", -20), "goes beyond it"),
        (moved("high", -0.4, row=14), "does not add up"),
        (lambda fine: fine[6:], "covers"),
        (lambda fine: fine[:-1], "covers 2024-03-04 00:00 to 2024-03-04 00:59 UTC, the run needs"),
        (coarse_of, "finer ones"),
        (lambda fine: coarse_of(fine, "15m"), "finer ones"),
        (lambda fine: coarse_of(fine, "3m"), "whose length divides"),
        (lambda fine: coarse_of(fine, "2m"), "120 s apart"),
        (lambda fine: fine[:1], "have no distance"),
        (lambda fine: fine[:0], "no distance"),
        (lambda fine: fine.reverse(), "sort the file"),
        (lambda fine: fine.with_columns(pl.lit("ETH/USDT").alias("symbol")), "asked was 'BTC/USDT'"),
        (lambda fine: fine.rename({"close": "price"}), "'close' is missing"),
    ],
)
def test_finer_candles_of_another_market_or_time_are_refused(
    pair: Callable[..., DetailCandles], change: Callable[[pl.DataFrame], pl.DataFrame], sentence: str
) -> None:
    with pytest.raises(TradingError, match=sentence):
        pair(change)


def test_a_file_that_is_not_there_is_refused(pair: Callable[..., DetailCandles], tmp_path: Path) -> None:
    pair()
    with pytest.raises(ConfigError, match=r"did you mean 'fine\.parquet'"):
        load_detail(tmp_path / "fin.parquet", load_candles(tmp_path / "coarse.parquet", BTC, "5m"))


def test_on_a_real_crash_an_hour_is_decided_by_its_minutes(tmp_path: Path) -> None:
    fine = pl.read_parquet(reference_path(CRASH))
    begin = fine["open_time"].dt.truncate("1h")[60]
    hours = coarse_of(fine.filter(pl.col("open_time") >= begin), "1h")[:-1]
    hours.write_parquet(tmp_path / "hours.parquet")
    options = BacktestOptions(max_entries=1, stop_loss_pct=Decimal("0.4"), take_profit_pct=Decimal("0.4"))
    request = BacktestRequest(
        strategy="rsi", data=str(tmp_path / "hours.parquet"), symbol=BTC, timeframe="1h",
        params={"period": 3, "oversold": 45}, options=options, engine="event",
    )  # fmt: skip
    worst = run_backtest(request)
    known = run_backtest(replace(request, detail=str(reference_path(CRASH))))
    assert worst.exits_contested > 5
    assert worst.exits_resolved == 0
    assert known.exits_resolved >= known.exits_contested - 2
    assert known.final_balance > worst.final_balance
    assert any("reached a stop and the target" in note for note in known.notes)

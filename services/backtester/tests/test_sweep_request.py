"""What a sweep's document says it was asked for, as a program reads it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from backtester.options import BacktestOptions
from backtester.sweep.request import SweepRequest, request_identity
from shared.candle_files import CandleFile, read_candle_file
from shared.plugins import discover


def two_candles(folder: Path) -> CandleFile:
    path = folder / "candles.csv"
    row = "2024-03-04T00:0{}:00Z,1,1,1,1,1\n"
    path.write_text("open_time,open,high,low,close,volume\n" + row.format(0) + row.format(1))
    return read_candle_file(path, symbol="BTC/USDT", timeframe="1m")


def test_switches_are_switches_what_is_not_set_is_null_and_sizing_reads_as_it_was_written(tmp_path: Path) -> None:
    request = SweepRequest(
        strategy="ema_crossover",
        data="candles.csv",
        symbol="BTC/USDT",
        timeframe="1m",
        grid={"short_period": (3, 4)},
        out=tmp_path / "out.parquet",
        options=BacktestOptions(sizing="risk:1", stop_loss_pct=Decimal(2), partial_cash=True),  # type: ignore[arg-type]
    )
    told = request_identity(request, discover().get("ema_crossover"), two_candles(tmp_path))
    assert (told["partial_cash"], told["fee_maker"], told["sizing"]) == (True, None, "risk:1")
    assert (told["fee"], told["stop_loss_pct"]) == ("0.001", "2")

"""Candles made of the venue's trades are the venue's candles."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from decimal import Decimal

import polars as pl
import pytest

from data_collector.feeds.binance.frames import TradeFrame, read_frame
from data_collector.feeds.binance.trades import TradeAggregator
from shared.models import Candle, to_milliseconds
from shared.testing.reference import reference_path

START_MS = 1_700_000_040_000  # a whole minute


def trade(number: int, at_ms: int, price: str = "10", quantity: str = "1") -> TradeFrame:
    return TradeFrame(
        market_id="BTCUSDT",
        trade_id=number,
        trade_ms=START_MS + at_ms,
        price=Decimal(price),
        quantity=Decimal(quantity),
    )


def captured_trades(market_id: str) -> Iterator[TradeFrame]:
    """Yield the trades of two captures of a combined stream, which follow each other."""
    for day in ("08", "09"):
        path = reference_path(f"data/trades/binance-BTCUSDT-wsframes-202408{day}.gz")
        with gzip.open(path, "rt") as lines:
            for line in lines:
                if "@trade" not in line:
                    continue
                frame = read_frame(line.partition(" ")[2])
                if isinstance(frame, TradeFrame) and frame.market_id == market_id:
                    yield frame


def test_captured_trades_give_the_recorded_candles_of_the_same_minutes() -> None:
    aggregator = TradeAggregator("BTC/USDT", "1m")
    built = aggregator.add_all(captured_trades("BTCUSDT"))
    path = reference_path("data/candles/binance-BTCUSDT-1m-2024crash.parquet")
    times = [candle.open_time for candle in built]
    recorded = pl.read_parquet(path).filter(pl.col("open_time").is_in(times)).sort("open_time")
    assert aggregator.ids_missing == 0
    assert len(built) == recorded.height == 10
    for candle, row in zip(built, recorded.iter_rows(named=True), strict=True):
        assert candle == Candle(**{**row, "symbol": "BTC/USDT", "timeframe": "1m"})


def test_the_first_candle_is_left_out_as_its_beginning_was_not_seen() -> None:
    built = TradeAggregator("BTC/USDT", "1m").add_all([trade(1, 30_000), trade(2, 60_000), trade(3, 120_000)])
    assert [to_milliseconds(each.open_time) - START_MS for each in built] == [60_000]


def test_a_missing_trade_spoils_its_candle_and_no_other() -> None:
    ids_and_times = [(1, 0), (2, 60_000), (4, 61_000), (5, 120_000), (6, 180_000), (9, 240_000), (10, 300_000)]
    aggregator = TradeAggregator("BTC/USDT", "1m")
    built = aggregator.add_all(trade(*each) for each in ids_and_times)
    assert [(to_milliseconds(each.open_time) - START_MS) // 60_000 for each in built] == [2]
    assert aggregator.ids_missing == 3


def test_repeated_trades_count_once() -> None:
    rows = [trade(1, 0), trade(2, 60_000, "10", "2"), trade(2, 60_000, "10", "2"), trade(3, 61_000, "12"), trade(1, 0)]
    (candle,) = TradeAggregator("BTC/USDT", "1m").add_all([*rows, trade(4, 120_000)])
    assert (candle.volume, candle.high, candle.close) == (3, 12, 12)


@pytest.mark.parametrize(("now_ms", "is_given"), [(119_999, False), (120_000, True)])
def test_the_venues_clock_may_close_a_candle_before_the_next_trade(now_ms: int, is_given: bool) -> None:
    aggregator = TradeAggregator("BTC/USDT", "1m")
    aggregator.add_all([trade(1, 0), trade(2, 60_000)])
    assert (aggregator.close_until(START_MS + now_ms) is not None) is is_given

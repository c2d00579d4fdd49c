"""A candle file that is wrong is refused by file, row and remedy; a hole is a fact that is reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

type Change = Callable[[pl.DataFrame], pl.DataFrame]


def at(row: int, column: str, value: object) -> Change:
    """Return the change of one cell."""
    here = pl.int_range(pl.len()) == row
    return lambda frame: frame.with_columns(pl.when(here).then(pl.lit(value)).otherwise(pl.col(column)).alias(column))


class Row(NamedTuple):
    """What is done to a good file of 40 candles, and what is said of it."""

    change: Change
    fragments: tuple[str, ...]


PARQUET = {
    "NaN": Row(at(7, "close", float("nan")), ("row 8", "close is nan", "mend or drop")),
    "infinite": Row(at(7, "volume", float("inf")), ("row 8", "volume is inf")),
    "missing": Row(at(7, "open", None), ("row 8", "open is missing")),
    "a negative price": Row(at(7, "low", -1.0), ("row 8", "low must be > 0", "-1.0")),
    "a price of zero": Row(at(0, "open", 0.0), ("row 1", "open must be > 0")),
    "a negative volume": Row(at(7, "volume", -1.0), ("row 8", "volume must be >= 0")),
    "high below low": Row(at(7, "high", 1.0), ("row 8", "high 1.0 is below low")),
    "a duplicate": Row(lambda frame: pl.concat([frame.head(8), frame.tail(-7)]), ("row 9", "stands there twice")),
    "out of order": Row(lambda frame: frame.reverse(), ("row 2", "comes after", "sort the file")),
    "a column missing": Row(lambda frame: frame.drop("volume"), ("'volume' is missing", "found")),
    "a column misspelt": Row(lambda frame: frame.rename({"close": "Close"}), ("did you mean 'Close'?",)),
    "no time zone": Row(
        lambda frame: frame.with_columns(pl.col("open_time").dt.replace_time_zone(None)), ("no time zone", "UTC")
    ),
    "seconds for milliseconds": Row(
        lambda frame: frame.with_columns(pl.col("open_time").dt.epoch("s")), ("looks like seconds", "milliseconds")
    ),
    "prices as a list": Row(lambda frame: frame.with_columns(pl.concat_list("close").alias("close")), ("close is",)),
    "prices as words": Row(lambda frame: frame.with_columns(pl.lit("high").alias("close")), ("row 1", "'high'")),
    "off the grid": Row(
        lambda frame: frame.with_columns(pl.col("open_time").dt.offset_by("7s")), ("row 1", "not on the 1m grid")
    ),
    "another timeframe": Row(lambda frame: frame.gather_every(5), ("5m",)),
    "another symbol": Row(
        lambda frame: frame.with_columns(pl.lit("ETH/USDT").alias("symbol")), ("symbol", "'ETH/USDT'", "'BTC/USDT'")
    ),
    "no row": Row(lambda frame: frame.clear(), ("no rows",)),
}

BYTES = {
    "an empty file": ("candles.parquet", b"", ("0 bytes",)),
    "rubbish": ("candles.parquet", b"\x00rubbish" * 40, ("not a Parquet file",)),
    "another ending": ("candles.xlsx", b"PK", (".parquet or .csv", ".xlsx")),
    "a CSV without a header": ("candles.csv", b"1735689600000,1,2,1,2,5\n", ("is missing", "needed")),
    "a CSV with semicolons": ("candles.csv", b"open_time;open;high;low;close;volume\n1;1;1;1;1;1\n", ("commas",)),
    "a CSV with a short line": (
        "candles.csv",
        b"open_time,open,high,low,close,volume\n1735689600000,1,2,1\n",
        ("line 2", "is missing"),
    ),
    "a CSV with an odd time": (
        "candles.csv",
        b"open_time,open,high,low,close,volume\n01/02/2025,1,2,1,2,5\n",
        ("line 2", "'01/02/2025' is no time"),
    ),
    "a CSV of zeros": ("candles.csv", b"\x00" * 200, ("candles.csv",)),
}


def up(path: Path) -> tuple[str, ...]:
    return ("up", "--feed", "replay", "--data", f"BTC/USDT:1m={path}", "--speed", "max", "--health-port", "0")


@pytest.mark.parametrize("name", PARQUET)
def test_a_parquet_file_that_is_wrong_is_refused(
    name: str, trading: Any, refused: Any, clean_place: Path, market: pl.DataFrame
) -> None:
    path = clean_place / "candles.parquet"
    PARQUET[name].change(market.head(40)).write_parquet(path)
    refused(trading(*up(path)), "candles.parquet", *PARQUET[name].fragments)


@pytest.mark.parametrize("name", BYTES)
def test_a_file_that_holds_no_candles_is_refused(name: str, trading: Any, refused: Any, clean_place: Path) -> None:
    file, content, fragments = BYTES[name]
    (clean_place / file).write_bytes(content)
    refused(trading(*up(clean_place / file)), file, *fragments)


def test_a_file_that_was_cut_off_is_refused(trading: Any, refused: Any, clean_place: Path, market: Any) -> None:
    path = clean_place / "candles.parquet"
    market.head(40).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])
    refused(trading(*up(path)), "cut off", "export or download it again")


def test_a_file_that_is_not_there_or_is_a_folder_is_refused(trading: Any, refused: Any, clean_place: Path) -> None:
    refused(trading(*up(clean_place / "candles.parquet")), "no such file", "check the path")
    (clean_place / "candles.parquet").mkdir()
    refused(trading(*up(clean_place / "candles.parquet")), "is a folder")


def test_a_refused_file_leaves_a_state_that_a_good_one_goes_on_with(
    trading: Any, refused: Any, clean_place: Path, market: pl.DataFrame
) -> None:
    path = clean_place / "candles.parquet"
    market.head(100).write_parquet(path)
    assert trading(*up(path)).code == 0
    before = trading("trades", "--csv").said
    at(150, "close", float("nan"))(market.head(300)).write_parquet(path)
    refused(trading(*up(path)), "row 151", "close is nan")
    assert trading("trades", "--csv").said == before
    assert trading("verify").code == 0
    market.head(300).write_parquet(path)
    outcome = trading(*up(path))
    assert outcome.code == 0, outcome.said
    assert "300 candles" in outcome.said
    assert trading("verify").code == 0


@pytest.mark.parametrize("candles", [1, 2])
def test_a_file_of_hardly_any_candle_is_replayed(candles: int, trading: Any, replay: Any) -> None:
    outcome = trading(*replay(candles))
    assert outcome.code == 0, outcome.said
    assert f"{candles} candles, 0 signals" in outcome.said


def test_a_hole_is_stored_and_reported_and_the_run_goes_on(
    trading: Any, clean_place: Path, market: pl.DataFrame
) -> None:
    path = clean_place / "candles.parquet"
    pl.concat([market.slice(0, 120), market.slice(131, 200)]).write_parquet(path)
    outcome = trading(*up(path), "--log-level", "INFO")
    assert outcome.code == 0, outcome.said
    assert "candles.missing" in outcome.said
    assert '"candles":11' in outcome.said
    assert "320 candles" in outcome.said
    assert "gaps" in trading("status").said
    assert trading("verify").code == 0

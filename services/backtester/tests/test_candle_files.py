"""Candle files, good and bad: each mistake is named with its place and what to do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtester.data import DataFacts, load_candles, read_database_candles
from shared.candle_files import CandleFile, read_candle_file
from shared.db import Database
from shared.errors import ConfigError, MarketDataError, TradingError
from shared.models import Candle
from shared.testing.reference import reference_path

pytestmark = pytest.mark.thorough

START = datetime(2024, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
type Change = Callable[[pl.DataFrame], pl.DataFrame]


def frame(rows: int = 20, step: timedelta = MINUTE) -> pl.DataFrame:
    closes = [100.0 + n % 7 for n in range(rows)]
    times = pl.Series([START + n * step for n in range(rows)], dtype=pl.Datetime("ms", "UTC"))
    return pl.DataFrame(
        {
            "open_time": times,
            "open": closes,
            "high": [close + 1 for close in closes],
            "low": [close - 1 for close in closes],
            "close": closes,
            "volume": [1.5] * rows,
        }
    )


def written(folder: Path, table: pl.DataFrame, name: str = "candles.parquet") -> Path:
    path = folder / name
    if path.suffix == ".csv":
        table.write_csv(path)
    else:
        table.write_parquet(path)
    return path


def read(path: Path, timeframe: str = "1m", start: datetime | None = None, end: datetime | None = None) -> CandleFile:
    return read_candle_file(path, symbol="BTC/USDT", timeframe=timeframe, start=start, end=end)


def with_value(column: str, row: int, value: object) -> Change:
    def change(table: pl.DataFrame) -> pl.DataFrame:
        values = table[column].to_list()
        values[row] = value
        return table.with_columns(pl.Series(column, values, dtype=table[column].dtype))

    return change


def with_times(times: list[object], dtype: pl.DataType | None = None) -> Change:
    return lambda table: table.head(len(times)).with_columns(pl.Series("open_time", times, dtype=dtype))


def epochs(scale: float, rows: int = 20) -> list[object]:
    return [int((START + n * MINUTE).timestamp() * scale) for n in range(rows)]


# --- what is read ---------------------------------------------------------------------------------------------------


def test_a_parquet_file_becomes_arrays_and_candles(tmp_path: Path) -> None:
    path = written(tmp_path, frame())
    found = read(path)
    assert (found.rows, found.first, found.last) == (20, START, START + 19 * MINUTE)
    assert (found.open_time_ms.dtype, found.close.dtype) == (np.int64, np.float64)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.gaps, found.gap_count, found.candles_missing, found.history) == ((), 0, 0, None)
    assert list(found.candles(3, 4)) == [
        Candle(
            symbol="BTC/USDT",
            timeframe="1m",
            open_time=START + 3 * MINUTE,
            open=103.0,  # type: ignore[arg-type]
            high=104.0,  # type: ignore[arg-type]
            low=102.0,  # type: ignore[arg-type]
            close=103.0,  # type: ignore[arg-type]
            volume=1.5,  # type: ignore[arg-type]
        )
    ]
    assert [candle.open_time for candle in found.candles(-2)] == [START + 18 * MINUTE, START + 19 * MINUTE]
    assert list(found.candles(20)) == []


def test_floats_become_decimals_by_their_repr(tmp_path: Path) -> None:
    found = read(written(tmp_path, with_value("volume", 0, 0.1)(frame())))
    assert next(found.candles()).volume == Decimal("0.1")


def test_many_candles_cross_the_chunks_without_a_seam(tmp_path: Path) -> None:
    table = frame(20_000).filter(~pl.int_range(pl.len()).is_in([8191, 8192, 9000]))
    found = read(written(tmp_path, table))
    times = [candle.open_time for candle in found.candles()]
    assert times == table["open_time"].to_list()
    assert [candle.close for candle in found.candles(8190, 8194)] == found.close[8190:8194].tolist()


ZONED = [START + n * MINUTE for n in range(20)]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("a.csv", lambda t: t),
        ("b.csv", with_times([f"{m:%Y-%m-%d %H:%M}" for m in ZONED])),
        ("c.csv", with_times([m.isoformat() for m in ZONED])),
        ("d.csv", with_times([m.astimezone(timezone(timedelta(hours=2))).isoformat() for m in ZONED])),
        ("e.csv", with_times(epochs(1000))),
        ("f.csv", with_times([f"{m:%Y-%m-%dT%H:%M:%SZ}" for m in ZONED])),
        ("g.parquet", with_times(epochs(1000))),
        ("h.parquet", lambda t: t.with_columns(pl.col("open_time").dt.convert_time_zone("Europe/Berlin"))),
        ("i.parquet", lambda t: t.with_columns(pl.col("open_time").dt.cast_time_unit("ns"))),
        ("j.parquet", lambda t: t.with_columns(pl.col("close", "volume").cast(pl.Float32))),
        ("k.parquet", lambda t: t.with_columns(pl.col("open", "close").cast(pl.String))),
        ("l.parquet", lambda t: t.with_columns(trades=pl.lit(3)).select(reversed([*t.columns, "trades"]))),
        ("m.parquet", lambda t: t.with_columns(symbol=pl.lit("BTCUSDT"), timeframe=pl.lit("1m"))),
    ],
)
def test_the_same_candles_come_out_of_every_honest_form(tmp_path: Path, name: str, change: Change) -> None:
    assert list(read(written(tmp_path, change(frame()), name)).candles()) == list(
        read(written(tmp_path, frame(), "plain.parquet")).candles()
    )


def test_a_byte_order_mark_and_windows_line_ends_are_harmless(tmp_path: Path) -> None:
    path = written(tmp_path, frame(), "x.csv")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read(path).rows == 20


def test_gaps_are_facts_not_errors(tmp_path: Path) -> None:
    found = read(written(tmp_path, frame().filter(~pl.int_range(20).is_in([4, 5, 11]))))
    assert [(gap.start, gap.end, gap.candles_missing) for gap in found.gaps] == [
        (START + 4 * MINUTE, START + 6 * MINUTE, 2),
        (START + 11 * MINUTE, START + 12 * MINUTE, 1),
    ]
    assert (found.gap_count, found.candles_missing) == (2, 3)


def test_one_row_is_enough(tmp_path: Path) -> None:
    found = read(written(tmp_path, frame(1)))
    assert (found.rows, found.gaps, len(list(found.candles()))) == (1, (), 1)


def test_a_window_takes_the_start_leaves_the_end_and_keeps_what_lies_before(tmp_path: Path) -> None:
    path = written(tmp_path, frame())
    found = read(path, start=START + 5 * MINUTE, end=START + 8 * MINUTE)
    assert [candle.open_time for candle in found.candles()] == [START + n * MINUTE for n in (5, 6, 7)]
    assert found.history is not None
    assert [candle.open_time for candle in found.history.candles(-2)] == [START + 3 * MINUTE, START + 4 * MINUTE]
    assert found.sha256 == read(path).sha256
    assert read(path, start=START).history is None


def test_arrays_cannot_be_written_by_a_reader(tmp_path: Path) -> None:
    found = read(written(tmp_path, frame()))
    with pytest.raises(ValueError, match="read-only"):
        found.close[0] = 1.0


# --- what is refused ------------------------------------------------------------------------------------------------

BAD_CONTENT: dict[str, tuple[Change, str, str]] = {
    "no rows": (lambda t: t.head(0), "p", "no rows"),
    "one column missing": (lambda t: t.drop("volume"), "p", "'volume' is missing"),
    "misspelt column": (lambda t: t.rename({"close": "closee"}), "p", "did you mean 'closee'"),
    "capital letter": (lambda t: t.rename({"open": "Open"}), "p", "did you mean 'Open'"),
    "usual other name": (lambda t: t.rename({"open_time": "timestamp"}), "p", "did you mean 'timestamp'"),
    "semicolons": (lambda t: pl.DataFrame({";".join(t.columns): ["1;2;3;4;5;6"]}), "c", "separate columns by commas"),
    "not a number in csv": (
        lambda t: t.with_columns(pl.col("close").cast(pl.String)).pipe(with_value("close", 3, "12,5x")),
        "c",
        r"line 5: close '12,5x' is no number",
    ),
    "missing value": (with_value("high", 2, None), "p", "row 3: high is missing"),
    "missing value in csv": (with_value("high", 2, None), "c", "line 4: high is missing"),
    "NaN": (with_value("close", 4, float("nan")), "p", "row 5: close is nan"),
    "NaN in csv": (with_value("close", 4, float("nan")), "c", "line 6: close is nan"),
    "infinite volume": (with_value("volume", 4, float("inf")), "p", "row 5: volume is inf"),
    "price of zero": (with_value("low", 6, 0.0), "p", "row 7: low must be > 0, was 0.0"),
    "negative price": (with_value("open", 6, -1.0), "p", "row 7: open must be > 0, was -1.0"),
    "negative volume": (with_value("volume", 6, -1.0), "p", "row 7: volume must be >= 0"),
    "high below low": (with_value("high", 8, 1.0), "p", "row 9: high 1.0 is below low"),
    "unsorted": (lambda t: t.reverse(), "p", "row 2: .* sort the file"),
    "unsorted in the middle": (lambda t: pl.concat([t[:5], t[8:10], t[5:8], t[10:]]), "p", "row 8: .* sort the file"),
    "duplicate": (lambda t: pl.concat([t[:5], t[4:]]), "p", "row 6: .* stands there twice"),
    "off the grid": (with_value("open_time", 3, START + 3.5 * MINUTE), "p", "row 4: .*00:03:30 UTC is not on the 1m"),
    "half a millisecond": (
        lambda t: t.with_columns(pl.col("open_time").dt.cast_time_unit("us") + pl.duration(microseconds=500)),
        "p",
        "row 1: .* whole millisecond",
    ),
    "naive times": (lambda t: t.with_columns(pl.col("open_time").dt.replace_time_zone(None)), "p", "no time zone"),
    "dates": (lambda t: t.with_columns(open_time=pl.lit(date(2024, 1, 1))), "p", "open_time is Date"),
    "seconds": (with_times(epochs(1)), "p", "looks like seconds; expected milliseconds"),
    "microseconds": (with_times(epochs(1e6)), "p", "looks like microseconds"),
    "nanoseconds": (with_times(epochs(1e9)), "c", "line 2: .* looks like nanoseconds"),
    "row numbers": (with_times(list(range(20))), "p", "open_time 0 is none"),
    "fractions of seconds": (with_times([float(n) for n in range(20)]), "p", "open_time is Float64"),
    "no time": (with_times(["2024-03-01 00:00", "yesterday"]), "c", "line 3: open_time 'yesterday' is no time"),
    "empty time": (with_times(["2024-03-01 00:00", None]), "c", "line 3: open_time is missing"),
    "yes and no": (lambda t: t.with_columns(close=pl.lit(value=True)), "p", "close is Boolean"),
    "several symbols": (
        lambda t: t.with_columns(symbol=pl.Series(["BTC/USDT", "ETH/USDT"] * 10)),
        "p",
        "several: symbol BTC/USDT, ETH/USDT",
    ),
    "another symbol": (lambda t: t.with_columns(symbol=pl.lit("ETH/USDT")), "p", "'ETH/USDT', asked was 'BTC/USDT'"),
    "another timeframe by name": (lambda t: t.with_columns(timeframe=pl.lit("5m")), "p", "'5m', asked was '1m'"),
    "another timeframe": (lambda _: frame(20, 5 * MINUTE), "p", "no two candles lie 1m apart; .*ask for timeframe 5m"),
    "mixed timeframes": (
        lambda t: pl.concat([t, frame(20, 5 * MINUTE).with_columns(pl.col("open_time") + pl.duration(hours=1))]),
        "p",
        "row 21: mixed timeframes: .* 5m apart",
    ),
}


@pytest.mark.parametrize("name", BAD_CONTENT)
def test_bad_content_is_refused_with_its_place_and_remedy(tmp_path: Path, name: str) -> None:
    change, form, message = BAD_CONTENT[name]
    path = written(tmp_path, change(frame()), "bad.csv" if form == "c" else "bad.parquet")
    with pytest.raises(TradingError, match=message) as caught:
        read(path)
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)
    assert "; " in str(caught.value)


def test_a_finer_timeframe_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, frame())
    with pytest.raises(MarketDataError, match=r"row 2: .* not on the 5m grid; .*ask for timeframe 1m"):
        read(path, "5m")


@pytest.mark.parametrize("kept", [0, 3, 4, 400, -1, -8])
def test_a_cut_off_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = written(tmp_path, frame())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(MarketDataError, match=r"empty|cut off|not a Parquet"):
        read(path)


def test_a_wrong_ending_is_refused(tmp_path: Path) -> None:
    text = written(tmp_path, frame(), "a.csv").rename(tmp_path / "a.parquet")
    with pytest.raises(MarketDataError, match="not a Parquet file"):
        read(text)
    table = written(tmp_path, frame()).rename(tmp_path / "b.csv")
    with pytest.raises(MarketDataError, match=r"rename it to \.parquet"):
        read(table)
    with pytest.raises(ConfigError, match=r"expected a \.parquet or \.csv file"):
        read(tmp_path / "candles.feather")


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    written(tmp_path, frame())
    with pytest.raises(ConfigError, match=r"no such file; did you mean 'candles\.parquet'"):
        read(tmp_path / "candle.parquet")
    with pytest.raises(ConfigError, match="no such file; check the path"):
        read(tmp_path / "nowhere" / "candle.parquet")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        read(tmp_path / "folder.parquet")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"timeframe": "1M"}, "'1M' is unknown; did you mean '1m'"),
        ({"timeframe": "7m"}, "unknown"),
        ({"symbol": "BTCUSDT"}, "write it like BTC/USDT"),
        ({"start": START, "end": START}, "is not after start"),
        ({"end": START - MINUTE, "start": START}, "is not after start"),
        (
            {"start": START + timedelta(days=1)},
            "no candle from 2024-03-02 00:00 UTC .* the file holds 2024-03-01 00:00",
        ),
        ({"end": START}, "no candle from the beginning"),
        ({"start": datetime(2024, 3, 1)}, "without zone"),  # noqa: DTZ001 - the mistake itself
    ],
)
def test_a_request_that_cannot_be_met_is_refused(tmp_path: Path, asked: dict[str, object], message: str) -> None:
    path = written(tmp_path, frame())
    with pytest.raises(ConfigError, match=message):
        read_candle_file(path, **({"symbol": "BTC/USDT", "timeframe": "1m"} | asked))  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=300))
def test_a_csv_of_garbage_is_an_error_never_a_crash(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "garbage.csv"
    for content in (garbage, b"open_time,open,high,low,close,volume\n" + garbage):
        path.write_bytes(content)
        with pytest.raises(TradingError):
            read(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:8] + bytes(len(content) // 2) + content[8 + len(content) // 2 :],
        lambda content: content[:100] + content[300:],
        lambda _: b"PAR1" + b"PAR1",
        lambda _: b"PAR1" + b"\xff" * 200 + b"PAR1",
        lambda content: content[:-8] + b"\xff\xff\xff\x7fPAR1",
        lambda content: content[:-60] + b"x" * 52 + content[-8:],
    ],
    ids=["zeroed", "middle lost", "nothing inside", "garbage inside", "footer too long", "footer damaged"],
)
def test_a_damaged_parquet_is_an_error(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = written(tmp_path, frame())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MarketDataError) as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1


# --- the other sources ----------------------------------------------------------------------------------------------


def test_a_recorded_file_is_read_whole() -> None:
    path = reference_path("data/candles/binance-BTCUSDT-1h.parquet")
    found = load_candles(path, "BTC/USDT", "1h")
    facts = DataFacts.of(found)
    assert (facts.rows, facts.gaps, facts.candles_missing) == (58_419, 28, 128)
    assert max(gap.candles_missing for gap in found.gaps) == 33


async def test_the_database_gives_the_same_candles_as_the_file(tmp_path: Path) -> None:
    source = load_candles(written(tmp_path, frame()), "BTC/USDT", "1m")
    database = Database(f"sqlite:///{tmp_path / 'state.db'}")
    try:
        await database.init_tables()
        await database.upsert_candles(list(source.candles()))
        found = await read_database_candles(database, "BTC/USDT", "1m", START + 5 * MINUTE, START + 8 * MINUTE)
        with pytest.raises(ConfigError, match="holds no ETH/USDT 1m candles"):
            await read_database_candles(database, "ETH/USDT", "1m")
    finally:
        await database.close()
    expected = source.window(START + 5 * MINUTE, START + 8 * MINUTE)
    assert list(found.candles()) == list(expected.candles())
    assert found.history is not None
    assert expected.history is not None
    assert list(found.history.candles()) == list(expected.history.candles())


def test_the_database_source_needs_a_database() -> None:
    with pytest.raises(ConfigError, match="needs a database"):
        load_candles("db:", "BTC/USDT", "1m")

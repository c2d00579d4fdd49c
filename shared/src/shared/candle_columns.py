"""From a candle file's bytes to checked arrays: what `shared.candle_files` builds on.

Every refusal names the file, the row (Parquet, from 1) or line (CSV, the header is line 1), what was found
and what to do about it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from shared.errors import ConfigError, MarketDataError
from shared.models import TIMEFRAME_SECONDS, from_milliseconds, to_milliseconds

if TYPE_CHECKING:
    import polars as pl

COLUMNS = ("open_time", "open", "high", "low", "close", "volume")
PRICES = COLUMNS[1:5]
# money has 18 decimals: below the one a price has no digits left for its costs, above the other none is kept
PRICE_MIN, AMOUNT_MAX = 1e-12, 1e18
_MAGIC = b"PAR1"
_BOM = b"\xef\xbb\xbf"
_OTHER_NAMES = {"open_time": ("timestamp", "time", "date", "datetime", "ts"), "volume": ("vol", "base_volume")}
_UNIT_DIVISOR = {"ms": 1, "us": 1_000, "ns": 1_000_000}
# so many equal steps of a coarser timeframe in a row are another timeframe, not holes (5 is the most that the
# thinnest recorded stream at hand, 30 % of its minutes without a trade, holds)
COARSE_STEPS_MAX = 8


class CandleColumns(NamedTuple):
    """The six columns as arrays of one length."""

    open_time_ms: npt.NDArray[np.int64]
    open: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    close: npt.NDArray[np.float64]
    volume: npt.NDArray[np.float64]


class _Place(NamedTuple):
    """Names a row of the file in messages."""

    path: Path

    def __call__(self, index: int | np.integer) -> str:
        if self.path.suffix.lower() == ".csv":
            return f"{self.path}: line {int(index) + 2}"
        return f"{self.path}: row {int(index) + 1}"


def parse_columns(path: Path, content: bytes, *, symbol: str, timeframe: str) -> CandleColumns:
    """Return the checked columns in `content`, the bytes of the file at `path`."""
    frame = _frame(path, content)
    _check_names(path, frame.columns)
    if frame.height == 0:
        raise MarketDataError(f"{path}: has columns but no rows; nothing to work on")
    place = _Place(path)
    _check_labels(path, frame, symbol=symbol, timeframe=timeframe)
    times = _times(place, frame["open_time"])
    numbers = [_numbers(place, frame[name]) for name in COLUMNS[1:]]
    columns = CandleColumns(times, *numbers)
    _check_grid(place, times, timeframe)
    _check_order(place, times)
    _check_steps(place, times, timeframe)
    _check_values(place, columns)
    return columns


def shortest_step_ms(path: Path, content: bytes) -> int:
    """Return the shortest distance between two neighbouring open times in a file's bytes, in milliseconds."""
    frame = _frame(path, content)
    _check_names(path, frame.columns)
    place = _Place(path)
    times = _times(place, frame["open_time"])
    _check_order(place, times)
    if len(times) < 2:
        raise MarketDataError(f"{path}: {len(times)} candle(s) have no distance; give a file with more")
    return int(np.diff(times).min())


def _frame(path: Path, content: bytes) -> pl.DataFrame:
    import polars as pl

    try:
        if path.suffix.lower() == ".csv":
            if content.startswith(_MAGIC):
                raise MarketDataError(f"{path}: holds Parquet, not CSV; rename it to .parquet")
            text = content.removeprefix(_BOM)
            return pl.read_csv(io.BytesIO(text), infer_schema=False)
        if not (content.startswith(_MAGIC) and content.endswith(_MAGIC) and len(content) >= 12):
            cut = content.startswith(_MAGIC)
            fault = "is cut off: its footer is missing" if cut else "is not a Parquet file"
            raise MarketDataError(f"{path}: {fault} ({len(content):,} bytes); export or download it again")
        return pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise MarketDataError(f"{path}: cannot be read ({first_line}); export or download it again") from error


def _check_names(path: Path, found: list[str]) -> None:
    missing = [name for name in COLUMNS if name not in found]
    if not missing:
        return
    hints = [f"did you mean {near!r}?" for near in (_near(name, found) for name in missing) if near]
    if len(found) == 1 and any(mark in found[0] for mark in ";\t|"):
        hints = ["separate columns by commas"]
    raise ConfigError(
        f"{path}: column {', '.join(map(repr, missing))} is missing, found {', '.join(map(repr, found[:12]))}; "
        + (" ".join(hints) or f"needed: {', '.join(COLUMNS)}")
    )


def _near(name: str, found: Iterable[str]) -> str | None:
    by_form = {other.strip().lower().replace(" ", "_"): other for other in found if other not in COLUMNS}
    for form in (name, *_OTHER_NAMES.get(name, ())):
        if form in by_form:
            return by_form[form]
    near = get_close_matches(name, by_form, n=1)
    return by_form[near[0]] if near else None


def _check_labels(path: Path, frame: pl.DataFrame, *, symbol: str, timeframe: str) -> None:
    for name, wanted in (("symbol", symbol), ("timeframe", timeframe)):
        if name not in frame.columns:
            continue
        found = [str(value) for value in frame[name].unique(maintain_order=True).head(3)]
        if len(found) > 1:
            raise MarketDataError(f"{path}: holds several: {name} {', '.join(found)}; one {name} a file")
        if _bare(found[0]) != _bare(wanted):
            raise ConfigError(f"{path}: its {name} column says {found[0]!r}, asked was {wanted!r}; name the right one")


def _bare(label: str) -> str:
    return "".join(c for c in label if c.isalnum())


def _times(place: _Place, column: pl.Series) -> npt.NDArray[np.int64]:
    import polars as pl

    dtype = column.dtype
    _refuse_nulls(place, column)
    if isinstance(dtype, pl.Datetime):
        if dtype.time_zone is None:
            raise MarketDataError(
                f"{place.path}: open_time has no time zone, found {dtype}; store it with the zone UTC "
                "(polars: dt.replace_time_zone('UTC'))"
            )
        divisor = _UNIT_DIVISOR[dtype.time_unit]
        units = column.to_physical().to_numpy().astype(np.int64)  # instants: the zone only changes how they print
        odd = np.flatnonzero(units % divisor)
        if len(odd):
            raise MarketDataError(
                f"{place(odd[0])}: open_time {column[int(odd[0])]} is not a whole millisecond; cut the fraction off"
            )
        return units // divisor
    if dtype.is_integer():
        return _checked_epoch(place, column.cast(pl.Int64, strict=False).fill_null(-1).to_numpy().astype(np.int64))
    if dtype == pl.String:
        return _times_of_text(place, column)
    raise MarketDataError(f"{place.path}: open_time is {dtype}; store UTC times, ISO text or milliseconds since 1970")


def _times_of_text(place: _Place, column: pl.Series) -> npt.NDArray[np.int64]:
    import polars as pl

    numbers = column.cast(pl.Int64, strict=False)
    if numbers.null_count() == 0:
        return _checked_epoch(place, numbers.to_numpy().astype(np.int64))
    if numbers.null_count() < len(numbers):  # numbers all but this one
        raise _no_time(place, int(numbers.is_null().arg_max() or 0), column)
    times = np.empty(len(column), dtype=np.int64)
    for index, text in enumerate(column):
        try:
            moment = datetime.fromisoformat(text.strip())
            utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            raise _no_time(place, index, column) from None
        if utc.microsecond % 1000:
            raise MarketDataError(
                f"{place(index)}: open_time {text!r} is not a whole millisecond; cut the fraction off"
            )
        times[index] = to_milliseconds(utc)
    return times


def _no_time(place: _Place, index: int, column: pl.Series) -> MarketDataError:
    return MarketDataError(
        f"{place(index)}: open_time {column[index]!r} is no time; "
        "write 2024-01-31T23:59:00Z or milliseconds since 1970, one form in the whole file"
    )


def _checked_epoch(place: _Place, times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    ranges = (("seconds", 10**8, 10**11), ("microseconds", 10**14, 10**17), ("nanoseconds", 10**17, 2**63 - 1))
    bad = np.flatnonzero((times < 10**11) | (times >= 10**14))
    if len(bad) == 0:
        return times
    value = int(times[bad[0]])
    unit = next((name for name, low, high in ranges if low <= value < high), None)
    looks = f"looks like {unit}" if unit else "is none"
    raise MarketDataError(f"{place(bad[0])}: open_time {value} {looks}; expected milliseconds since 1970")


def _numbers(place: _Place, column: pl.Series) -> npt.NDArray[np.float64]:
    import polars as pl

    _refuse_nulls(place, column)
    dtype = column.dtype
    if not (dtype.is_numeric() or dtype == pl.String):
        raise MarketDataError(f"{place.path}: {column.name} is {dtype}; expected numbers")
    text = column.str.strip_chars() if dtype == pl.String else column
    numbers = text.cast(pl.Float64, strict=False)
    if numbers.null_count():
        index = int(numbers.is_null().arg_max() or 0)
        raise MarketDataError(f"{place(index)}: {column.name} {column[index]!r} is no number; mend or drop the row")
    return np.array(numbers.to_numpy(), dtype=np.float64)


def _refuse_nulls(place: _Place, column: pl.Series) -> None:
    if column.null_count():
        raise MarketDataError(
            f"{place(int(column.is_null().arg_max() or 0))}: {column.name} is missing; mend or drop the row"
        )


def _check_grid(place: _Place, times: npt.NDArray[np.int64], timeframe: str) -> None:
    step = TIMEFRAME_SECONDS[timeframe] * 1000
    odd = np.flatnonzero(times % step)
    if len(odd):
        raise MarketDataError(
            f"{place(odd[0])}: open_time {_iso(times[odd[0]])} is not on the {timeframe} grid"
            f"{_likely_timeframe(times, timeframe)}"
        )


def _check_order(place: _Place, times: npt.NDArray[np.int64]) -> None:
    bad = np.flatnonzero(np.diff(times) <= 0)
    if len(bad) == 0:
        return
    index = int(bad[0]) + 1
    if times[index] == times[index - 1]:
        raise MarketDataError(
            f"{place(index)}: open_time {_iso(times[index])} stands there twice; drop one of the rows"
        )
    raise MarketDataError(
        f"{place(index)}: open_time {_iso(times[index])} comes after {_iso(times[index - 1])}; sort the file by open_time"
    )


def _check_steps(place: _Place, times: npt.NDArray[np.int64], timeframe: str) -> None:
    """Refuse a coarser timeframe, wholly or from some row on: it would pass for a stream full of holes."""
    step = TIMEFRAME_SECONDS[timeframe] * 1000
    distances = np.diff(times)
    if len(distances) >= 2 and int(distances.min()) > step:
        hint = _likely_timeframe(times, timeframe)
        if hint:
            raise MarketDataError(f"{place.path}: no two candles lie {timeframe} apart{hint}")
    for name, seconds in TIMEFRAME_SECONDS.items():
        if seconds * 1000 <= step:
            continue
        row = _run_start(distances == seconds * 1000, COARSE_STEPS_MAX)
        if row is not None:
            raise MarketDataError(
                f"{place(row)}: mixed timeframes: from {_iso(times[row])} on the candles lie {name} apart, "
                f"not {timeframe}; split the file"
            )


def _run_start(flags: npt.NDArray[np.bool_], length: int) -> int | None:
    """Return where the first run of at least `length` true flags starts."""
    if int(flags.sum()) < length:
        return None
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    long = np.flatnonzero(ends - starts >= length)
    return int(starts[long[0]]) if len(long) else None


def _likely_timeframe(times: npt.NDArray[np.int64], asked: str) -> str:
    distances = np.abs(np.diff(times))
    if len(distances) == 0:
        return "; check the file's timeframe and its time zone"
    values, counts = np.unique(distances, return_counts=True)
    usual = int(values[counts.argmax()])
    for name, seconds in TIMEFRAME_SECONDS.items():
        if seconds * 1000 == usual and name != asked:
            return f"; the candles lie {name} apart: ask for timeframe {name}"
    return "" if usual > TIMEFRAME_SECONDS[asked] * 1000 else "; check the file's timeframe and its time zone"


def _check_values(place: _Place, columns: CandleColumns) -> None:
    for name in COLUMNS[1:]:
        values = getattr(columns, name)
        odd = np.flatnonzero(~np.isfinite(values))
        if len(odd):
            raise MarketDataError(f"{place(odd[0])}: {name} is {values[odd[0]]}; mend or drop the row")
        low = np.flatnonzero(values <= 0) if name in PRICES else np.flatnonzero(values < 0)
        if len(low):
            bound = "> 0" if name in PRICES else ">= 0"
            raise MarketDataError(
                f"{place(low[0])}: {name} must be {bound}, was {values[low[0]]}; mend or drop the row"
            )
        absurd = np.flatnonzero((values > AMOUNT_MAX) | ((values < PRICE_MIN) & (name in PRICES)))
        if len(absurd):
            raise MarketDataError(
                f"{place(absurd[0])}: {name} {values[absurd[0]]} is out of range, {PRICE_MIN} to {AMOUNT_MAX:g}; "
                "is it in another unit?"
            )
    crossed = np.flatnonzero(columns.high < columns.low)
    if len(crossed):
        row = crossed[0]
        raise MarketDataError(
            f"{place(row)}: high {columns.high[row]} is below low {columns.low[row]}; mend or drop the row"
        )


def _iso(milliseconds: int | np.integer) -> str:
    try:
        return f"{from_milliseconds(int(milliseconds)):%Y-%m-%d %H:%M:%S} UTC"
    except OverflowError:
        return f"{int(milliseconds)} ms"

"""Which candles may enter: pure checks, each refusal with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum

from data_collector.feeds.port import MalformedCandle, StreamKey
from shared.models import TIMEFRAME_SECONDS, Candle, to_milliseconds

EARLIEST_OPEN_TIME = datetime(2009, 1, 3, tzinfo=UTC)
LATEST_CLOSE_TIME = datetime(2100, 1, 1, tzinfo=UTC)
PAYLOAD_CHARACTERS_MAX = 500
VALUE_MAX = Decimal(10) ** 20  # what NUMERIC(38, 18) holds
UNIT_FACTOR_MAX = Decimal(10)  # ten times the last price is another unit, not a market
_ZERO = Decimal(0)
_SMALLEST = Decimal(10) ** -18  # a price below it would be stored as nothing
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CandleFault(StrEnum):
    """Why a candle went to the quarantine; the reason's text begins with one of these words."""

    UNKNOWN_STREAM = "unknown_stream"
    NOT_A_NUMBER = "not_a_number"
    PRICE_NOT_POSITIVE = "price_not_positive"
    HIGH_BELOW_LOW = "high_below_low"
    OUTSIDE_RANGE = "outside_range"
    VOLUME_NEGATIVE = "volume_negative"
    VALUE_TOO_LARGE = "value_too_large"
    OFF_GRID = "off_grid"
    TIME_OUT_OF_RANGE = "time_out_of_range"
    NOT_YET_CLOSED = "not_yet_closed"
    PRICE_JUMP = "price_jump"


QUARANTINE_REASONS = (*CandleFault, "unreadable")  # the last is a frame that is no candle at all


@dataclass(frozen=True, slots=True)
class ValidationRules:
    """The bounds of a run; `streams` None lets every symbol in a known timeframe enter.

    `price_jump_factor_max` compares open and close with the stream's last accepted close: beyond the factor, up or
    down, a candle is held for a different unit or a stray print. The next candle that agrees with it (within the
    same factor) shows that the market did move, and is let in; the first one stays in the quarantine.
    """

    streams: frozenset[StreamKey] | None = None
    price_jump_factor_max: Decimal = UNIT_FACTOR_MAX


class CandleValidator:
    """Checks candles one by one; it remembers each stream's last close, nothing else."""

    def __init__(self, rules: ValidationRules, last_closes: Mapping[StreamKey, Decimal] | None = None) -> None:
        self._streams = rules.streams
        self._closes: dict[tuple[str, str], Decimal] = {}
        for stream, close in (last_closes or {}).items():
            self._closes[stream] = close
        self._suspects: dict[tuple[str, str], Decimal] = {}
        self._factor = rules.price_jump_factor_max

    def fault(self, candle: Candle, closed_before: datetime | None = None) -> str | None:
        """Return why `candle` may not enter, None when it may.

        Parameters
        ----------
        candle : Candle
            Any values; NaN and infinities are faults, never errors.
        closed_before : datetime, optional
            The source's time: a candle that closes later is not closed yet. None (replay, simulation): business
            time is what the candles say, and only the range 2009 to 2100 is checked.

        Returns
        -------
        str or None
            A `CandleFault` word, a colon and what was found.
        """
        stream = (candle.symbol, candle.timeframe)
        seconds = TIMEFRAME_SECONDS.get(candle.timeframe)
        if seconds is None or (self._streams is not None and stream not in self._streams):
            return f"{CandleFault.UNKNOWN_STREAM}: {candle.symbol} {candle.timeframe} is not collected here"
        reason = _value_fault(candle) or _time_fault(candle.open_time, seconds, candle, closed_before)
        if reason is not None:
            return reason
        return self._jump_fault(stream, candle)

    def split(
        self, candles: Iterable[Candle], closed_before: datetime | None = None
    ) -> tuple[list[Candle], list[MalformedCandle]]:
        """Return the candles that may enter, in their order, and the others with their reasons."""
        good: list[Candle] = []
        bad: list[MalformedCandle] = []
        for candle in candles:
            reason = self.fault(candle, closed_before)
            if reason is None:
                good.append(candle)
            else:
                bad.append(malformed(candle, reason))
        return good, bad

    def _jump_fault(self, stream: tuple[str, str], candle: Candle) -> str | None:
        close = candle.close
        last = self._closes.get(stream)
        if last is not None and not self._near(last, candle):
            suspect = self._suspects.get(stream)
            if suspect is None or not self._near(suspect, candle):
                self._suspects[stream] = close
                return (
                    f"{CandleFault.PRICE_JUMP}: open {candle.open:f}, close {close:f} after a close of {last:f} "
                    f"(more than {self._factor:f} times); wrong units or a stray price"
                )
        if self._suspects:
            self._suspects.pop(stream, None)
        self._closes[stream] = close
        return None

    def _near(self, last: Decimal, candle: Candle) -> bool:
        upper, lower = last * self._factor, last / self._factor
        return lower <= candle.open <= upper and lower <= candle.close <= upper


def own_fault(candle: Candle) -> str | None:
    """Return what is wrong with a candle taken by itself: its values, its times; None when nothing is."""
    seconds = TIMEFRAME_SECONDS.get(candle.timeframe)
    if seconds is None:
        return f"{CandleFault.UNKNOWN_STREAM}: {candle.timeframe} is no timeframe"
    return _value_fault(candle) or _time_fault(candle.open_time, seconds, candle, None)


def malformed(candle: Candle, reason: str) -> MalformedCandle:
    """Return the record of a candle that may not enter."""
    return MalformedCandle(f"{candle.symbol} {candle.timeframe}", describe(candle), reason)


def describe(candle: Candle) -> str:
    """Return a candle's values as a bounded line of text, for the quarantine."""
    return (
        f"{candle.open_time.isoformat()} open={candle.open} high={candle.high} low={candle.low} "
        f"close={candle.close} volume={candle.volume}"
    )[:PAYLOAD_CHARACTERS_MAX]


def _value_fault(candle: Candle) -> str | None:
    low, high = candle.low, candle.high
    try:
        if (
            _SMALLEST <= low <= candle.open <= high < VALUE_MAX
            and low <= candle.close <= high
            and _ZERO <= candle.volume < VALUE_MAX
        ):
            return None
    except InvalidOperation:  # an ordered comparison with NaN
        pass
    return _name_value_fault(candle)


def _name_value_fault(candle: Candle) -> str:
    prices = {"open": candle.open, "high": candle.high, "low": candle.low, "close": candle.close}
    values = {**prices, "volume": candle.volume}
    for name, value in values.items():
        if not value.is_finite():
            return f"{CandleFault.NOT_A_NUMBER}: {name} is {value}"
    for name, value in prices.items():
        if value < _SMALLEST:
            return f"{CandleFault.PRICE_NOT_POSITIVE}: {name} is {value}"
    for name, value in values.items():
        if value >= VALUE_MAX:
            return f"{CandleFault.VALUE_TOO_LARGE}: {name} is {value}"
    if candle.volume < 0:
        return f"{CandleFault.VOLUME_NEGATIVE}: volume is {candle.volume}"
    if candle.high < candle.low:
        return f"{CandleFault.HIGH_BELOW_LOW}: high {candle.high:f} < low {candle.low:f}"
    return (
        f"{CandleFault.OUTSIDE_RANGE}: open {candle.open:f} or close {candle.close:f} "
        f"outside low {candle.low:f} to high {candle.high:f}"
    )


def _time_fault(open_time: datetime, seconds: int, candle: Candle, closed_before: datetime | None) -> str | None:
    if not EARLIEST_OPEN_TIME <= open_time < LATEST_CLOSE_TIME:
        return (
            f"{CandleFault.TIME_OUT_OF_RANGE}: open_time {open_time.isoformat()} is not within 2009 to 2100; "
            "seconds, milliseconds or microseconds mixed up?"
        )
    since = open_time - _EPOCH
    if since.microseconds or (since.days * 86_400 + since.seconds) % seconds:
        return f"{CandleFault.OFF_GRID}: open_time {open_time.isoformat()} is no multiple of {candle.timeframe}"
    if closed_before is not None and candle.close_time > closed_before:
        late_ms = to_milliseconds(candle.close_time) - to_milliseconds(closed_before)
        return f"{CandleFault.NOT_YET_CLOSED}: closes {late_ms} ms after the source's time {closed_before.isoformat()}"
    return None

"""Which close times are complete: pure, so that waiting for a silent stream can be tested without waiting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from shared.models import TIMEFRAME_DELTA, Candle, from_milliseconds, to_milliseconds

Stream = tuple[str, str]
EPOCH = from_milliseconds(0)


class WaitingRoom:
    """Live close times that still miss a stream, and since when (machine time) each has been waited for."""

    def __init__(self, streams: Iterable[Stream], wait_seconds: float) -> None:
        self._widths = {stream: to_milliseconds(EPOCH + TIMEFRAME_DELTA[stream[1]]) for stream in streams}
        self._wait_seconds = wait_seconds
        self._since: dict[datetime, float] = {}
        self._newest: dict[Stream, datetime] = {}

    def complete_until(self, candles: Sequence[Candle], now: float) -> datetime | None:
        """Return the last close time that may be handled now; None while the first one is still waited for."""
        for candle in candles:
            stream, close_time = (candle.symbol, candle.timeframe), candle.close_time
            if close_time > self._newest.get(stream, candle.open_time):
                self._newest[stream] = close_time
            self._since.setdefault(close_time, now)
        until: datetime | None = None
        for close_time in sorted({candle.close_time for candle in candles}):
            if not self._is_complete(close_time) and now - self._since[close_time] < self._wait_seconds:
                break
            until = close_time
        return until

    def handled(self, until: datetime) -> None:
        """Forget close times up to `until`."""
        self._since = {close_time: since for close_time, since in self._since.items() if close_time > until}

    def _is_complete(self, close_time: datetime) -> bool:
        """Return whether every stream that has a candle closing at `close_time` has come that far."""
        moment = to_milliseconds(close_time)
        return all(
            self._newest.get(stream, EPOCH) >= close_time
            for stream, width in self._widths.items()
            if moment % width == 0
        )

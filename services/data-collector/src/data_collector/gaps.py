"""What is missing from a stream: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from data_collector.feeds.port import CandleGap, StreamKey
from shared.models import TIMEFRAME_DELTA, Candle


def find_gap(stream: StreamKey, last_open_time: datetime, next_open_time: datetime) -> CandleGap | None:
    """Return the hole between two candles of a stream.

    Parameters
    ----------
    stream : StreamKey
        Symbol and timeframe; the timeframe says how far two neighbours lie apart.
    last_open_time, next_open_time : datetime
        Aware UTC, on the timeframe's grid.

    Returns
    -------
    CandleGap or None
        None for neighbours, duplicates and older candles.

    Example: 1m, 10:00 then 10:03 -> 10:01 to 10:03, 2 candles missing.
    """
    step = TIMEFRAME_DELTA[stream.timeframe]
    missing = (next_open_time - last_open_time) // step - 1
    if missing < 1:
        return None
    return CandleGap(stream, last_open_time + step, next_open_time, missing)


def find_gaps(stream: StreamKey, last_open_time: datetime | None, candles: Iterable[Candle]) -> list[CandleGap]:
    """Return the holes between candles of one stream that follow `last_open_time`, oldest first."""
    gaps = []
    for candle in candles:
        gap = None if last_open_time is None else find_gap(stream, last_open_time, candle.open_time)
        if gap is not None:
            gaps.append(gap)
        last_open_time = candle.open_time
    return gaps


def judge_gaps(gaps: Iterable[CandleGap], confirmed: Iterable[CandleGap]) -> tuple[CandleGap, ...]:
    """Return a live feed's holes: those the venue confirmed, and unconfirmed what the quarantine tore open."""
    facts = {(gap.stream, gap.start_time) for gap in confirmed}
    return tuple(
        CandleGap(gap.stream, gap.start_time, gap.end_time, gap.candles_missing, (gap.stream, gap.start_time) in facts)
        for gap in gaps
    )


class GapTracker:
    """Follows each stream's newest candle and names the holes between candles that are ahead of it."""

    def __init__(self, open_times: Mapping[StreamKey, datetime]) -> None:
        self._last = {(symbol, timeframe): moment for (symbol, timeframe), moment in open_times.items()}

    def last_open_time(self, stream: StreamKey) -> datetime | None:
        """Return the newest open time seen of a stream."""
        return self._last.get(stream)

    def advance(self, candles: Iterable[Candle]) -> tuple[list[CandleGap], dict[StreamKey, datetime]]:
        """Take validated candles; return the holes found and the open times of the streams that moved.

        Duplicates and candles older than the newest of their stream move nothing.
        """
        gaps: list[CandleGap] = []
        moved: dict[tuple[str, str], datetime] = {}
        last_of = self._last
        for candle in candles:
            stream = (candle.symbol, candle.timeframe)  # a plain pair: a named one for each candle takes longer
            open_time = candle.open_time
            last = last_of.get(stream)
            if last is not None:
                if open_time <= last:
                    continue
                if open_time - last != TIMEFRAME_DELTA[stream[1]]:
                    gap = find_gap(StreamKey(*stream), last, open_time)
                    if gap is not None:
                        gaps.append(gap)
            last_of[stream] = moved[stream] = open_time
        return gaps, {StreamKey(*stream): open_time for stream, open_time in moved.items()}

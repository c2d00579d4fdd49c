"""A stream that is connected but silent is noticed, by the venue's own time."""

from __future__ import annotations

from data_collector.feeds.binance.watch import StreamWatch
from data_collector.feeds.port import StreamKey

MINUTE = StreamKey("BTC/USDT", "1m")
QUIET = StreamKey("ETH/USDT", "1m")
DAY = StreamKey("BTC/USDT", "1d")


def watch_from(*streams: StreamKey) -> StreamWatch:
    watch = StreamWatch(30.0)
    for stream in streams:
        watch.start(stream, 0.0)
    return watch


def test_a_stream_may_be_quiet_until_its_candle_has_closed() -> None:
    watch = watch_from(MINUTE)
    assert watch.silent(69.0) == []
    assert watch.silent(71.0) == [MINUTE]


def test_one_silent_stream_is_named_while_the_others_speak() -> None:
    watch = watch_from(MINUTE, QUIET)
    for second in range(0, 80, 2):
        watch.heard(MINUTE, float(second))
    assert watch.silent(80.0) == [QUIET]


def test_a_stream_that_speaks_every_two_seconds_is_missed_after_the_bound_however_long_its_candles() -> None:
    watch = watch_from(DAY)
    for second in range(0, 100, 2):
        watch.heard(DAY, float(second))
    assert watch.silent(98.0 + 39.0) == []
    assert watch.silent(98.0 + 41.0) == [DAY]


def test_a_stream_that_always_was_slow_is_given_more_time() -> None:
    watch = watch_from(DAY)
    for second in range(0, 2000, 200):
        watch.heard(DAY, float(second))
    assert watch.silent(1800.0 + 3000.0) == []


def test_repeated_old_frames_are_silence() -> None:
    watch = watch_from(MINUTE)
    for _ in range(10):
        watch.heard(MINUTE, 1.0)
    assert watch.silent(72.0) == [MINUTE]


def test_a_stream_that_stays_silent_is_suspected_less_and_less_often() -> None:
    watch = watch_from(MINUTE)
    watch.suspected(MINUTE)
    watch.start(MINUTE, 71.0)
    assert watch.silent(71.0 + 139.0) == []
    assert watch.silent(71.0 + 141.0) == [MINUTE]
    watch.heard(MINUTE, 300.0)
    assert watch.silent(371.0) == [MINUTE]

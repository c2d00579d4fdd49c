"""Who may speak live: an instance that was fed the past it needs, about candles of the present."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from shared.live_history import needed_history, read_live_from
from shared.models import Candle, InstanceKey, Signal
from shared.strategy_runner import StrategyRunner

Stream = tuple[str, str]


class LiveGate:
    """Keeps instances of a live feed silent over history, and until what they need lies behind them.

    Each is fed every candle all the same. Once open for an instance the gate stays open: from then on only holes
    that the venue confirmed can lie in its past.
    """

    def __init__(self, runners: Iterable[StrategyRunner]) -> None:
        self._runners = {runner.key: runner for runner in runners}
        self._first: dict[Stream, datetime] = {}
        self._live_from: dict[Stream, datetime] = {}
        self._open: set[InstanceKey] = set()
        self.silenced_total = 0

    @property
    def streams(self) -> list[Stream]:
        """Return every stream that somebody listens to, sorted."""
        return sorted({(key.symbol, key.timeframe) for key in self._runners})

    def asks_about(self, candles: Iterable[Candle]) -> list[Stream]:
        """Return the streams among `candles` of which the end of the history is not known; also note what is fed."""
        streams: set[Stream] = set()
        for candle in candles:
            stream = (candle.symbol, candle.timeframe)
            self.reaches_back(stream, candle.open_time)
            streams.add(stream)
        return sorted(streams - self._live_from.keys())

    def take_cursors(self, streams: Iterable[Stream], cursors: Mapping[str, str]) -> None:
        """Take the collector's word on where the history of streams ends that have candles already."""
        for stream in streams:
            moment = read_live_from(cursors, stream)
            if moment is not None:
                self._live_from[stream] = moment

    def reaches_back(self, stream: Stream, first_open_time: datetime) -> None:
        """Note that a stream's candles from `first_open_time` on have been fed."""
        self._first[stream] = min(first_open_time, self._first.get(stream, first_open_time))

    def speaking(self, signals: Sequence[Signal]) -> list[Signal]:
        """Return those signals that count."""
        heard = [signal for signal in signals if self._may_speak(signal)]
        self.silenced_total += len(signals) - len(heard)
        return heard

    def silences(self, now: datetime) -> dict[InstanceKey, str]:
        """Return the instances that may not speak at `now`, each with the reason."""
        told: dict[InstanceKey, str] = {}
        for key, runner in sorted(self._runners.items()):
            if key in self._open or runner.fault:
                continue
            stream = (key.symbol, key.timeframe)
            why = self._lack(runner, now) if stream in self._live_from else "its history is being loaded"
            if why:
                told[key] = f"silent, {why}"
            else:
                self._open.add(key)
        return told

    def _may_speak(self, signal: Signal) -> bool:
        key = signal.instance
        runner, live_from = self._runners.get(key), self._live_from.get((key.symbol, key.timeframe))
        if runner is None or live_from is None:
            return False
        if signal.candle_open_time is not None and signal.candle_open_time <= live_from:
            return False
        if key not in self._open and not self._lack(runner, signal.created_at):
            self._open.add(key)
        return key in self._open

    def _lack(self, runner: StrategyRunner, now: datetime) -> str:
        """Return what an instance still lacks at `now`; "" when nothing."""
        key = runner.key
        history = needed_history(runner.strategy, now)
        start, first = history.start(now, key.timeframe), self._first.get((key.symbol, key.timeframe))
        if first is not None and first <= start:
            return ""
        has = f"has them since {first:%Y-%m-%d %H:%M}" if first is not None else "has none"
        note = f" ({history.note})" if history.note else ""
        return f"it needs candles since {start:%Y-%m-%d %H:%M} UTC and {has}{note}"

"""Strategies over candles: a pure order of business, and the bus-only loop for use without a database."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from datetime import timedelta

from shared.broker import Broker
from shared.domain.matching import signal_age_max
from shared.events import SIGNAL_STREAM, SignalEvent
from shared.models import Candle, InstanceKey, Signal
from shared.strategy import BaseStrategy
from shared.strategy_runner import InstanceStamp, StrategyRunner

READ_COUNT = 500
Stream = tuple[str, str]


class StrategyEngine:
    """One runner per (strategy, symbol, timeframe); streams it was not told of get fresh copies of `strategies`."""

    def __init__(
        self,
        broker: Broker,
        strategies: Iterable[BaseStrategy] = (),
        *,
        runners: Iterable[StrategyRunner] = (),
        age_max: timedelta | None = None,
    ) -> None:
        self._broker = broker
        self._templates = sorted(strategies, key=lambda strategy: strategy.name)
        self._age_max = age_max
        self._by_stream: dict[Stream, list[StrategyRunner]] = {}
        for runner in sorted(runners, key=lambda runner: runner.key):
            self._by_stream.setdefault((runner.key.symbol, runner.key.timeframe), []).append(runner)

    @property
    def runners(self) -> list[StrategyRunner]:
        """Return every instance in business order."""
        return [runner for _, runners in sorted(self._by_stream.items()) for runner in runners]

    def handle(self, candles: Sequence[Candle]) -> list[Signal]:
        """Return the signals of candles that are in business order: close time, symbol, timeframe, then strategy."""
        signals = []
        for candle in candles:
            for runner in self._runners_of((candle.symbol, candle.timeframe)):
                signal = runner.feed(candle)
                if signal is not None:
                    signals.append(signal)
        return signals

    async def process_once(self, stream: str, last_id: str) -> str:
        """Read candles of `stream` after `last_id`, publish their signals, return the last id; no database is asked."""
        messages = await self._broker.read(stream, last_id, count=READ_COUNT)
        for message in messages:
            event = message.event
            if event is None or not isinstance(event.data, Candle):
                reason = message.error or f"{stream}: expected a candle, was {event.type if event else 'nothing'}"
                await self._broker.dead_letter(message, "strategy-engine", reason)
                continue
            signals = self.handle([event.data])
            for signal in signals:
                await self._broker.publish(SIGNAL_STREAM, signal_event(signal, event.correlation_id))
        return messages[-1].id if messages else last_id

    def _runners_of(self, stream: Stream) -> list[StrategyRunner]:
        runners = self._by_stream.get(stream)
        if runners is None:
            stamp = InstanceStamp(age_max=signal_age_max(stream[1], self._age_max))
            runners = []
            for template in self._templates:
                strategy = copy.deepcopy(template)
                strategy.reset()
                runners.append(StrategyRunner(InstanceKey(strategy.name, *stream), strategy, stamp))
            self._by_stream[stream] = runners
        return runners


def signal_event(signal: Signal, correlation_id: str = "") -> SignalEvent:
    """Return a signal's envelope: the signal's id is the event's, so a repeated signal is the same message."""
    return SignalEvent(data=signal, as_of=signal.created_at, id=signal.id, correlation_id=correlation_id or signal.id)

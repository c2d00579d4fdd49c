"""Strategies over candles: a pure order of business, and the bus-only loop for use without a database."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from shared.broker import Broker, Message
from shared.domain.matching import signal_age_max
from shared.events import SIGNAL_STREAM, SignalEvent, correlation_of
from shared.models import TIMEFRAME_DELTA, Candle, InstanceKey, Signal
from shared.strategy import BaseStrategy
from shared.strategy_runner import CALL_SECONDS_MAX, InstanceStamp, StrategyRunner
from shared.watchdog import CallGuard

READ_COUNT = 500
STREAMS_MAX = 1_000
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
        guard: CallGuard | None = None,
    ) -> None:
        self._broker = broker
        self._guard = guard or CallGuard(CALL_SECONDS_MAX)
        self._templates = sorted(strategies, key=lambda strategy: strategy.name)
        self._age_max = age_max
        self._by_stream: dict[Stream, list[StrategyRunner]] = {}
        self._open_times: dict[Stream, datetime] = {}
        self._unsent: list[SignalEvent] = []
        for runner in sorted(runners, key=lambda runner: runner.key):
            self._by_stream.setdefault((runner.key.symbol, runner.key.timeframe), []).append(runner)

    @property
    def runners(self) -> list[StrategyRunner]:
        """Return every instance in business order."""
        return [runner for _, runners in sorted(self._by_stream.items()) for runner in runners]

    def handle(self, candles: Sequence[Candle]) -> list[Signal]:
        """Return the signals of candles that are in business order: close time, symbol, timeframe, then strategy."""
        signals = []
        with self._guard:
            for candle in candles:
                for runner in self._runners_of((candle.symbol, candle.timeframe)):
                    signal = runner.feed(candle)
                    if signal is not None:
                        signals.append(signal)
        return signals

    async def process_once(self, stream: str, last_id: str) -> str:
        """Read candles of `stream` after `last_id`, publish their signals, return the last id; no database is asked."""
        await self._send()
        messages = await self._broker.read(stream, last_id, count=READ_COUNT)
        for message in messages:
            refusal = self._take(message)
            if refusal:
                await self._broker.dead_letter(message, "strategy-engine", refusal)
        await self._send()
        return messages[-1].id if messages else last_id

    def _take(self, message: Message) -> str:
        """Handle one message, or return why it cannot be one; a repeated or late candle is left out."""
        event = message.event
        if event is None:
            return message.error or "unreadable"
        candle = event.data
        if not isinstance(candle, Candle):
            return f"{message.stream}: expected a candle, was {event.type}"
        stream = (candle.symbol, candle.timeframe)
        if candle.timeframe not in TIMEFRAME_DELTA:
            return f"{message.stream}: timeframe {candle.timeframe!r} is unknown"
        if stream not in self._by_stream and len(self._by_stream) >= STREAMS_MAX:
            return f"{message.stream}: {STREAMS_MAX} streams are served already"
        last = self._open_times.get(stream)
        if last is None or candle.open_time > last:
            self._open_times[stream] = candle.open_time
            self._unsent += [signal_event(signal, event.correlation_id) for signal in self.handle([candle])]
        return ""

    async def _send(self) -> None:
        """Publish what was said; a signal that the bus did not take is sent the next time."""
        while self._unsent:
            await self._broker.publish(SIGNAL_STREAM, self._unsent[0])
            del self._unsent[0]

    def _runners_of(self, stream: Stream) -> list[StrategyRunner]:
        runners = self._by_stream.get(stream)
        if runners is None:
            stamp = InstanceStamp(age_max=signal_age_max(stream[1], self._age_max))
            runners = []
            for template in self._templates:
                has_own_params = stream[0] in template.symbol_params
                strategy = template.for_symbol(stream[0]) if has_own_params else copy.deepcopy(template)
                strategy.reset()
                runners.append(StrategyRunner(InstanceKey(strategy.name, *stream), strategy, stamp, guard=self._guard))
            self._by_stream[stream] = runners
        return runners


def signal_event(signal: Signal, correlation_id: str = "") -> SignalEvent:
    """Return a signal's envelope: the signal's id is the event's, so a repeated signal is the same message."""
    origin = correlation_id or correlation_of(signal)
    return SignalEvent(data=signal, as_of=signal.created_at, id=signal.id, correlation_id=origin)

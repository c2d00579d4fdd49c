"""When a stream that is connected counts as silent: pure, on event time."""

from __future__ import annotations

from dataclasses import dataclass

from data_collector.feeds.port import StreamKey
from shared.models import TIMEFRAME_SECONDS

GRACE_SECONDS = 10.0
USUAL_PAUSES = 20.0  # a pause this many times the usual one is no longer usual
PATIENCE_MAX = 4096.0
PATIENCE_SECONDS_MAX = 3600.0
_MEMORY = 0.9


@dataclass(slots=True)
class _Stream:
    last_event: float  # seconds of the venue's clock; when watching began, before the first frame
    has_spoken: bool = False
    usual_pause: float = 0.0
    patience: float = 1.0


class StreamWatch:
    """Follows the event times of many streams of one connection after another.

    A stream speaks at the latest when its candle closes, so it may be quiet for one timeframe and a grace. One that
    usually speaks often is suspected earlier: after twenty of its usual pauses, but not before `silence_seconds_max`.
    Each time it was suspected in vain (connected anew and silent still) it gets twice as long, up to an hour more.
    """

    def __init__(self, silence_seconds_max: float) -> None:
        self._silence_seconds_max = silence_seconds_max
        self._streams: dict[StreamKey, _Stream] = {}

    def start(self, stream: StreamKey, now: float) -> None:
        """Begin to expect a stream, or expect it anew after a reconnect."""
        known = self._streams.get(stream)
        if known is None:
            self._streams[stream] = _Stream(now)
        else:
            known.last_event = max(known.last_event, now)

    def heard(self, stream: StreamKey, event_time: float) -> None:
        """Note a frame by the venue's own time; an older one than the last says nothing."""
        state = self._streams.setdefault(stream, _Stream(event_time))
        pause = event_time - state.last_event
        if pause <= 0 and state.has_spoken:
            return
        if state.has_spoken:
            state.usual_pause = max(pause, state.usual_pause * _MEMORY)
        state.last_event = max(state.last_event, event_time)
        state.has_spoken = True
        state.patience = 1.0

    def silent(self, now: float) -> list[StreamKey]:
        """Return the streams that should have spoken by `now`, the venue's time, sorted."""
        return sorted(stream for stream, state in self._streams.items() if now - state.last_event > self._bound(stream))

    def suspected(self, stream: StreamKey) -> None:
        """Note that a silent stream is being connected anew: it gets longer the next time."""
        self._streams[stream].patience = min(2 * self._streams[stream].patience, PATIENCE_MAX)

    def _bound(self, stream: StreamKey) -> float:
        state = self._streams[stream]
        latest = TIMEFRAME_SECONDS[stream.timeframe] + GRACE_SECONDS
        if state.usual_pause > 0:
            latest = min(latest, max(self._silence_seconds_max, USUAL_PAUSES * state.usual_pause))
        return latest + min(latest * (state.patience - 1), PATIENCE_SECONDS_MAX)

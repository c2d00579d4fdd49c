"""Publishes frames, and lets happen to them what the faults say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paper_exchange.faults.board import FaultBoard, Moment
from paper_exchange.faults.malformed import spoil
from paper_exchange.faults.plan import Fault
from paper_exchange.streams.hub import EventMaker, StreamHub

HELD_MAX = 10_000
HOLES_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Frame:
    """One event of one stream, about the candle number `candle` since the run began."""

    stream: str
    make: EventMaker
    candle: int
    is_closed: bool = False


@dataclass(slots=True)
class _Held:
    frame: Frame
    after: int


class FramePublisher:
    """Sends frames to who hears them, some of them late, twice, spoiled or never.

    `holes` are the closed candles, by stream and open time (ms), that the exchange has lost: REST lacks them too.
    """

    def __init__(self, hub: StreamHub, board: FaultBoard, seconds: Callable[[], float]) -> None:
        self._hub, self._board, self._seconds = hub, board, seconds
        self._held: dict[str, list[_Held]] = {}
        self._spoiled = 0
        self.holes: set[tuple[str, int]] = set()

    def publish(self, frame: Frame) -> None:
        """Send one frame."""
        moment = Moment(frame.candle, self._seconds())
        faults = {
            fault.kind: fault for fault in self._board.of_stream(frame.stream, is_closed=frame.is_closed, moment=moment)
        }
        if "hole" in faults and len(self.holes) < HOLES_MAX:
            self.holes.add((frame.stream, int(frame.make(1)["k"]["t"])))
            return
        if "silence" in faults:
            return
        held = "reorder" in faults and self._hold(frame, faults["reorder"])
        if not held:
            self._send(frame, faults)
        self._release(frame.stream)

    def _send(self, frame: Frame, faults: dict[str, Fault]) -> None:
        drop = faults.get("drop")
        malformed = faults.get("malformed")
        if malformed is not None:
            self._send_spoiled(frame, malformed["form"])
        if not (malformed is not None and malformed["instead"]) and (drop is None or drop["delivered"]):
            make = _closed_early(frame.make) if "early_close" in faults else frame.make
            for _ in range(1 + (faults["duplicate"]["copies"] if "duplicate" in faults else 0)):
                self._hub.publish(frame.stream, make)
        if "shutdown" in faults:
            self._hub.shut_down(frame.stream, frame.make(1)["E"])
        if drop is not None:
            self._hub.hang_up(frame.stream, drop["code"])

    def _send_spoiled(self, frame: Frame, form: str) -> None:
        number, self._spoiled = self._spoiled, self._spoiled + 1
        self._hub.publish(frame.stream, frame.make, lambda text: spoil(text, form, number))

    def _hold(self, frame: Frame, fault: Fault) -> bool:
        waiting = self._held.setdefault(frame.stream, [])
        if len(waiting) >= HELD_MAX:
            return False
        waiting.append(_Held(frame, fault["by"] + 1))
        return True

    def _release(self, stream: str) -> None:
        """Count one frame for those that wait, and send what has waited long enough."""
        waiting = self._held.get(stream, [])
        for held in waiting:
            held.after -= 1
        for held in [held for held in waiting if held.after <= 0]:
            waiting.remove(held)
            self._hub.publish(stream, held.frame.make)


def _closed_early(make: EventMaker) -> EventMaker:
    def changed(ticks: int) -> dict[str, Any]:
        event: dict[str, Any] = make(ticks)
        event["k"]["x"] = True
        return event

    return changed

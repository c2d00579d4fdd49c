"""Versioned envelopes for everything that crosses the bus."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Self, Union

import msgspec

from shared.clock import random_id
from shared.errors import MalformedMessage
from shared.models import TIMEFRAME_DELTA, Candle, Order, Signal, to_milliseconds, to_utc

EVENT_VERSION = 1


class EventType(StrEnum):
    """What an envelope carries."""

    CANDLE = "candle"
    CANDLE_OPENED = "candle_opened"
    SIGNAL = "signal"
    ORDER = "order"
    WATERMARK = "watermark"


class CandleOpened(msgspec.Struct, frozen=True, kw_only=True):
    """The first frame of a new candle: its open is known; only venues and stops may see it."""

    symbol: str
    timeframe: str
    open_time: datetime
    open: str


class Watermark(msgspec.Struct, frozen=True, kw_only=True):
    """A service has handled everything up to the envelope's `as_of`; the collector says when (machine time)."""

    service: str
    announced_at: datetime | None = None


_PAYLOADS: dict[EventType, type[msgspec.Struct]] = {
    EventType.CANDLE: Candle,
    EventType.CANDLE_OPENED: CandleOpened,
    EventType.SIGNAL: Signal,
    EventType.ORDER: Order,
    EventType.WATERMARK: Watermark,
}
_TYPES = {payload: event_type for event_type, payload in _PAYLOADS.items()}


class _Envelope(msgspec.Struct):
    """What is read before the payload's type is known."""

    version: int
    type: str
    id: str
    data: msgspec.Raw
    as_of: datetime | None = None
    correlation_id: str = ""


class _Sent(msgspec.Struct, gc=False):
    """What goes on the wire."""

    version: int
    type: str
    id: str
    as_of: datetime | None
    correlation_id: str
    data: Any


_encode = msgspec.json.Encoder().encode
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    kind.value: msgspec.json.Decoder(payload) for kind, payload in _PAYLOADS.items()
}


def _whole_message(kind: EventType, payload: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return an envelope that knows its payload, so that a sound message is read in one go."""
    fields: list[Any] = [
        ("version", int),
        ("id", str),
        ("data", payload),
        ("as_of", datetime | None, None),
        ("correlation_id", str, ""),
    ]
    return msgspec.defstruct(f"_{payload.__name__}Message", fields, tag_field="type", tag=kind.value)


_KIND_OF = {_whole_message(kind, payload): kind for kind, payload in _PAYLOADS.items()}
_WHOLE: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Union[tuple(_KIND_OF)])  # noqa: UP007 - made of a tuple


class Event:
    """An envelope: type, data, the business time `as_of` that caused it, and a correlation id from candle to fill."""

    __slots__ = ("as_of", "correlation_id", "data", "id", "type")

    data: Any

    def __init__(
        self,
        *,
        data: Any,
        type: EventType | None = None,
        as_of: datetime | None = None,
        correlation_id: str = "",
        id: str | None = None,
    ) -> None:
        own = _TYPES.get(data.__class__)
        kind = type if type is not None else own
        if kind is None or (kind is not own and not isinstance(data, _PAYLOADS[kind])):
            raise TypeError(f"no event carries a {data.__class__.__name__} as {kind}")
        self.type = kind
        self.data = data
        self.as_of = to_utc(as_of, "as_of") if as_of is not None else _business_time(data)
        self.id = id or random_id()
        self.correlation_id = correlation_id or self.id

    def to_dict(self) -> dict[str, Any]:
        """Return the envelope as plain JSON types."""
        return {
            "version": EVENT_VERSION,
            "type": self.type.value,
            "id": self.id,
            "as_of": self.as_of.isoformat() if self.as_of else None,
            "correlation_id": self.correlation_id,
            "data": msgspec.to_builtins(self.data),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Return the event in `raw`; anything unknown or malformed is a `MalformedMessage`."""
        try:
            return cls._from_dict(raw)
        except MalformedMessage:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise MalformedMessage(f"event: cannot be read ({error}); it goes to the dead letters") from error

    @classmethod
    def _from_dict(cls, raw: Mapping[str, Any]) -> Self:
        if raw.get("version") != EVENT_VERSION:
            raise MalformedMessage(
                f"event: version {raw.get('version')!r} is unknown, this build reads {EVENT_VERSION}"
            )
        try:
            kind = EventType(str(raw.get("type")))
        except ValueError:
            raise MalformedMessage(f"event: type {raw.get('type')!r} is unknown") from None
        data = msgspec.convert(raw["data"], _PAYLOADS[kind], strict=False)
        moment = raw.get("as_of")
        event = cls.__new__(cls)
        Event.__init__(
            event,
            data=data,
            type=kind,
            as_of=datetime.fromisoformat(moment) if moment else None,
            correlation_id=str(raw.get("correlation_id") or ""),
            id=str(raw["id"]),
        )
        return event

    def encode(self) -> bytes:
        """Return the envelope as JSON bytes."""
        return _encoded(self.type, self.id, self.as_of, self.correlation_id, self.data)

    @classmethod
    def decode(cls, raw: bytes | str) -> Self:
        """Return the event in JSON `raw`; rubbish is a `MalformedMessage`."""
        try:
            message = _WHOLE.decode(raw)
            if message.version == EVENT_VERSION:
                return cls._made(_KIND_OF[type(message)], message.data, message)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError, KeyError, ArithmeticError):
            return cls._decode_in_parts(raw)
        return cls._decode_in_parts(raw)

    @classmethod
    def _decode_in_parts(cls, raw: bytes | str) -> Self:
        """Read the envelope before the payload, to say which of them is at fault."""
        try:
            envelope = _ENVELOPE.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedMessage(f"event: cannot be read ({error}); it goes to the dead letters") from error
        decoder = _DECODERS.get(envelope.type)
        if envelope.version != EVENT_VERSION or decoder is None:
            raise _unknown(envelope.version, envelope.type)
        try:
            return cls._made(EventType(envelope.type), decoder.decode(envelope.data), envelope)
        except (msgspec.DecodeError, ValueError, KeyError, ArithmeticError) as error:
            raise MalformedMessage(f"event: cannot be read ({error}); it goes to the dead letters") from error

    @classmethod
    def _made(cls, kind: EventType, data: Any, envelope: Any) -> Self:
        event = cls.__new__(cls)
        event.type = kind
        event.data = data
        event.as_of = to_utc(envelope.as_of, "as_of") if envelope.as_of is not None else _business_time(data)
        event.id = envelope.id
        event.correlation_id = envelope.correlation_id or envelope.id
        return event

    def __eq__(self, other: object) -> bool:
        """Compare by what is carried."""
        return isinstance(other, Event) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return a short form for logs."""
        return f"Event(type={self.type.value!r}, id={self.id!r}, as_of={self.as_of})"


class CandleEvent(Event):
    """A closed candle."""

    def __init__(
        self, *, data: Candle, as_of: datetime | None = None, correlation_id: str = "", id: str | None = None
    ) -> None:
        super().__init__(data=data, type=EventType.CANDLE, as_of=as_of, correlation_id=correlation_id, id=id)


class SignalEvent(Event):
    """A signal, stored before it was published."""

    def __init__(
        self, *, data: Signal, as_of: datetime | None = None, correlation_id: str = "", id: str | None = None
    ) -> None:
        super().__init__(data=data, type=EventType.SIGNAL, as_of=as_of, correlation_id=correlation_id, id=id)


class OrderEvent(Event):
    """An order's new status."""

    def __init__(
        self, *, data: Order, as_of: datetime | None = None, correlation_id: str = "", id: str | None = None
    ) -> None:
        super().__init__(data=data, type=EventType.ORDER, as_of=as_of, correlation_id=correlation_id, id=id)


def _unknown(version: object, word: str) -> MalformedMessage:
    if version != EVENT_VERSION:
        return MalformedMessage(f"event: version {version!r} is unknown, this build reads {EVENT_VERSION}")
    return MalformedMessage(f"event: type {word!r} is unknown, it goes to the dead letters")


def encoded_candle(candle: Candle, stream: str) -> bytes:
    """Return a candle's envelope as it goes on the wire; its id names stream and open time, so a repetition is seen."""
    open_time = candle.open_time
    id = f"{stream}:{to_milliseconds(open_time)}"
    return _encoded(EventType.CANDLE, id, open_time + TIMEFRAME_DELTA[candle.timeframe], id, candle)


def _encoded(type: EventType, id: str, as_of: datetime | None, correlation_id: str, data: Any) -> bytes:
    return _encode(_Sent(EVENT_VERSION, type, id, as_of, correlation_id, data))


def _business_time(data: Any) -> datetime | None:
    if isinstance(data, Candle):
        return data.close_time
    if isinstance(data, Signal | Order):
        return data.created_at
    return None


def correlation_of(data: Candle | Signal | Order) -> str:
    """Return the id that a candle, its signals, their orders and fills have in common: the candle's envelope id.

    An order without a signal (a stop) belongs to the candle at whose close it was made. Example:
    `candles.BTC_USDT.1m:1735689600000`.
    """
    if isinstance(data, Candle):
        open_time = data.open_time
    else:
        known = data.candle_open_time if isinstance(data, Signal) else None
        open_time = known or data.created_at - TIMEFRAME_DELTA[data.timeframe]
    return f"{candle_stream(data.symbol, data.timeframe)}:{to_milliseconds(open_time)}"


def candle_stream(symbol: str, timeframe: str) -> str:
    """Return the stream of closed candles, e.g. `candles.BTC_USDT.1m`."""
    return f"candles.{symbol.replace('/', '_')}.{timeframe}"


def opened_stream(symbol: str, timeframe: str) -> str:
    """Return the stream of opened candles, which no strategy reads."""
    return f"opened.{symbol.replace('/', '_')}.{timeframe}"


SIGNAL_STREAM = "signals"
ORDER_STREAM = "orders"
WATERMARK_STREAM = "watermarks"

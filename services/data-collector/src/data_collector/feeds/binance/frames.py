"""What a market stream sends, read: candle frames, trades, answers to our requests, the venue's word that it closes."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from shared.errors import MalformedMessage

PAYLOAD_CHARACTERS_MAX: Final = 500
NUMBER_CHARACTERS_MAX: Final = 60
MAGNITUDE_MAX: Final = 40  # powers of ten; a few letters can name a number that fills the memory when written out
MILLISECONDS_MAX: Final = 4_102_444_800_000  # the year 2100


class KlineFrame(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one candle at `event_ms`; only a closed one will not change any more."""

    market_id: str
    interval: str
    event_ms: int
    open_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    is_closed: bool


class TradeFrame(msgspec.Struct, frozen=True, kw_only=True):
    """One trade; ids of a market follow each other without a hole."""

    market_id: str
    trade_id: int
    trade_ms: int
    price: Decimal
    quantity: Decimal


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request of ours; `error` is empty when it was granted."""

    request_id: int | str | None
    error: str = ""


class Shutdown(msgspec.Struct, frozen=True, kw_only=True):
    """The server is about to close the connection."""


type Frame = KlineFrame | TradeFrame | Answer | Shutdown


class _Kline(msgspec.Struct, frozen=True):
    t: int
    i: str
    o: str
    h: str
    l: str  # noqa: E741 - the venue's own letters
    c: str
    v: str
    x: bool


class _KlineEvent(msgspec.Struct, frozen=True):
    E: int
    s: str
    k: _Kline


class _TradeEvent(msgspec.Struct, frozen=True):
    s: str
    t: int
    p: str
    q: str
    T: int


class _Head(msgspec.Struct, frozen=True):
    """As much of a message as says which kind it is; what it lacks stays unset."""

    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()
    e: str = ""
    id: Any = msgspec.UNSET
    result: Any = msgspec.UNSET
    error: Any = msgspec.UNSET
    code: Any = msgspec.UNSET
    msg: str = ""


_HEAD = msgspec.json.Decoder(_Head)
_KLINE = msgspec.json.Decoder(_KlineEvent)
_TRADE = msgspec.json.Decoder(_TradeEvent)


def read_frame(text: str | bytes) -> Frame | None:
    """Return what a message of a raw or combined stream says; None for kinds that nobody here reads.

    Raises
    ------
    MalformedMessage
        No JSON, or a known kind whose fields are missing or of another type.
    """
    try:
        head = _HEAD.decode(text)
        body: str | bytes | msgspec.Raw = text
        if head.stream and bytes(head.data):
            body = head.data
            head = _HEAD.decode(body)
        if head.e == "kline":
            return _kline(_KLINE.decode(body))
        if head.e == "trade":
            return _trade(_TRADE.decode(body))
        if head.e == "serverShutdown":
            return Shutdown()
        return _answer(head)
    except (msgspec.MsgspecError, InvalidOperation, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"binance stream: {type(error).__name__}: {error}"[:PAYLOAD_CHARACTERS_MAX]) from None


def _answer(head: _Head) -> Answer | None:
    is_answer = head.id is not msgspec.UNSET and not head.e
    if not is_answer and head.error is msgspec.UNSET and head.code is msgspec.UNSET:
        return None
    number = head.id if isinstance(head.id, int | str) else None
    if head.error is not msgspec.UNSET:
        return Answer(request_id=number, error=str(head.error)[:PAYLOAD_CHARACTERS_MAX] or "refused")
    if head.code is not msgspec.UNSET:
        return Answer(request_id=number, error=f"{head.code} {head.msg}"[:PAYLOAD_CHARACTERS_MAX])
    return Answer(request_id=number)


def _moment(milliseconds: int) -> int:
    if not 0 < milliseconds < MILLISECONDS_MAX:
        raise MalformedMessage(f"binance stream: {milliseconds} is no time in milliseconds since 1970")
    return milliseconds


def _number(text: str) -> Decimal:
    number = Decimal(text) if len(text) <= NUMBER_CHARACTERS_MAX else None
    if number is None or (number.is_finite() and abs(number.adjusted()) > MAGNITUDE_MAX):
        raise MalformedMessage(f"binance stream: {text[:NUMBER_CHARACTERS_MAX]!r} is no price or quantity")
    return number


def _kline(event: _KlineEvent) -> KlineFrame:
    kline = event.k
    return KlineFrame(
        market_id=event.s,
        interval=kline.i,
        event_ms=_moment(event.E),
        open_ms=_moment(kline.t),
        open=_number(kline.o),
        high=_number(kline.h),
        low=_number(kline.l),
        close=_number(kline.c),
        volume=_number(kline.v),
        is_closed=kline.x,
    )


def _trade(event: _TradeEvent) -> TradeFrame:
    return TradeFrame(
        market_id=event.s,
        trade_id=event.t,
        trade_ms=_moment(event.T),
        price=_number(event.p),
        quantity=_number(event.q),
    )

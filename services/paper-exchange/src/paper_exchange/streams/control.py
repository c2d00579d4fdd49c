"""The control messages of a stream connection: pure, text in, answer out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

STREAMS_MAX: Final = 1024
ID_LENGTH_MAX: Final = 36
_METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_NAME = re.compile(r"[!a-zA-Z0-9_@.+:\-]{1,100}")


@dataclass(slots=True)
class Subscriptions:
    """What one connection hears; `streams` keeps the order of subscription."""

    streams: dict[str, None] = field(default_factory=dict)
    is_combined: bool = False
    streams_max: int = STREAMS_MAX


class _Refused(Exception):
    """A control message that cannot be carried out."""

    def __init__(self, text: str, code: int = 2, request_id: Any = None) -> None:
        super().__init__(text)
        self.text, self.code, self.request_id = text, code, request_id


class TooManyStreams(Exception):
    """More streams than one connection may have: the server hangs up."""


def answer(text: str, subscriptions: Subscriptions) -> dict[str, Any]:
    """Carry out one control message on `subscriptions` and return what is sent back."""
    try:
        request_id, method, params = _read(text)
        try:
            result = _carry_out(method, params, subscriptions)
        except _Refused as refused:
            refused.request_id = request_id
            raise
    except _Refused as refused:
        return {"code": refused.code, "msg": refused.text, "id": refused.request_id}
    return {"result": result, "id": request_id}


def _read(text: str) -> tuple[Any, str, Any]:
    try:
        message = msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise _Refused("Invalid JSON: expected value at line 1 column 1", code=3) from None
    if not isinstance(message, dict):
        raise _Refused("Invalid request: request must be a JSON object")
    request_id = message.get("id")
    is_id = request_id is None or (isinstance(request_id, int) and not isinstance(request_id, bool))
    if isinstance(request_id, str) and len(request_id) <= ID_LENGTH_MAX:
        is_id = True
    if not is_id or (isinstance(request_id, int) and not -(2**63) <= request_id < 2**63):
        raise _Refused("Invalid request: request ID must be an unsigned integer, a string of at most 36 or null")
    unknown = sorted(set(message) - {"id", "method", "params"})
    if unknown:
        raise _Refused(f"Invalid request: unknown field `{unknown[0]}`", request_id=request_id)
    method = message.get("method")
    if method is None:
        raise _Refused("Invalid request: missing field `method`", request_id=request_id)
    if method not in _METHODS:
        expected = ", ".join(f"`{name}`" for name in _METHODS)
        raise _Refused(
            f"Invalid request: unknown variant `{method}`, expected one of {expected}", request_id=request_id
        )
    return request_id, method, message.get("params")


def _carry_out(method: str, params: Any, subscriptions: Subscriptions) -> Any:
    if method == "LIST_SUBSCRIPTIONS":
        return list(subscriptions.streams)
    if method == "GET_PROPERTY":
        if params != ["combined"]:
            raise _Refused("Invalid request: unknown property, expected `combined`")
        return subscriptions.is_combined
    if method == "SET_PROPERTY":
        if not (isinstance(params, list) and len(params) == 2 and params[0] == "combined"):
            raise _Refused("Invalid request: unknown property, expected `combined`")
        if not isinstance(params[1], bool):
            raise _Refused("Invalid value type: expected Boolean")
        subscriptions.is_combined = params[1]
        return None
    for name in _stream_names(params):
        if method == "SUBSCRIBE":
            subscriptions.streams[name] = None
        else:
            subscriptions.streams.pop(name, None)
    if len(subscriptions.streams) > subscriptions.streams_max:
        raise TooManyStreams
    return None


def _stream_names(params: Any) -> list[str]:
    if params is None:
        raise _Refused("Invalid request: missing field `params`")
    if not isinstance(params, list):
        raise _Refused("Invalid request: params must be an array of stream names")
    for name in params:
        if not isinstance(name, str):
            raise _Refused("Invalid request: property name must be a string")
        if not _NAME.fullmatch(name):
            raise _Refused("Invalid request: stream name has illegal characters")
    return params

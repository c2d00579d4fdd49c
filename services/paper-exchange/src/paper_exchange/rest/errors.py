"""The protocol's errors: a code, a text, and the HTTP status that goes with them."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer other than success, as the client will see it."""

    def __init__(self, code: int, text: str, status: int = 400, retry_after_seconds: int | None = None) -> None:
        super().__init__(f"{code} {text}")
        self.code, self.text, self.status = code, text, status
        self.retry_after_seconds = retry_after_seconds

    @property
    def body(self) -> dict[str, Any]:
        """Return what is sent."""
        return {"code": self.code, "msg": self.text}


def illegal(name: str, legal: str) -> ApiError:
    """Return the answer to a value that is not written as it must be."""
    return ApiError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def missing(name: str) -> ApiError:
    """Return the answer to a parameter that is needed and was not sent."""
    return ApiError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def empty(name: str) -> ApiError:
    """Return the answer to a parameter sent without a value."""
    return ApiError(-1105, f"Parameter '{name}' was empty.")


def invalid(name: str) -> ApiError:
    """Return the answer to a value outside of what is possible."""
    return ApiError(-1130, f"Data sent for parameter '{name}' is not valid.")


def unread(read: int, sent: int) -> ApiError:
    """Return the answer to parameters that the endpoint does not know."""
    return ApiError(-1104, f"Not all sent parameters were read; read '{read}' parameter(s) but was sent '{sent}'.")


def surplus(expected: int, sent: int) -> ApiError:
    """Return the answer to parameters of an endpoint that takes none."""
    return ApiError(-1101, f"Too many parameters; expected '{expected}' and received '{sent}'.")


def repeated(name: str) -> ApiError:
    """Return the answer to a parameter that was sent twice."""
    return ApiError(-1101, f"Duplicate values for parameter '{name}' detected.")


def optional_combination() -> ApiError:
    """Return the answer to optional parameters that exclude one another."""
    return ApiError(-1128, "Combination of optional parameters invalid.")


def invalid_interval() -> ApiError:
    """Return the answer to an interval that does not exist."""
    return ApiError(-1120, "Invalid interval.")


def invalid_symbol() -> ApiError:
    """Return the answer to a symbol that does not exist."""
    return ApiError(-1121, "Invalid symbol.")


def too_much_weight(limit: int, retry_after_seconds: int) -> ApiError:
    """Return the answer to a client that used up its minute."""
    text = (
        f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE. "
        "Please use WebSocket Streams for live updates to avoid polling the API."
    )
    return ApiError(-1003, text, 429, retry_after_seconds)


def banned(until_ms: int, retry_after_seconds: int) -> ApiError:
    """Return the answer to a client that went on although it was told to wait."""
    text = (
        f"Way too much request weight used; IP banned until {until_ms}. "
        "Please use WebSocket Streams for live updates to avoid bans."
    )
    return ApiError(-1003, text, 418, retry_after_seconds)

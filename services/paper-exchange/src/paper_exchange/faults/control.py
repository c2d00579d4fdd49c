"""/paper: what this exchange tells and takes that no real one does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from paper_exchange.faults.board import FaultBoard
from paper_exchange.faults.plan import FaultPlan, parse_fault_plan
from shared.errors import ConfigError

PREFIX: Final = "/paper/"
_BODY_BYTES_MAX: Final = 1_000_000


class PaperControl:
    """GET /paper/status; GET, POST (add), PUT (replace) and DELETE (none any more) /paper/faults."""

    def __init__(self, board: FaultBoard, status: Callable[[], dict[str, Any]]) -> None:
        self._board, self._status = board, status

    async def answer(self, request: web.Request) -> web.Response:
        """Return the answer to a request under /paper."""
        if request.path == "/paper/status" and request.method == "GET":
            return _json(self._status())
        if request.path != "/paper/faults":
            return _json({"error": f"{request.path}: not here; there are /paper/status and /paper/faults"}, 404)
        if request.method in ("POST", "PUT"):
            try:
                plan = parse_fault_plan(await _read(request), "the request")
            except ConfigError as error:
                return _json({"error": str(error)}, 400)
            if request.method == "PUT":
                self._board.replace(plan)
            else:
                self._board.add(plan)
        elif request.method == "DELETE":
            self._board.replace(FaultPlan())
        elif request.method != "GET":
            return _json({"error": f"{request.method}: use GET, POST, PUT or DELETE"}, 405)
        return _json({"faults": self._board.report()})


async def _read(request: web.Request) -> Any:
    body = await request.content.read(_BODY_BYTES_MAX + 1)
    if len(body) > _BODY_BYTES_MAX:
        raise ConfigError(f"faults: the request is larger than {_BODY_BYTES_MAX} bytes; send fewer")
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise ConfigError(f"faults: the request is no JSON ({error}); send a list of faults") from None


def _json(document: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(document), content_type="application/json")

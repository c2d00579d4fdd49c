"""Lets happen to requests what the faults say."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from paper_exchange.faults.plan import Fault
from paper_exchange.rest.errors import ApiError, banned, too_much_weight
from shared.clock import Clock

_HTML: Final = "<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center></body></html>\n"


@dataclass(frozen=True, slots=True)
class Spoiled:
    """What becomes of a request: an error, a page, nothing at all, or an answer without its newest candles."""

    error: ApiError | None = None
    page: web.Response | None = None
    is_cut: bool = False
    rows_hidden: int = 0


async def meet_faults(faults: list[Fault], clock: Clock, *, weight_max: int, now_ms: int) -> Spoiled:
    """Wait as the faults say and return what becomes of the request; the first error wins."""
    for fault in faults:
        if fault.kind == "slow":
            await clock.sleep(fault["delay_seconds"])
    hidden = max((fault["rows"] for fault in faults if fault.kind == "late_candle"), default=0)
    for fault in faults:
        if fault.kind == "error":
            return Spoiled(error=ApiError(fault["code"], fault["text"], fault["status"]))
        if fault.kind == "rate_limit":
            return Spoiled(error=too_much_weight(weight_max, fault["retry_after"]))
        if fault.kind == "ban":
            until_ms = now_ms + fault["retry_after"] * 1000
            return Spoiled(error=banned(until_ms, fault["retry_after"]))
        if fault.kind == "html":
            status = fault["status"]
            page = web.Response(status=status, text=_HTML.format(status=status), content_type="text/html")
            return Spoiled(page=page)
        if fault.kind == "cut_answer":
            return Spoiled(is_cut=True)
    return Spoiled(rows_hidden=hidden)


def cut(request: web.Request) -> None:
    """Close a request's connection without an answer."""
    transport = request.transport
    if isinstance(transport, asyncio.Transport):
        transport.abort()

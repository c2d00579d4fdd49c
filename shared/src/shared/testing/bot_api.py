"""A Telegram Bot API on localhost: speaks HTTP, checks markup and length as the real one does, fails on demand."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, Self

from aiohttp import web

_TAGS = {
    "a",
    "b",
    "blockquote",
    "code",
    "del",
    "em",
    "i",
    "ins",
    "pre",
    "s",
    "span",
    "strike",
    "strong",
    "tg-spoiler",
    "u",
}
_LENGTH_MAX = 4096
_BARE = re.compile(r"<(?!/?[A-Za-z][^<>]*>)")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the next request meets instead of a proper answer."""

    status: int = 200
    body: str = ""
    hang: bool = False


def hang() -> Outcome:
    """Return an outcome that never answers."""
    return Outcome(hang=True)


def too_many_requests(retry_after: float) -> Outcome:
    """Return a 429 that asks to wait."""
    body = f'{{"ok":false,"error_code":429,"description":"Too Many Requests","parameters":{{"retry_after":{retry_after}}}}}'
    return Outcome(status=429, body=body)


def refusal(status: int, description: str) -> Outcome:
    """Return a 4xx with its description."""
    return Outcome(status=status, body=f'{{"ok":false,"error_code":{status},"description":"{description}"}}')


def server_error(status: int = 502) -> Outcome:
    """Return a 5xx with the page of a proxy."""
    return Outcome(status=status, body="<html>Bad Gateway</html>")


def garbage() -> Outcome:
    """Return a 200 whose body is no answer."""
    return Outcome(body="\x00<not json>")


@dataclass(frozen=True)
class ReceivedMessage:
    """A message that was taken."""

    chat_id: str
    text: str
    parse_mode: str | None


class FakeBotApi:
    """The server; requests use up `script` first, then meet `always`, or are answered properly where it is None."""

    def __init__(self, token: str = "123456:" + "A" * 35, *, always: Outcome | None = None) -> None:
        self.token = token
        self.url = ""
        self.script: deque[Outcome] = deque()
        self.always = always
        self.received: list[ReceivedMessage] = []
        self.request_count = 0
        self._changed = asyncio.Condition()
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/bot{token}/sendMessage", self._send_message)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._released.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def wait_for_messages(self, count: int) -> list[ReceivedMessage]:
        """Return the messages as soon as there are `count`."""
        await self._wait(lambda: len(self.received) >= count)
        return self.received

    async def wait_for_requests(self, count: int) -> None:
        """Return as soon as `count` requests came in."""
        await self._wait(lambda: self.request_count >= count)

    async def _wait(self, reached: Any) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(reached), timeout=20)

    async def _send_message(self, request: web.Request) -> web.Response:
        payload = await request.json()
        outcome = self.script.popleft() if self.script else self.always
        answer = self._judge(request.match_info["token"], payload)
        async with self._changed:
            self.request_count += 1
            if outcome is None and answer.status == 200:
                message = ReceivedMessage(str(payload["chat_id"]), payload["text"], payload.get("parse_mode"))
                self.received.append(message)
            self._changed.notify_all()
        if outcome is None:
            return answer
        if outcome.hang:
            await self._released.wait()
        return web.Response(status=outcome.status, text=outcome.body)

    def _judge(self, token: str, payload: dict[str, Any]) -> web.Response:
        if token != self.token:
            return _refuse(401, "Unauthorized")
        text = payload.get("text", "")
        shown = text
        if payload.get("parse_mode") == "HTML":
            reader = _MarkupReader()
            reader.feed(text)
            reader.close()
            if _BARE.search(text):
                reader.fault = "a bare <"
            if reader.fault or reader.open:
                return _refuse(400, f"Bad Request: can't parse entities: {reader.fault or 'unclosed tag'}")
            shown = reader.shown
        if not shown.strip():
            return _refuse(400, "Bad Request: message text is empty")
        if len(shown.encode("utf-16-le")) // 2 > _LENGTH_MAX:
            return _refuse(400, "Bad Request: message is too long")
        return web.json_response({"ok": True, "result": {"message_id": len(self.received) + 1}})


@contextmanager
def bot_api_in_thread(api: FakeBotApi) -> Iterator[FakeBotApi]:
    """Serve from a loop and thread of its own, for callers that block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(api.__aenter__(), loop).result(20)
    try:
        yield api
    finally:
        asyncio.run_coroutine_threadsafe(api.__aexit__(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)


def _refuse(status: int, description: str) -> web.Response:
    return web.json_response({"ok": False, "error_code": status, "description": description}, status=status)


class _MarkupReader(HTMLParser):
    """Follows tags strictly: only known ones, each closed in order, no bare `<`."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.shown = ""
        self.fault = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag not in _TAGS:
            self.fault = f"unsupported start tag {tag}"
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.fault = f"unmatched end tag {tag}"

    def handle_data(self, data: str) -> None:
        self.shown += data

"""Messages to people through the Telegram Bot API: queued, paced, tried again, and never in the way of trading."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import aiohttp
from pydantic import SecretStr

from shared import notifier_format as form
from shared.clock import Clock, SystemClock, seeded_random
from shared.config_values import TELEGRAM_TOPICS
from shared.errors import RateLimited, VenueError, VenueUnavailable
from shared.models import Order, Signal
from shared.redaction import Redactor
from shared.resilience import CircuitBreaker, Outside, UniformSource, retry_with_backoff
from shared.telegram_wire import Pace, read_answer

API_URL: Final = "https://api.telegram.org"
BODY_BYTES_MAX: Final = 65_536
OUTCOMES: Final = ("sent", "failed", "dropped")
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NotifierLimits:
    """What is sent, how much of it, how fast and for how long."""

    topics: Collection[str] = TELEGRAM_TOPICS
    queue_max: int = 1000
    message_gap_seconds: float = 1.0
    group_messages_per_minute_max: int = 20
    attempts_max: int = 5
    base_delay_seconds: float = 1.0
    delay_seconds_max: float = 60.0
    request_seconds_max: float = 10.0
    close_seconds_max: float = 5.0
    breaker_threshold: int = 5
    breaker_seconds: float = 60.0


@dataclass(frozen=True)
class _Message:
    text: str
    parse_mode: str


class TelegramNotifier:
    """Sends messages to one chat from a bounded queue in the background.

    No method raises and none waits for the network: each returns whether the message was taken into the queue.
    When the queue is full the oldest message makes room and is counted in `dropped_count`. Without token or chat,
    or with `enabled` false, nothing is ever taken; the limits' `topics` say which kinds of message are (`send` always is).
    """

    def __init__(
        self,
        bot_token: str | SecretStr = "",
        chat_id: str = "",
        *,
        enabled: bool = True,
        base_url: str = API_URL,
        limits: NotifierLimits | None = None,
        clock: Clock | None = None,
        rng: UniformSource | None = None,
        on_outcome: Callable[[str], object] | None = None,
    ) -> None:
        self.limits = limits or NotifierLimits()
        self.sent_count = self.failed_count = self.dropped_count = 0
        self._token = bot_token.get_secret_value() if isinstance(bot_token, SecretStr) else str(bot_token or "")
        self._chat_id = str(chat_id or "")
        self._enabled = bool(enabled and self._token and self._chat_id)
        self._url = f"{base_url.rstrip('/')}/bot{self._token}/sendMessage"
        self._redactor = Redactor([self._token])
        self._clock = clock or SystemClock()
        self._topics = frozenset(self.limits.topics)
        self._on_outcome = on_outcome
        self._queue: deque[_Message] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._closing = False
        self.breaker = CircuitBreaker(self.limits.breaker_threshold, self.limits.breaker_seconds, clock=self._clock)
        self.outside = Outside("telegram", self.breaker)
        self._paces = [Pace(1, self.limits.message_gap_seconds, clock=self._clock)]
        if self._chat_id.startswith(("-", "@")):  # groups and channels
            self._paces.append(Pace(self.limits.group_messages_per_minute_max, 60.0, clock=self._clock))
        self._post_again = retry_with_backoff(
            self.limits.attempts_max,
            self.limits.base_delay_seconds,
            self.limits.delay_seconds_max,
            clock=self._clock,
            rng=rng or seeded_random(),
            on_retry=self.outside.retried,
        )(self._post_once)

    @property
    def enabled(self) -> bool:
        """Return whether messages are sent at all."""
        return self._enabled

    @property
    def queue_depth(self) -> int:
        """Return how many messages wait."""
        return len(self._queue)

    def start(self) -> None:
        """Begin to send; the first message does so too, if it comes from inside the loop."""
        if self._enabled and not self._closing and (self._worker is None or self._worker.done()):
            self._loop = asyncio.get_running_loop()
            self._worker = self._loop.create_task(self._run(), name="telegram")

    async def close(self) -> None:
        """Send what waits, for at most `close_seconds_max`, then stop; what is left is counted as dropped."""
        if self._queue:
            self.start()
        self._closing = True
        worker, self._worker = self._worker, None
        if worker is not None:
            self._arrived.set()
            await asyncio.wait({worker}, timeout=self.limits.close_seconds_max)
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker
        while self._queue:
            self._queue.popleft()
            self._count("dropped")

    async def send(self, message: str, parse_mode: str | None = "HTML") -> bool:
        """Queue a message as it stands: in HTML the caller has escaped what users wrote."""
        return self._take(lambda: str(message), parse_mode)

    async def send_signal(self, signal: Signal) -> bool:
        """Queue the message about a signal."""
        return self._take(lambda: form.signal_text(signal), topic="signals")

    async def send_order(self, order: Order) -> bool:
        """Queue the message about an order's new status."""
        return self._take(lambda: form.order_text(order), topic="orders")

    async def send_refusal(self, signal: Signal, reason: str, detail: str = "") -> bool:
        """Queue the message about a signal that our own rules refused."""
        return self._take(lambda: form.refusal_text(signal, reason, detail), topic="refusals")

    async def send_error(self, error: object, service: str) -> bool:
        """Queue the message about an error (a text or an exception)."""
        return self.post_error(error, service)

    async def send_daily_summary(self, positions: object, total_value: object, daily_pnl: object) -> bool:
        """Queue the daily summary; `positions` holds Position objects or dicts of their fields."""
        return self._take(lambda: form.summary_text(positions, total_value, daily_pnl), topic="summary")

    def post_error(self, error: object, service: str) -> bool:
        """Queue an error from anywhere, another thread too: the error sink of the logs."""
        return self._take(lambda: form.error_text(error, service), topic="errors")

    def _take(self, render: Callable[[], str], parse_mode: str | None = "HTML", *, topic: str = "") -> bool:
        if not self._enabled or self._closing or (topic and topic not in self._topics):
            return False
        try:
            text = self._redactor.text(render())
            parts = form.split_message(text, parse_mode)
        except Exception as error:  # noqa: BLE001 - a per-message boundary: a message never stops trading
            _LOG.warning("a message could not be written: %s", type(error).__name__)
            self._count("failed")
            return False
        for part in parts:
            self._queue.append(_Message(part, parse_mode or ""))
            if len(self._queue) > self.limits.queue_max:
                self._queue.popleft()
                self._count("dropped")
        self._wake()
        return bool(parts)

    def _wake(self) -> None:
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not None and self._loop in {None, running}:
            self.start()
            self._arrived.set()
        elif self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.set)

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=self.limits.request_seconds_max)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while self._queue or not self._closing:
                if not self._queue:
                    self._arrived.clear()
                    await self._arrived.wait()
                    continue
                await self._deliver(session, self._queue.popleft())

    async def _deliver(self, session: aiohttp.ClientSession, message: _Message) -> None:
        outcome = "dropped"  # also when it is cut off by the end
        try:
            outcome = "sent" if await self._post(session, message) else "failed"
        except VenueError as error:
            outcome = "failed"
            _LOG.warning("a message was given up: %s", self._redactor.text(str(error)))
        except Exception as error:  # noqa: BLE001 - a per-message boundary; its text might hold the token
            outcome = "failed"
            _LOG.warning("a message was given up: %s", type(error).__name__)
        finally:
            self._count(outcome)

    async def _post(self, session: aiohttp.ClientSession, message: _Message) -> bool:
        """Return whether the message arrived, as written or, where its markup was refused, as plain text."""
        status, text = await self._post_again(session, message)
        if status == 400 and message.parse_mode:
            words = form.plain_text(message.text) if message.parse_mode == "HTML" else message.text
            status, text = await self._post_again(session, _Message(words, ""))
        if status == 200:
            return True
        _LOG.warning("a message was refused: %s %s", status, self._redactor.text(text))
        return False

    async def _post_once(self, session: aiohttp.ClientSession, message: _Message) -> tuple[int, str]:
        while not self.breaker.allow_request():
            await self._clock.sleep(max(self.breaker.retry_in_seconds, 0.05))
        for pace in self._paces:
            await pace.take()
        body = {"chat_id": self._chat_id, "text": message.text, "disable_web_page_preview": True}
        if message.parse_mode:
            body["parse_mode"] = message.parse_mode
        try:
            async with session.post(self._url, json=body, allow_redirects=False) as response:
                raw = await response.content.read(BODY_BYTES_MAX)
                answer = read_answer(response.status, raw, response.headers.get("Retry-After", ""))
        except VenueUnavailable:
            self.breaker.record_failure()
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as error:  # their text may hold the URL, so the token
            self.breaker.record_failure()
            raise VenueUnavailable("telegram", type(error).__name__) from None
        except RateLimited:
            self.breaker.record_success()  # it lives: it only asks us to wait
            raise
        self.breaker.record_success()
        return answer

    def _count(self, outcome: str) -> None:
        if outcome == "sent":
            self.sent_count += 1
        elif outcome == "failed":
            self.failed_count += 1
        else:
            self.dropped_count += 1
        if self._on_outcome is not None:
            self._on_outcome(outcome)

"""Binance's public REST interface: what a market-data client asks, within the weight that the venue allows."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp
import msgspec

from shared.clock import Clock, SystemClock, seeded_random
from shared.errors import RateLimited, VenueError, VenueUnavailable
from shared.metrics import ServiceMetrics
from shared.request_weight import WeightBudget
from shared.resilience import CircuitBreaker, UniformSource, retry_with_backoff

VENUE: Final = "binance"
KLINES_MAX: Final = 1000
UNKNOWN_SYMBOL: Final = -1121
BODY_BYTES_MAX: Final = 64 * 1024 * 1024  # the rules of every market are some 20 MB
TEXT_MAX: Final = 300
REQUESTS_AT_ONCE_MAX: Final = 8
RETRY_AFTER_SECONDS: Final = 60.0
_OFFSET_SAMPLES: Final = 3
_BANNED_UNTIL: Final = re.compile(r"banned until (\d{13})")

type KlineRow = tuple[int, str, str, str, str, str, int, str, int, str, str, str]


class MarketInfo(msgspec.Struct, frozen=True):
    """One market of `exchangeInfo`, as far as a reader of candles needs it."""

    symbol: str
    status: str
    baseAsset: str  # noqa: N815 - the venue's own names
    quoteAsset: str  # noqa: N815


class _RateLimit(msgspec.Struct, frozen=True):
    rateLimitType: str = ""  # noqa: N815
    interval: str = ""
    intervalNum: int = 0  # noqa: N815
    limit: int = 0


class _ExchangeInfo(msgspec.Struct, frozen=True):
    symbols: tuple[MarketInfo, ...]
    rateLimits: tuple[_RateLimit, ...] = ()  # noqa: N815


class _Time(msgspec.Struct, frozen=True):
    serverTime: int  # noqa: N815


_INFO = msgspec.json.Decoder(_ExchangeInfo)
_TIME = msgspec.json.Decoder(_Time)
_KLINES = msgspec.json.Decoder(tuple[KlineRow, ...])


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How patient one call is, and when calling stops for a while."""

    attempts_max: int = 5
    base_delay_seconds: float = 0.5
    delay_seconds_max: float = 30.0
    request_seconds_max: float = 10.0
    breaker_threshold: int = 5
    breaker_seconds: float = 60.0
    weight_share: float = 0.4


class BinanceRest:
    """Asks one server; errors are `RateLimited`, `VenueUnavailable` (both asked again) or `VenueError` (final).

    Every request spends weight first, waits out a pause that the venue ordered, and goes through one breaker.
    """

    def __init__(
        self,
        base_url: str,
        *,
        clock: Clock | None = None,
        policy: CallPolicy | None = None,
        metrics: ServiceMetrics | None = None,
        rng: UniformSource | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._clock = clock or SystemClock()
        self._policy = policy or CallPolicy()
        self._metrics = metrics
        self._session: aiohttp.ClientSession | None = None
        self.trouble = ""  # why the last call got no answer, "" once one has
        self._slots = asyncio.Semaphore(REQUESTS_AT_ONCE_MAX)
        self.budget = WeightBudget(self._clock, share=self._policy.weight_share)
        self.breaker = CircuitBreaker(self._policy.breaker_threshold, self._policy.breaker_seconds, clock=self._clock)
        self._rng = rng or seeded_random()

    @property
    def clock_offset(self) -> timedelta:
        """Return the venue's clock less ours, as last measured."""
        return self.budget.offset

    def now(self) -> datetime:
        """Return the venue's time as well as we know it."""
        return self._clock.now() + self.budget.offset

    async def server_time(self) -> datetime:
        """Return the venue's clock."""
        answer = await self._get("/api/v3/time", {}, 1, _TIME)
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=answer.serverTime)

    async def measure_clock(self) -> timedelta:
        """Measure how far the venue's clock is ahead of ours: the sample with the shortest way there and back wins."""
        best: tuple[float, timedelta] | None = None
        for _ in range(_OFFSET_SAMPLES):
            sent_at, start = self._clock.now(), self._clock.monotonic()
            theirs = await self.server_time()
            took = self._clock.monotonic() - start
            offset = theirs - (sent_at + timedelta(seconds=took / 2))
            if best is None or took < best[0]:
                best = (took, offset)
        assert best is not None
        self.budget.offset = best[1]
        return best[1]

    async def markets(self, ids: Sequence[str] = ()) -> tuple[MarketInfo, ...]:
        """Return the markets called `ids`, or all; an unknown id is a `VenueError` with code -1121."""
        params = {"symbols": json.dumps(list(ids), separators=(",", ":"))} if ids else {"permissions": "SPOT"}
        info = await self._get("/api/v3/exchangeInfo", params, 20, _INFO)
        for limit in info.rateLimits:
            if (limit.rateLimitType, limit.interval, limit.intervalNum) == ("REQUEST_WEIGHT", "MINUTE", 1):
                self.budget.allow(limit.limit)
        return info.symbols

    async def klines(
        self, market_id: str, interval: str, since_ms: int, until_ms: int, limit: int = KLINES_MAX
    ) -> tuple[KlineRow, ...]:
        """Return the oldest candles with since_ms <= open time <= until_ms; the newest of all may still be forming."""
        params = {
            "symbol": market_id,
            "interval": interval,
            "startTime": str(since_ms),
            "endTime": str(until_ms),
            "limit": str(min(limit, KLINES_MAX)),
        }
        return await self._get("/api/v3/klines", params, 2, _KLINES)

    async def newest_klines(self, market_id: str, interval: str, limit: int) -> tuple[KlineRow, ...]:
        """Return the newest candles that there are, however old; the last may still be forming."""
        params = {"symbol": market_id, "interval": interval, "limit": str(min(limit, KLINES_MAX))}
        return await self._get("/api/v3/klines", params, 2, _KLINES)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _get[T](self, path: str, params: Mapping[str, str], weight: int, decoder: msgspec.json.Decoder[T]) -> T:
        async def once() -> T:
            return await self._through_breaker(lambda: self._ask(path, params, weight, decoder))

        again = retry_with_backoff(
            self._policy.attempts_max,
            self._policy.base_delay_seconds,
            self._policy.delay_seconds_max,
            clock=self._clock,
            rng=self._rng,
            on_retry=self._count_retry,
        )
        return await again(once)()

    async def _through_breaker[T](self, call: Callable[[], Awaitable[T]]) -> T:
        if not self.breaker.allow_request():
            wait = self.breaker.retry_in_seconds
            raise RateLimited(VENUE, f"not asked: it failed too often; next try in {wait:.0f} s", wait)
        try:
            answer = await call()
        except VenueUnavailable as error:
            self.trouble = error.text
            self.breaker.record_failure()
            raise
        except VenueError as error:
            self.trouble = error.text
            self.breaker.record_success()  # it answers, though not what we hoped for
            raise
        else:
            self.trouble = ""
            self.breaker.record_success()
            return answer
        finally:
            if self._metrics is not None:
                self._metrics.breaker(f"{VENUE} rest", self.breaker.state.value)

    async def _ask[T](self, path: str, params: Mapping[str, str], weight: int, decoder: msgspec.json.Decoder[T]) -> T:
        await self.budget.take(weight)
        session = self._open_session()
        try:
            async with self._slots, session.get(f"{self._base_url}{path}", params=params) as response:
                self._note_weight(response.headers)
                body = await _read_bounded(response)
                if response.status == 200:
                    return _decode(decoder, body)
                raise self._error(response.status, response.headers, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise VenueUnavailable(VENUE, f"GET {path}: {type(error).__name__}: {error}"[:TEXT_MAX]) from error

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            seconds = self._policy.request_seconds_max
            timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(5.0, seconds))
            self._session = aiohttp.ClientSession(timeout=timeout)
        return self._session

    def _note_weight(self, headers: Mapping[str, str]) -> None:
        used = headers.get("X-MBX-USED-WEIGHT-1M", headers.get("X-MBX-USED-WEIGHT", ""))
        if used.isdecimal():
            self.budget.report(int(used))

    def _error(self, status: int, headers: Mapping[str, str], body: bytes) -> VenueError:
        code, text = _code_and_text(body)
        if status in (418, 429):
            wait = self._wait_seconds(headers.get("Retry-After", ""), text)
            self.budget.pause(wait)
            return RateLimited(VENUE, f"HTTP {status}: {text}", wait, code)
        if status >= 500 or status == 403:  # 403 comes from what stands before the venue, not from it
            return VenueUnavailable(VENUE, f"HTTP {status}: {text}", code)
        return VenueError(VENUE, f"HTTP {status}: {text}", code)

    def _wait_seconds(self, header: str, text: str) -> float:
        if header.isdecimal():
            return float(header)
        banned = _BANNED_UNTIL.search(text)
        if banned is not None:
            return max(0.0, int(banned[1]) / 1000 - self.now().timestamp())
        return RETRY_AFTER_SECONDS

    def _count_retry(self, error: BaseException, _delay: float) -> None:
        if self._metrics is not None:
            self._metrics.retry(f"{VENUE} rest")
            self._metrics.error(error)


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > BODY_BYTES_MAX:
            raise VenueUnavailable(VENUE, f"an answer of more than {BODY_BYTES_MAX} bytes")
        parts.append(part)
    return b"".join(parts)


def _code_and_text(body: bytes) -> tuple[int | None, str]:
    try:
        answer: Any = json.loads(body)
        return int(answer["code"]), str(answer["msg"])[:TEXT_MAX]
    except (ValueError, KeyError, TypeError):
        return None, " ".join(body[:TEXT_MAX].decode("utf-8", "replace").split()) or "without a text"


def _decode[T](decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise VenueUnavailable(VENUE, f"an answer that cannot be read: {error}"[:TEXT_MAX]) from error

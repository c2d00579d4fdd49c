"""The REST side against a server that answers as Binance has been seen to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from shared.binance_rest import BinanceRest, CallPolicy
from shared.errors import RateLimited, VenueError, VenueUnavailable
from shared.testing.reference import reference_path

START = datetime(2024, 1, 1, tzinfo=UTC)
ROW = [1704067200000, "1", "3", "0.5", "2", "10.5", 1704067259999, "21", 4, "1", "2", "0"]

type Answer = Callable[[web.Request], web.Response]


class HastyClock:
    """A clock that jumps: whoever sleeps wakes at once, and the time asked for has passed."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=sum(self.slept))

    def monotonic(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Venue:
    """Gives its answers one after another, the last one for ever, and remembers what was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[web.Request] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        return (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])(request)


def good(value: Any, **headers: str) -> Answer:
    return lambda _: web.json_response(value, headers=headers)


def bad(status: int, body: str | bytes, **headers: str) -> Answer:
    data = body.encode() if isinstance(body, str) else body
    return lambda _: web.Response(status=status, body=data, headers=headers)


@asynccontextmanager
async def rest_of(venue: Venue, clock: HastyClock, **policy: Any) -> AsyncIterator[BinanceRest]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", venue.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    rest = BinanceRest(f"http://127.0.0.1:{runner.addresses[0][1]}", clock=clock, policy=CallPolicy(**policy))
    try:
        yield rest
    finally:
        await rest.close()
        await runner.cleanup()


async def klines(rest: BinanceRest) -> list[Any]:
    return [list(row) for row in await rest.klines("BTCUSDT", "1m", 1704067200000, 1704067260000)]


async def test_a_request_names_its_window_and_its_answer_stays_text() -> None:
    venue = Venue(good([ROW]))
    async with rest_of(venue, HastyClock()) as rest:
        assert await klines(rest) == [ROW]
    assert venue.asked[0].path == "/api/v3/klines"
    assert dict(venue.asked[0].query) == {
        "symbol": "BTCUSDT",
        "interval": "1m",
        "startTime": "1704067200000",
        "endTime": "1704067260000",
        "limit": "1000",
    }


async def test_recorded_rows_are_read() -> None:
    sample = json.loads(reference_path("data/binance/recorded/klines_1m_testnet_2026-06.json").read_text())
    async with rest_of(Venue(good(sample)), HastyClock()) as rest:
        assert await klines(rest) == sample


async def test_recorded_markets_are_read_and_the_venues_limit_is_taken() -> None:
    name = "data/binance/recorded/exchangeInfo_BTCUSDT_testnet_2026-06.json"
    sample = json.loads(reference_path(name).read_text())
    sample["rateLimits"][0]["limit"] = 1000
    async with rest_of(Venue(good(sample)), HastyClock(), weight_share=0.5) as rest:
        (market,) = await rest.markets(["BTCUSDT"])
        assert (market.symbol, market.baseAsset, market.quoteAsset, market.status) == (
            "BTCUSDT",
            "BTC",
            "USDT",
            "TRADING",
        )
        assert rest.budget.weight_max == 500


@pytest.mark.parametrize("status", [429, 418])
async def test_the_pause_that_the_venue_orders_is_kept_before_anything_is_asked_again(status: int) -> None:
    clock = HastyClock()
    body = '{"code":-1003,"msg":"Too much request weight used; current limit is 6000 request weight per 1 MINUTE."}'
    async with rest_of(Venue(bad(status, body, **{"Retry-After": "77"}), good([ROW])), clock) as rest:
        assert await klines(rest) == [ROW]
    assert max(clock.slept) >= 77


async def test_a_ban_without_a_header_is_read_from_its_text() -> None:
    sample = json.loads(reference_path("data/binance/recorded/error_418_-1003_2022-08.json").read_text())
    until = int((START + timedelta(minutes=9)).timestamp() * 1000)
    body = sample["body"] | {"msg": sample["body"]["msg"].replace("1660090423228", str(until))}
    async with rest_of(Venue(bad(sample["http_status"], json.dumps(body))), HastyClock(), attempts_max=1) as rest:
        with pytest.raises(RateLimited) as caught:
            await klines(rest)
        assert caught.value.retry_after_seconds == pytest.approx(540, abs=1)
        assert rest.budget.pause_seconds == pytest.approx(540, abs=1)


@pytest.mark.parametrize(
    "fault",
    [
        bad(500, '{"code":-1000,"msg":"An unknown error occurred"}'),
        bad(503, "<html>busy</html>"),
        bad(403, "<html>WAF</html>"),
        bad(200, '[[1704067200000,"1","3"'),
        bad(200, "<html>a proxy's greeting</html>"),
        bad(200, '{"answer": 42}'),
        bad(200, b"\xff\xfe"),
    ],
)
async def test_what_may_pass_is_asked_again(fault: Answer) -> None:
    venue = Venue(fault, fault, good([ROW]))
    async with rest_of(venue, HastyClock()) as rest:
        assert await klines(rest) == [ROW]
    assert len(venue.asked) == 3


async def test_what_stays_wrong_is_not_asked_again_and_keeps_the_venues_words() -> None:
    venue = Venue(bad(400, '{"code":-1121,"msg":"Invalid symbol."}'))
    async with rest_of(venue, HastyClock()) as rest:
        with pytest.raises(VenueError, match="Invalid symbol") as caught:
            await klines(rest)
    assert (caught.value.code, len(venue.asked)) == (-1121, 1)


async def test_a_server_that_always_fails_is_left_alone_for_a_while() -> None:
    clock = HastyClock()
    venue = Venue(bad(500, "no"))
    async with rest_of(venue, clock, attempts_max=1, breaker_threshold=3, breaker_seconds=60.0) as rest:
        for _ in range(3):
            with pytest.raises(VenueUnavailable):
                await klines(rest)
        with pytest.raises(RateLimited, match="not asked"):
            await klines(rest)
        assert len(venue.asked) == 3
        venue.answers = [good([ROW])]
        await clock.sleep(61)
        assert await klines(rest) == [ROW]


async def test_a_server_that_is_not_there_is_unavailable_and_says_where_it_was_looked_for() -> None:
    clock = HastyClock()
    rest = BinanceRest("http://127.0.0.1:9", clock=clock, policy=CallPolicy(attempts_max=3))
    with pytest.raises(VenueUnavailable, match="/api/v3/time"):
        await rest.server_time()
    assert len(clock.slept) == 2
    await rest.close()


async def test_weight_that_the_venue_counted_is_counted_here() -> None:
    async with rest_of(Venue(good([ROW], **{"X-MBX-USED-WEIGHT-1M": "1234"})), HastyClock()) as rest:
        await klines(rest)
        assert rest.budget.used == 1234


async def test_the_venues_clock_is_measured() -> None:
    theirs = int((START + timedelta(seconds=90)).timestamp() * 1000)
    async with rest_of(Venue(good({"serverTime": theirs})), HastyClock()) as rest:
        assert await rest.measure_clock() == timedelta(seconds=90)
        assert rest.now() == START + timedelta(seconds=90)

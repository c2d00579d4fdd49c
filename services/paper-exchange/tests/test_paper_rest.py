"""What REST says of the market, and what it says to a wrong question."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from paper_exchange.market.sources import SimulatedOptions, simulated_recording
from paper_exchange.rest.budget import BudgetRules
from paper_exchange.server import ExchangeOptions, PaperExchange
from paper_exchange.testing import exchange_of, simulated_file
from shared.clock import ManualClock, SystemClock

pytestmark = pytest.mark.thorough

MINUTE = 60_000


async def test_server_time_is_the_wall_clock_at_any_speed(get: Any) -> None:
    clock = ManualClock()
    async with exchange_of(options=ExchangeOptions(speed=500), clock=clock) as exchange:
        _, before = await get(exchange, "time")
        await clock.advance(2.5)
        _, after = await get(exchange, "time")
    assert before["serverTime"] == clock.now().timestamp() * 1000 - 2500
    assert after["serverTime"] - before["serverTime"] == 2500


async def test_the_forming_candle_comes_last_and_its_close_lies_ahead(get: Any) -> None:
    async with exchange_of(history_candles=5) as exchange:
        _, rows = await get(exchange, "klines", symbol="BTCUSDT", interval="1m")
        _, now = await get(exchange, "time")
    assert len(rows) == 6
    assert rows[-1][6] >= now["serverTime"] > rows[-2][6]
    assert [row[0] - rows[0][0] for row in rows] == [n * MINUTE for n in range(6)]


async def test_a_market_behind_the_clock_shows_only_candles_that_are_over(get: Any) -> None:
    file = simulated_file(rows=60)
    async with exchange_of(file, options=ExchangeOptions(speed=60), history_candles=20) as exchange:
        _, rows = await get(exchange, "klines", symbol="BTCUSDT", interval="1m")
        _, now = await get(exchange, "time")
    assert now["serverTime"] - rows[-1][6] < 41 * MINUTE
    assert [float(row[4]) for row in rows] == file.close[: len(rows)].tolist()
    assert len(rows) >= 20


async def test_at_the_end_of_a_fast_run_the_last_candle_closes_at_server_time(get: Any) -> None:
    file = simulated_file(rows=40)
    async with exchange_of(file, options=ExchangeOptions(speed=6000), history_candles=10) as exchange:
        await exchange.over()
        _, rows = await get(exchange, "klines", symbol="BTCUSDT", interval="1m")
        _, now = await get(exchange, "time")
    assert len(rows) == 40
    assert 0 < now["serverTime"] - rows[-1][6] < MINUTE + 5000


async def test_several_timeframes_of_one_symbol_are_told_from_their_own_files(get: Any) -> None:
    minutes, quarters = simulated_file(rows=60), simulated_file("BTC/USDT", "15m", rows=4, seed=9)
    async with exchange_of(minutes, quarters, options=ExchangeOptions(speed=6000), history_candles=0) as exchange:
        await exchange.over()
        _, short = await get(exchange, "klines", symbol="BTCUSDT", interval="1m")
        _, long = await get(exchange, "klines", symbol="BTCUSDT", interval="15m")
    assert [float(row[1]) for row in short] == minutes.open.tolist()
    assert [float(row[1]) for row in long] == quarters.open.tolist()
    assert {row[0] % (15 * MINUTE) for row in long} == {0}


@pytest.mark.parametrize("interval", ["3m", "5m", "15m", "1h", "4h", "1d", "3d", "1w", "1M"])
async def test_longer_intervals_are_made_of_the_candles_there_are(get: Any, interval: str) -> None:
    file = simulated_file(rows=600, without={100, 101, 102, 300})
    async with exchange_of(file, options=ExchangeOptions(speed=100_000), history_candles=590) as exchange:
        await exchange.over()
        _, rows = await get(exchange, "klines", symbol="BTCUSDT", interval=interval, limit=1000)
        _, minutes = await get(exchange, "klines", symbol="BTCUSDT", interval="1m", limit=1000)
    assert len(minutes) == 596
    assert sum(float(row[5]) for row in rows) == pytest.approx(file.volume.sum())
    assert sum(row[8] for row in rows) == sum(row[8] for row in minutes)
    for row in rows:
        inside = [minute for minute in minutes if row[0] <= minute[0] < row[6]]
        assert (row[1], row[4]) == (inside[0][1], inside[-1][4])
        assert float(row[2]) == max(float(minute[2]) for minute in inside)
        assert float(row[3]) == min(float(minute[3]) for minute in inside)


async def test_the_book_the_tickers_and_the_last_trade_tell_one_price(get: Any) -> None:
    clock = ManualClock()
    async with exchange_of(history_candles=30, clock=clock) as exchange:
        _, trades = await get(exchange, "trades", symbol="BTCUSDT", limit=100)
        _, price = await get(exchange, "ticker/price", symbol="BTCUSDT")
        _, top = await get(exchange, "ticker/bookTicker", symbol="BTCUSDT")
        _, book = await get(exchange, "depth", symbol="BTCUSDT", limit=5)
        _, day = await get(exchange, "ticker/24hr", symbol="BTCUSDT")
        _, forming = await get(exchange, "klines", symbol="BTCUSDT", interval="1m", limit=1)
    last = trades[-1]
    assert [trade["id"] for trade in trades] == list(range(trades[0]["id"], trades[0]["id"] + 100))
    assert price["price"] == day["lastPrice"] == last["price"] == forming[0][4]
    assert last["price"] in (top["bidPrice"], top["askPrice"])
    assert (top["bidPrice"], top["bidQty"]) == tuple(book["bids"][0])
    assert (top["askPrice"], top["askQty"]) == tuple(book["asks"][0])
    assert [level[0] for level in book["bids"]] == sorted((level[0] for level in book["bids"]), reverse=True)
    assert book["lastUpdateId"] == last["id"] == day["lastId"]


async def test_aggregate_trades_are_found_by_id_and_by_time(get: Any) -> None:
    async with exchange_of(history_candles=30, clock=ManualClock()) as exchange:
        _, newest = await get(exchange, "aggTrades", symbol="BTCUSDT", limit=50)
        _, by_id = await get(exchange, "aggTrades", symbol="BTCUSDT", fromId=newest[0]["a"], limit=50)
        span = {"startTime": newest[3]["T"], "endTime": newest[20]["T"]}
        _, by_time = await get(exchange, "aggTrades", symbol="BTCUSDT", **span)
        status, both = await get(exchange, "aggTrades", symbol="BTCUSDT", fromId=1, startTime=1)
    assert by_id == newest
    assert by_time == newest[3:21]
    assert (status, both["code"]) == (400, -1128)


async def test_times_come_in_microseconds_when_asked_for(session: aiohttp.ClientSession) -> None:
    async with exchange_of(history_candles=5, clock=ManualClock()) as exchange:
        path = f"{exchange.urls.rest}/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=2"
        async with session.get(path) as response:
            usual = await response.json()
        async with session.get(path, headers={"X-MBX-TIME-UNIT": "MICROSECOND"}) as response:
            fine = await response.json()
        since = f"{path}&startTime={fine[1][0]}"
        async with session.get(since) as response:
            found = await response.json()
    assert [row[0] for row in fine] == [row[0] * 1000 for row in usual]
    assert fine[0][6] == fine[1][0] - 1
    assert found == usual[1:]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("ping?x=1", -1101),
        ("klines?symbol=&interval=1m", -1102),
        ("klines?symbol=BTCUSDT", -1102),
        ("klines?symbol=BTCUSDT&interval=1m&limit=", -1105),
        ("klines?symbol=BTCUSDT&interval=1m&limit=-5", -1100),
        ("klines?symbol=BTCUSDT&interval=1m&startTime=1e5", -1100),
        ("klines?symbol=BTCUSDT&interval=1m&symbol=ETHUSDT", -1101),
        ("klines?symbol=BTCUSDT&interval=1m&timeZone=25:00", -1100),
        ("klines?symbol=btcusdt&interval=1m", -1100),
        ("klines?symbol=BTCUSDT&interval=1H", -1120),
        ("exchangeInfo?symbol=NIX", -1121),
        ("exchangeInfo?symbols=BTCUSDT", -1100),
        ("exchangeInfo?symbol=BTCUSDT&symbols=[%22BTCUSDT%22]", -1128),
        ("exchangeInfo?symbol=BTCUSDT&symbolStatus=TRADING", -1128),
        ("depth?limit=5", -1102),
        ("trades?symbol=BTCUSDT&fromId=1", -1104),
        ("ticker/24hr?symbol=BTCUSDT&type=SOME", -1130),
    ],
)
async def test_a_wrong_question_gets_the_protocol_s_own_code(get: Any, path: str, code: int) -> None:
    async with exchange_of() as exchange:
        status, body = await get(exchange, path)
    assert (status, body["code"]) == (400, code)


async def test_unknown_paths_and_methods_are_not_found(session: aiohttp.ClientSession, get: Any) -> None:
    async with exchange_of() as exchange:
        assert (await get(exchange, "nothing"))[0] == 404
        async with session.post(f"{exchange.urls.rest}/api/v3/klines") as response:
            assert response.status == 404
        async with session.get(f"{exchange.urls.rest}/ws/btcusdt@trade") as response:
            assert response.status == 404


async def test_weight_is_counted_in_the_headers_also_of_errors(session: aiohttp.ClientSession) -> None:
    async with exchange_of(clock=ManualClock()) as exchange:
        used = []
        for path in (
            "ping",
            "klines?symbol=BTCUSDT&interval=1m",
            "depth?symbol=BTCUSDT&limit=5000",
            "klines",
            "exchangeInfo",
        ):
            async with session.get(f"{exchange.urls.rest}/api/v3/{path}") as response:
                used.append(int(response.headers["X-MBX-USED-WEIGHT-1M"]))
                assert response.headers["X-MBX-USED-WEIGHT"] == response.headers["X-MBX-USED-WEIGHT-1M"]
    assert used == [1, 3, 253, 255, 275]


async def test_used_up_weight_gives_429_then_418_and_is_forgiven(session: aiohttp.ClientSession) -> None:
    clock = ManualClock()
    options = ExchangeOptions(budget=BudgetRules(weight_max=40, ignored_max=2, ban_seconds=120))
    seen = []

    async def ask() -> tuple[int, dict[str, Any], int | None]:
        async with session.get(f"{exchange.urls.rest}/api/v3/exchangeInfo") as response:
            after = response.headers.get("Retry-After")
            return response.status, await response.json(), None if after is None else int(after)

    async with exchange_of(options=options, clock=clock) as exchange:
        await clock.advance(10)
        seen = [await ask() for _ in range(6)]
        await clock.advance(50)
        still = await ask()
        await clock.advance(70)
        forgiven = await ask()
    assert [status for status, _, _ in seen] == [200, 200, 429, 429, 418, 418]
    assert [after for _, _, after in seen] == [None, None, 50, 50, 120, 120]
    assert {body["code"] for _, body, _ in seen[2:]} == {-1003}
    assert seen[2][1]["msg"].startswith(
        "Too much request weight used; current limit is 40 request weight per 1 MINUTE."
    )
    until_ms = int(clock.now().timestamp() * 1000)
    assert seen[4][1]["msg"].startswith(f"Way too much request weight used; IP banned until {until_ms}.")
    assert (still[0], still[2]) == (418, 70)
    assert forgiven[0] == 200


async def test_a_market_that_waits_begins_with_the_first_question_about_it(get: Any) -> None:
    file = simulated_file(rows=30)
    options = ExchangeOptions(speed=1000, wait=True)
    async with exchange_of(file, options=options, history_candles=10) as exchange:
        assert (await get(exchange, "exchangeInfo"))[0] == 200
        assert exchange.market.plan is None
        _, rows = await get(exchange, "klines", symbol="BTCUSDT", interval="1m")
        assert len(rows) == 10
        await asyncio.wait_for(exchange.over(), 20)


async def test_the_simulated_market_of_one_seed_is_the_same_every_time(get: Any) -> None:
    seen = []
    for seed in (3, 3, 4):
        recording = simulated_recording(SimulatedOptions(symbols=("SOL/USDT",), seed=seed, history_candles=50))
        async with PaperExchange(recording, ExchangeOptions(), SystemClock()).running() as urls:
            _, rows = await get(urls, "klines", symbol="SOLUSDT", interval="1m")
            seen.append([row[1:6] for row in rows[:50]])
    assert len(seen[0]) == 50
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize(("zone", "hours"), [("8", 8), ("+08:00", 8), ("-3:30", -3.5), ("0", 0)])
async def test_days_begin_at_midnight_of_the_zone_asked_for(get: Any, zone: str, hours: float) -> None:
    file = simulated_file(rows=1400)
    async with exchange_of(file, history_candles=1399) as exchange:
        _, days = await get(exchange, "klines", symbol="BTCUSDT", interval="1d", timeZone=zone)
        _, minutes = await get(exchange, "klines", symbol="BTCUSDT", interval="1m", timeZone=zone)
        _, most = await get(exchange, "klines", symbol="BTCUSDT", interval="1m", limit=5000)
    assert {int(row[0] + hours * 3_600_000) % 86_400_000 for row in days} == {0}
    assert sum(float(row[5]) for row in days) == pytest.approx(file.volume[:1399].sum(), rel=1e-2)
    assert (len(minutes), len(most)) == (500, 1000)

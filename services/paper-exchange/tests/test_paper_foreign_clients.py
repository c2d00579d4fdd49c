"""Programs of others that trade at the real exchange work with this one: ccxt, ccxt.pro and python-binance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import ccxt
import ccxt.async_support
import ccxt.pro
import pytest
from binance import AsyncClient, BinanceSocketManager, Client
from binance.exceptions import BinanceAPIException

from paper_exchange.rest.budget import BudgetRules
from paper_exchange.server import ExchangeOptions, ExchangeUrls, PaperExchange
from paper_exchange.testing import exchange_of, simulated_file
from shared.instruments import KNOWN, load_instruments

pytestmark = pytest.mark.thorough

SYMBOLS = ["BTC/USDT", "ETH/USDT"]
HISTORY = 40


@pytest.fixture
async def exchange() -> AsyncIterator[PaperExchange]:
    options = ExchangeOptions(speed=120, instruments=load_instruments(KNOWN, SYMBOLS).rules)
    files = [simulated_file(symbol, rows=1000) for symbol in SYMBOLS]
    async with exchange_of(*files, options=options, history_candles=HISTORY) as running:
        yield running


def ccxt_options(urls: ExchangeUrls) -> dict[str, Any]:
    """Return what points ccxt at a local exchange; it knows the spot market by `/stream` in the address."""
    return {
        "enableRateLimit": False,
        "urls": {
            "api": {
                "public": f"{urls.rest}/api/v3",
                "private": f"{urls.rest}/api/v3",
                "v1": f"{urls.rest}/api/v1",
                "sapi": f"{urls.rest}/sapi/v1",
                "ws": {"spot": f"{urls.stream}/stream.local/ws"},
            }
        },
        "options": {"defaultType": "spot", "fetchMarkets": ["spot"], "fetchCurrencies": False, "fetchMargins": False},
    }


async def test_ccxt_reads_markets_candles_tickers_trades_and_the_book(exchange: PaperExchange) -> None:
    file = simulated_file("BTC/USDT", rows=1000)
    async with ccxt.async_support.binance(ccxt_options(exchange.urls)) as client:
        markets = await client.load_markets()
        candles = await client.fetch_ohlcv("BTC/USDT", "1m", limit=20)
        ticker = await client.fetch_ticker("BTC/USDT")
        tickers = await client.fetch_tickers(SYMBOLS)
        trades = await client.fetch_trades("BTC/USDT", limit=10)
        book = await client.fetch_order_book("BTC/USDT", 5)
        since = await client.fetch_ohlcv("BTC/USDT", "1m", since=candles[3][0], limit=5)
        server_ms = await client.fetch_time()
    market = markets["BTC/USDT"]
    assert (market["spot"], market["active"], market["precision"]["price"]) == (True, True, 0.01)
    assert market["limits"]["cost"]["min"] == 5
    shift = exchange.market.plan.shift_ms if exchange.market.plan else 0
    recorded = {int(at) + shift: close for at, close in zip(file.open_time_ms, file.close, strict=True)}
    assert len(candles) == 20
    assert all(recorded[row[0]] == row[4] for row in candles)
    assert since == candles[3:8]
    assert file.low.min() <= ticker["last"] <= file.high.max()
    assert set(tickers) == set(SYMBOLS)
    assert trades[0]["price"] > 0
    assert book["bids"][0][0] < book["asks"][0][0]
    assert abs(server_ms - exchange.market.server_ms()) < 60_000


async def test_ccxt_pro_hears_candles_trades_and_tickers(exchange: PaperExchange) -> None:
    async with ccxt.pro.binance(ccxt_options(exchange.urls)) as client:
        opens = set()
        while len(opens) < 3:
            opens |= {row[0] for row in await asyncio.wait_for(client.watch_ohlcv("BTC/USDT", "1m"), 20)}
        trades = await asyncio.wait_for(client.watch_trades("ETH/USDT"), 20)
        ticker = await asyncio.wait_for(client.watch_ticker("BTC/USDT"), 20)
        book = await asyncio.wait_for(client.watch_order_book("BTC/USDT"), 20)
    assert {open_ms % 60_000 for open_ms in opens} == {0}
    assert trades[0]["symbol"] == "ETH/USDT"
    assert ticker["last"] > 0
    assert book["bids"][0][0] < book["asks"][0][0]


async def test_ccxt_knows_the_errors(exchange: PaperExchange) -> None:
    async with ccxt.async_support.binance(ccxt_options(exchange.urls)) as client:
        with pytest.raises(ccxt.BadSymbol):
            await client.public_get_klines({"symbol": "NIXUSDT", "interval": "1m"})
        with pytest.raises(ccxt.BadRequest):
            await client.public_get_klines({"symbol": "BTCUSDT", "interval": "7m"})


async def test_ccxt_takes_used_up_weight_for_what_it_is() -> None:
    options = ExchangeOptions(budget=BudgetRules(weight_max=10, ignored_max=0))
    async with (
        exchange_of(options=options) as exchange,
        ccxt.async_support.binance(ccxt_options(exchange.urls)) as client,
    ):
        await client.public_get_ping()
        with pytest.raises(ccxt.DDoSProtection, match="418"):
            await client.public_get_exchangeinfo()


@pytest.fixture
def python_binance(exchange: PaperExchange, monkeypatch: pytest.MonkeyPatch) -> ExchangeUrls:
    """Point python-binance at the exchange: its addresses are attributes of classes."""
    urls = exchange.urls
    for client in (Client, AsyncClient):
        monkeypatch.setattr(client, "API_URL", f"{urls.rest}/api")
    monkeypatch.setattr(BinanceSocketManager, "STREAM_URL", f"{urls.stream}/")
    return urls


async def test_python_binance_asks_synchronously(exchange: PaperExchange, python_binance: ExchangeUrls) -> None:
    def ask() -> tuple[Any, ...]:
        client = Client()
        info = client.get_symbol_info("BTCUSDT")
        rows = client.get_klines(symbol="BTCUSDT", interval="1m", limit=30)
        paged = client.get_historical_klines("BTCUSDT", "1m", rows[0][0], rows[-1][0])
        return (
            info,
            rows,
            paged,
            client.get_all_tickers(),
            client.get_ticker(symbol="ETHUSDT"),
            client.get_recent_trades(symbol="BTCUSDT"),
        )

    info, rows, paged, prices, day, trades = await asyncio.to_thread(ask)
    assert info["filters"][0]["tickSize"] == "0.01000000"
    assert paged == rows
    assert {row["symbol"] for row in prices} == {"BTCUSDT", "ETHUSDT"}
    assert float(day["lastPrice"]) > 0
    assert len(trades) > HISTORY


async def test_python_binance_hears_one_and_several_streams(
    exchange: PaperExchange, python_binance: ExchangeUrls
) -> None:
    client = await AsyncClient.create()
    try:
        manager = BinanceSocketManager(client)
        async with manager.kline_socket("BTCUSDT", interval="1m") as socket:
            events = [await asyncio.wait_for(socket.recv(), 20) for _ in range(10)]
        names = ["btcusdt@kline_1m", "ethusdt@trade"]
        async with manager.multiplex_socket(names) as socket:
            several = [await asyncio.wait_for(socket.recv(), 20) for _ in range(10)]
        with pytest.raises(BinanceAPIException) as refused:
            await client.get_klines(symbol="NIXUSDT", interval="1m")
    finally:
        await client.close_connection()
    assert any(event["k"]["x"] for event in events)
    assert {event["stream"] for event in several} == set(names)
    assert (refused.value.code, refused.value.status_code) == (-1121, 400)

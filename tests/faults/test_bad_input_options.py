"""A mistake in an option ends the command before anything was touched, with what was found and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

UP = ("up", "--health-port", "0", "--duration", "0.1")
RUN = ("run", "order-executor", "--database-url", "sqlite:///no.db", "--redis-url", "unix:///no.sock")


class Row(NamedTuple):
    """A command and what must be said."""

    arguments: tuple[str, ...]
    fragments: tuple[str, ...]


ROWS = {
    "no such command": Row(("upp",), ("'upp'", "did you mean 'up'?")),
    "no such option": Row((*UP, "--sped", "3"), ("--sped", "--speed")),
    "an option without its value": Row(("up", "--speed"), ("--speed", "requires an argument")),
    "an argument nobody asked for": Row((*UP, "now"), ("unexpected extra argument",)),
    "no such service": Row(("run", "order-executer"), ("order-executer", "order-executor")),
    "no service": Row(("run",), ("Missing argument",)),
    "speed: a word": Row((*UP, "--speed", "abc"), ("--speed", "'abc' is not a number", "or max")),
    "speed: zero": Row((*UP, "--speed", "0"), ("--speed", "above 0, or max", "'0'")),
    "speed: negative": Row((*UP, "--speed", "-1"), ("--speed", "above 0, or max")),
    "speed: NaN": Row((*UP, "--speed", "nan"), ("--speed", "not a finite number")),
    "duration: negative": Row(("up", "--duration", "-1"), ("--duration", "greater than or equal to 0", "'-1'")),
    "duration: infinite": Row(("up", "--duration", "inf"), ("--duration", "finite", "'inf'")),
    "duration: a unit": Row(("up", "--duration", "5s"), ("--duration", "valid number", "'5s'")),
    "seed: negative": Row((*UP, "--seed", "-1"), ("--seed", "greater than or equal to 0")),
    "seed: a fraction": Row((*UP, "--seed", "1.5"), ("--seed", "integer", "'1.5'")),
    "balance: NaN": Row((*UP, "--balance", "NaN"), ("--balance", "finite", "'NaN'")),
    "balance: negative": Row((*UP, "--balance", "-5"), ("--balance", "greater than 0", "'-5'")),
    "balance: a comma": Row((*UP, "--balance", "10,000"), ("--balance", "valid decimal", "'10,000'")),
    "symbols: bare": Row((*UP, "--symbols", "BTCUSDT"), ("--symbols", "'BTCUSDT'", "BTC/USDT")),
    "symbols: small letters": Row((*UP, "--symbols", "btc/usdt"), ("--symbols", "capitals", "BTC/USDT")),
    "symbols: two quotes": Row((*UP, "--symbols", "BTC/USDT,ETH/EUR"), ("one quote currency", "EUR, USDT")),
    "symbols: twice": Row((*UP, "--symbols", "BTC/USDT,BTC/USDT"), ("BTC/USDT is named twice",)),
    "symbols: none": Row((*UP, "--symbols", ","), ("--symbols", "empty")),
    "timeframes: unknown": Row((*UP, "--timeframes", "7m"), ("--timeframes", "'7m' is unknown", "15m")),
    "strategies: near match": Row((*UP, "--strategies", "rsy"), ("'rsy'", "did you mean 'rsi'?")),
    "strategies: twice": Row((*UP, "--strategies", "rsi,rsi"), ("rsi is named twice",)),
    "strategies: a path": Row((*UP, "--strategies", "../rsi"), ("'../rsi'", "letters, digits")),
    "strategies-dir: missing": Row((*UP, "--strategies-dir", "nowhere"), ("nowhere", "no such folder")),
    "strategy-params: not JSON": Row((*UP, "--strategy-params", "rsi=14"), ("--strategy-params", "not JSON")),
    "strategy-params: near match": Row(
        (*UP, "--strategy-params", '{"rsi": {"perod": 9}}'), ("strategy_params rsi", "perod", "period")
    ),
    "strategy-params: impossible": Row(
        (*UP, "--strategy-params", '{"macd": {"fast_period": 30}}'), ("strategy_params macd", "fast_period")
    ),
    "sizing: no such form": Row((*UP, "--sizing", "kelly:1"), ("--sizing", "fixed, quote:N")),
    "sizing: without a number": Row((*UP, "--sizing", "quote"), ("--sizing", "quote:N")),
    "sizing: above 1": Row((*UP, "--sizing", "equity_fraction:1.5"), ("equity_fraction", "at most 1")),
    "sizing: NaN": Row((*UP, "--sizing", "quote:nan"), ("not a finite number",)),
    "sizing: risk without a stop": Row(
        (*UP, "--sizing", "risk:1", "--risk-stop-loss-pct", "0"), ("loss at the stop", "set a stop")
    ),
    "allocation: above 1": Row((*UP, "--allocation", "rsi=1.5"), ("share of rsi", "at most 1")),
    "allocation: together above 1": Row((*UP, "--allocation", "rsi=0.6,macd=0.6"), ("sum to 1.2",)),
    "allocation: no such strategy": Row((*UP, "--allocation", "rsy=0.5"), ("'rsy' names no instance",)),
    "max-entries: negative": Row((*UP, "--max-entries", "-1"), ("--max-entries", "greater than or equal to 0")),
    "risk: a word": Row((*UP, "--risk", "on"), ("--risk", "'live' or 'off'", "'on'")),
    "risk-max-position-size: zero": Row((*UP, "--risk-max-position-size", "0"), ("greater than 0",)),
    "risk-stop-loss-pct: 100": Row((*UP, "--risk-stop-loss-pct", "100"), ("less than 100",)),
    "fee-taker: per cent": Row((*UP, "--fee-taker", "1"), ("--fee-taker", "less than 1", "fraction")),
    "fee-asset: unknown": Row((*UP, "--fee-asset", "base"), ("--fee-asset", "'quote', 'received' or 'bnb'")),
    "slippage-bps: negative": Row((*UP, "--slippage-bps", "-2"), ("--slippage-bps", "greater than or equal to 0")),
    "instrument: missing": Row((*UP, "--instrument", "rules.yaml"), ("rules.yaml", "is no file", "`free`")),
    "feed: unknown": Row((*UP, "--feed", "simulate"), ("--feed", "simulated", "'simulate'")),
    "feed: replay without data": Row((*UP, "--feed", "replay"), ("data", "--data")),
    "feed: data without replay": Row((*UP, "--data", "BTC/USDT:1m=a.csv"), ("feed is simulated", "--feed replay")),
    "data: malformed": Row((*UP, "--feed", "replay", "--data", "a.csv"), ("'a.csv'", "SYMBOL:TIMEFRAME=FILE")),
    "data: symbol absent": Row(
        (*UP, "--feed", "replay", "--data", "BTC/USDT:1m=a.csv", "--symbols", "ETH/USDT"), ("BTC/USDT", "symbols")
    ),
    "mode: unknown": Row((*UP, "--mode", "real"), ("--mode", "'paper', 'testnet' or 'live'", "'real'")),
    "mode: live without the words": Row((*UP, "--mode", "live"), ("--i-understand-live", "nothing was connected")),
    "mode: testnet": Row((*UP, "--mode", "testnet"), ("no testnet venue", "TRADING_MODE=paper")),
    "log-level: unknown": Row((*UP, "--log-level", "LOUD"), ("--log-level", "'DEBUG'", "'LOUD'")),
    "health-port: out of range": Row(("up", "--health-port", "70000"), ("--health-port", "65535", "'70000'")),
    "json: a folder that is not there": Row((*UP, "--json", "nowhere/out.json"), ("--json", "nowhere", "no folder")),
    "database-url: no scheme": Row((*UP, "--database-url", "var/trading.db"), ("--database-url", "sqlite://")),
    "redis-url: another server": Row((*UP, "--redis-url", "mysql://h/1"), ("--redis-url", "redis://", "mysql://")),
    "run: a value out of range": Row(
        (*RUN, "--batch-rows-max", "0"), ("--batch-rows-max", "greater than or equal to 1")
    ),
    "run: no addresses": Row(("run", "strategy-engine"), ("database_url", "DATABASE_URL")),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_option_is_refused_and_touches_nothing(
    name: str, trading: Any, refused: Any, clean_place: Path
) -> None:
    row = ROWS[name]
    refused(trading(*row.arguments), *row.fragments)
    left = {path.name for path in clean_place.rglob("*") if path.is_file()} - {"lock", "trading up.jsonl"}
    assert not left, f"{name} left {left}"

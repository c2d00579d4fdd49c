"""Values of settings: text, as a person writes it, into typed values, or a `ValueError` that says how to write it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, Field

TIMEFRAMES: Final = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")
DATABASE_SCHEMES: Final = ("postgresql", "postgres", "postgresql+asyncpg", "sqlite", "sqlite+aiosqlite")
TELEGRAM_TOPICS: Final = ("signals", "orders", "refusals", "errors", "summary")
REDIS_SCHEMES: Final = ("redis", "rediss", "unix", "memory")
_QUOTES: Final = ("FDUSD", "USDT", "USDC", "TUSD", "BUSD", "USD", "EUR", "TRY", "BTC", "ETH", "BNB")
_ASSET: Final = r"[^\s/:=,@;]{1,30}"
_SYMBOL: Final = re.compile(rf"{_ASSET}/{_ASSET}")
_BARE_SYMBOL: Final = re.compile(r"[A-Za-z0-9_.-]{2,60}")
_FEED: Final = re.compile(r"simulated|replay|binance|ccxt(:[a-z0-9_]{1,40})?")
_STRATEGY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_ALLOCATION: Final = re.compile(r"(?P<strategy>[^@=]+)(?:@(?P<symbol>[^:=]+)(?::(?P<timeframe>[^=]+))?)?=(?P<share>.+)")
_DATA_FILE: Final = re.compile(r"(?P<symbol>[^:=]+):(?P<timeframe>[^=]+)=(?P<path>.+)", re.DOTALL)


class DataFile(NamedTuple):
    """One file of candles for one stream of a replay."""

    symbol: str
    timeframe: str
    path: Path


class Allocation(NamedTuple):
    """A share of equity at start for the instances it names, divided equally among them; "" means every one."""

    strategy: str
    symbol: str
    timeframe: str
    share: Decimal


def parse_list(value: Any) -> tuple[str, ...]:
    """Return the items of comma-separated text, or of any collection of texts."""
    if isinstance(value, str):
        items: Iterable[Any] = value.split(",")
    elif isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        items = value
    else:
        raise ValueError("expected a comma-separated list")
    texts = tuple(str(item).strip() for item in items)
    if isinstance(value, str) and texts == ("",):
        return ()
    if "" in texts:
        raise ValueError("an item of the list is empty; separate items by one comma")
    return texts


def _refuse_repeats(items: tuple[str, ...]) -> None:
    for place, item in enumerate(items):
        if item in items[:place]:
            raise ValueError(f"{item} is named twice")


def parse_symbol(text: str) -> str:
    """Return `text` if it is a symbol in the one canonical form, BASE/QUOTE in capitals."""
    if "/" not in text:
        upper = text.upper()
        quote = next((quote for quote in _QUOTES if upper.endswith(quote) and len(upper) > len(quote)), "")
        example = f"{upper.removesuffix(quote)}/{quote}" if quote else "BTC/USDT"
        raise ValueError(f"{text!r} is not of the form BASE/QUOTE; write it with a slash, for example {example}")
    if not _SYMBOL.fullmatch(text):
        raise ValueError(f"{text!r} is not of the form BASE/QUOTE, for example BTC/USDT")
    if text != text.upper():
        raise ValueError(f"{text!r} must be in capitals; write {text.upper()}")
    base, _, quote = text.partition("/")
    if base == quote:
        raise ValueError(f"{text!r} trades a currency against itself")
    return text


def parse_symbols(value: Any) -> tuple[str, ...]:
    """Return a list of symbols, none twice; a venue's own name (BTCUSDT) stays as it is until the venue is asked."""
    symbols = tuple(item if _BARE_SYMBOL.fullmatch(item) else parse_symbol(item) for item in parse_list(value))
    if not symbols:
        raise ValueError("at least one symbol is needed, for example BTC/USDT")
    _refuse_repeats(symbols)
    return symbols


def parse_feed(value: Any) -> str:
    """Return `value` if it names a feed."""
    text = str(value).strip()
    if not _FEED.fullmatch(text):
        raise ValueError("expected simulated, replay, binance, ccxt or ccxt:EXCHANGE")
    return text


def parse_timeframe(text: str) -> str:
    """Return `text` if it is a timeframe the platform knows."""
    if text not in TIMEFRAMES:
        raise ValueError(f"timeframe {text!r} is unknown; known are {', '.join(TIMEFRAMES)}")
    return text


def parse_timeframes(value: Any) -> tuple[str, ...]:
    """Return a list of timeframes, none twice."""
    timeframes = tuple(parse_timeframe(item) for item in parse_list(value))
    if not timeframes:
        raise ValueError(f"at least one timeframe is needed; known are {', '.join(TIMEFRAMES)}")
    _refuse_repeats(timeframes)
    return timeframes


def parse_strategies(value: Any) -> tuple[str, ...]:
    """Return a list of strategy names; empty means every enabled one."""
    names = parse_list(value)
    for name in names:
        if not _STRATEGY.fullmatch(name):
            raise ValueError(f"strategy name {name!r} may hold letters, digits and underscores only")
    _refuse_repeats(names)
    return names


def parse_topics(value: Any) -> tuple[str, ...]:
    """Return kinds of message; empty means none."""
    topics = parse_list(value)
    for topic in topics:
        if topic not in TELEGRAM_TOPICS:
            raise ValueError(f"topic {topic!r} is unknown; known are {', '.join(TELEGRAM_TOPICS)}")
    _refuse_repeats(topics)
    return topics


def parse_number(text: Any, what: str) -> Decimal:
    """Return a finite Decimal, or say what is wrong with it."""
    try:
        number = Decimal(str(text).strip())
    except InvalidOperation:
        raise ValueError(f"{what} {text!r} is not a number") from None
    if not number.is_finite():
        raise ValueError(f"{what} {text!r} is not a finite number")
    return number


def parse_sizing(value: Any) -> str:
    """Return a sizing rule: fixed, quote:N, equity_fraction:F (0 < F <= 1) or risk:P (0 < P < 100, per cent)."""
    rule, colon, text = str(value).strip().partition(":")
    if rule == "fixed" and not colon:
        return rule
    if rule not in {"quote", "equity_fraction", "risk"} or not colon:
        raise ValueError("expected fixed, quote:N, equity_fraction:F or risk:P")
    number = parse_number(text, f"the number of {rule}")
    above = {"quote": None, "equity_fraction": Decimal(1), "risk": Decimal(100)}[rule]
    if number <= 0 or (above is not None and number > above):
        limit = "" if above is None else f" and at most {above}"
        raise ValueError(f"the number of {rule} must be above 0{limit}")
    return f"{rule}:{number:f}"


def parse_allocation(value: Any) -> tuple[Allocation, ...]:
    """Return shares written `strategy[@SYMBOL[:TIMEFRAME]]=share`; each in (0, 1], together at most 1."""
    if isinstance(value, Mapping):
        value = [f"{name}={share}" for name, share in value.items()]
    items = value if isinstance(value, tuple) and all(isinstance(item, Allocation) for item in value) else None
    shares = tuple(items) if items is not None else tuple(_one_allocation(text) for text in parse_list(value))
    _refuse_repeats(tuple("@".join(item[:3]).rstrip("@") for item in shares))
    total = sum((item.share for item in shares), Decimal(0))
    if total > 1:
        raise ValueError(f"the shares sum to {total}, which is above 1")
    return shares


def _one_allocation(text: str) -> Allocation:
    match = _ALLOCATION.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not of the form strategy=share, strategy@SYMBOL=share or strategy@SYMBOL:1m=share"
        )
    (strategy,) = parse_strategies([match["strategy"]])
    symbol = parse_symbol(match["symbol"]) if match["symbol"] else ""
    timeframe = parse_timeframe(match["timeframe"]) if match["timeframe"] else ""
    share = parse_number(match["share"], "the share")
    if not 0 < share <= 1:
        raise ValueError(f"the share of {strategy} must be above 0 and at most 1, was {share}")
    return Allocation(strategy, symbol, timeframe, share)


def parse_data_files(value: Any) -> tuple[DataFile, ...]:
    """Return the files of a replay, written SYMBOL:TIMEFRAME=FILE."""
    if isinstance(value, tuple | list) and all(isinstance(item, DataFile) for item in value):
        files = tuple(value)
    else:
        files = tuple(_one_data_file(text) for text in parse_list(value))
    _refuse_repeats(tuple(f"{item.symbol}:{item.timeframe}" for item in files))
    return files


def _one_data_file(text: str) -> DataFile:
    match = _DATA_FILE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not of the form SYMBOL:TIMEFRAME=FILE, for example BTC/USDT:1m=candles.parquet")
    return DataFile(
        parse_symbol(match["symbol"]), parse_timeframe(match["timeframe"]), Path(match["path"]).expanduser()
    )


def parse_speed(value: Any) -> float:
    """Return a factor of real time above 0; `max` is infinity."""
    if isinstance(value, str) and value.strip().lower() == "max":
        return math.inf
    if isinstance(value, float) and value == math.inf:
        return value
    speed = parse_number(value, "speed")
    if speed <= 0:
        raise ValueError("expected a factor of real time above 0, or max")
    return float(speed)


def parse_strategy_params(value: Any) -> dict[str, dict[str, Any]]:
    """Return `{strategy: {parameter: value}}` from a mapping or from its JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f'not JSON ({error}); write for example {{"rsi": {{"period": 21}}}}') from None
    if not isinstance(value, Mapping) or not all(isinstance(params, Mapping) for params in value.values()):
        raise ValueError('expected parameters by strategy, for example {"rsi": {"period": 21}}')
    return {str(name): dict(params) for name, params in value.items()}


def parse_url(value: Any, schemes: tuple[str, ...]) -> str:
    """Return a URL of a known scheme; a refusal shows the scheme only, since the rest may hold a password."""
    url = str(value).strip()
    scheme, mark, _ = url.partition("://")
    if url and (not mark or scheme not in schemes):
        found = f"was {scheme}://..." if mark else "had no ://"
        raise ValueError(f"expected a URL that begins with {', '.join(f'{name}://' for name in schemes)}; {found}")
    return url


def url_secrets(url: str) -> tuple[str, ...]:
    """Return the password of a URL as it is written and as it is meant."""
    try:
        password = urlsplit(url).password
    except ValueError:  # such as an unclosed bracket: what cannot be taken apart is hidden whole
        return (url,)
    return tuple(dict.fromkeys((password, unquote(password)))) if password else ()


# The types of the schema: what a value is and which range is possible.
type Text = Annotated[str, Field(max_length=1000)]
type Amount = Annotated[Decimal, Field(ge=0)]
type Rate = Annotated[Decimal, Field(ge=0, lt=1)]
type Percent = Annotated[Decimal, Field(ge=0, le=100)]
type StopPercent = Annotated[Decimal, Field(ge=0, lt=100)]
type Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
type PositiveSeconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
type Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
type CountOrNone = Annotated[int, Field(ge=0, le=1_000_000_000)]
type Port = Annotated[int, Field(ge=0, le=65535)]
type Symbols = Annotated[tuple[str, ...], BeforeValidator(parse_symbols)]
type Timeframes = Annotated[tuple[str, ...], BeforeValidator(parse_timeframes)]
type Strategies = Annotated[tuple[str, ...], BeforeValidator(parse_strategies)]
type Topics = Annotated[tuple[str, ...], BeforeValidator(parse_topics)]
type DataFiles = Annotated[tuple[DataFile, ...], BeforeValidator(parse_data_files)]
type Allocations = Annotated[tuple[Allocation, ...], BeforeValidator(parse_allocation)]
type Sizing = Annotated[str, BeforeValidator(parse_sizing)]
type Speed = Annotated[float, BeforeValidator(parse_speed)]
type StrategyParams = Annotated[dict[str, dict[str, Any]], BeforeValidator(parse_strategy_params)]
type RedisUrl = Annotated[str, BeforeValidator(partial(parse_url, schemes=REDIS_SCHEMES))]
type DatabaseUrl = Annotated[str, BeforeValidator(partial(parse_url, schemes=DATABASE_SCHEMES))]
type HttpUrl = Annotated[str, BeforeValidator(partial(parse_url, schemes=("https", "http")))]
type StreamUrl = Annotated[str, BeforeValidator(partial(parse_url, schemes=("wss", "ws")))]
type FeedName = Annotated[str, BeforeValidator(parse_feed)]
type LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(lambda value: str(value).strip().upper())
]
type Balance = Annotated[Decimal, Field(gt=0, le=10**15)]

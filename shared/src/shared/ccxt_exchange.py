"""One exchange through ccxt, REST only: its markets, its clock, its candles; imported only where it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import ccxt.async_support as ccxt

from shared.clock import Clock
from shared.errors import ConfigError, RateLimited, VenueError, VenueUnavailable
from shared.resilience import CircuitBreaker, Outside
from shared.venue_markets import Market, find_markets

TEXT_MAX: Final = 300
REQUEST_SECONDS_MAX: Final = 15.0
RATE_LIMIT_SECONDS: Final = 30.0
# Where one exchange class serves several kinds of market, only spot is loaded.
_SPOT_ONLY: Final[Mapping[str, Any]] = {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}}


class CcxtExchange:
    """What a candle feed needs of an exchange; every error is one of ours."""

    def __init__(self, exchange: Any, clock: Clock) -> None:
        self.outside = Outside(f"{exchange.id} rest", CircuitBreaker(clock=clock))
        self._exchange = exchange
        self._clock = clock
        self.offset = timedelta(0)  # the venue's clock less ours, as last measured
        self._tell_breaker: Callable[[str, str], object] = lambda _name, _state: None

    def tell_breaker(self, tell: Callable[[str, str], object]) -> None:
        """Let `tell` have the breaker's name and state now and after each call; fits `ServiceMetrics.breaker`."""
        self._tell_breaker = tell
        tell(self.outside.name, self.outside.breaker.state.value)

    @property
    def name(self) -> str:
        """Return ccxt's name of the exchange."""
        return str(self._exchange.id)

    @property
    def timeframes(self) -> frozenset[str]:
        """Return the timeframes that the exchange serves."""
        return frozenset(self._exchange.timeframes or ())

    def now(self) -> datetime:
        """Return the venue's time as well as we know it."""
        return self._clock.now() + self.offset

    async def measure_clock(self) -> timedelta:
        """Measure the venue's clock where it has one to ask."""
        if self._exchange.has.get("fetchTime"):
            sent_at, start = self._clock.now(), self._clock.monotonic()
            theirs = datetime.fromtimestamp(int(await self._call("fetch_time")) / 1000, UTC)
            self.offset = theirs - (sent_at + timedelta(seconds=(self._clock.monotonic() - start) / 2))
        return self.offset

    async def markets(self, wanted: Sequence[str]) -> dict[str, Market]:
        """Return the market of each wanted name."""
        rows = (await self._call("load_markets")).values()
        known = [
            Market(row["symbol"], str(row["id"]), row.get("active") is not False)
            for row in rows
            if row.get("spot") and "/" in row["symbol"] and ":" not in row["symbol"]
        ]
        return find_markets(wanted, known, self.name)

    async def candles(self, symbol: str, timeframe: str, since_ms: int | None, limit: int) -> list[list[Any]]:
        """Return rows `[open time, open, high, low, close, volume]` from `since_ms` on (None: the newest ones).

        The newest of all may still be forming.
        """
        rows: list[list[Any]] = await self._call("fetch_ohlcv", symbol, timeframe, since_ms, limit)
        return rows

    async def close(self) -> None:
        """Close the connections."""
        await self._exchange.close()

    async def _call(self, method: str, *args: Any) -> Any:
        try:
            with self.outside.calling(VenueUnavailable, lambda reason: VenueUnavailable(self.name, reason)):
                return await self._ask(method, *args)
        finally:
            self._tell_breaker(self.outside.name, self.outside.breaker.state.value)

    async def _ask(self, method: str, *args: Any) -> Any:
        try:
            return await getattr(self._exchange, method)(*args)
        except ccxt.BadSymbol as error:
            raise ConfigError(f"symbols: {self.name}: {error}"[:TEXT_MAX]) from None
        except (ccxt.RateLimitExceeded, ccxt.DDoSProtection) as error:
            raise RateLimited(self.name, _text(error), RATE_LIMIT_SECONDS) from error
        except ccxt.NetworkError as error:
            raise VenueUnavailable(self.name, _text(error)) from error
        except ccxt.BaseError as error:
            raise VenueError(self.name, _text(error)) from error
        except (OSError, TimeoutError) as error:
            raise VenueUnavailable(self.name, _text(error)) from error


def open_exchange(name: str, base_url: str, clock: Clock) -> CcxtExchange:
    """Return the exchange that ccxt calls `name`; `base_url` replaces the scheme and host of its REST addresses."""
    if name not in ccxt.exchanges:
        close = get_close_matches(name, ccxt.exchanges, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(close)}?" if close else "`feed: ccxt:kraken` names one"
        raise ConfigError(f"exchange: ccxt has no exchange {name!r}; {hint}")
    options = dict(_SPOT_ONLY) if name.startswith("binance") else {}
    exchange = getattr(ccxt, name)(
        {"enableRateLimit": True, "timeout": int(REQUEST_SECONDS_MAX * 1000), "options": options}
    )
    if not exchange.has.get("fetchOHLCV"):
        raise ConfigError(f"exchange: {name} serves no candles; choose another one")
    exchange.number = str  # prices stay the text that the exchange sent
    if base_url:
        exchange.urls["api"] = _rehosted(exchange.urls["api"], base_url)
    return CcxtExchange(exchange, clock)


def _rehosted(urls: Any, base_url: str) -> Any:
    if isinstance(urls, dict):
        return {key: _rehosted(value, base_url) for key, value in urls.items()}
    if not isinstance(urls, str):
        return urls
    base, own = urlsplit(base_url), urlsplit(urls)
    return urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + own.path, own.query, ""))


def _text(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:TEXT_MAX]

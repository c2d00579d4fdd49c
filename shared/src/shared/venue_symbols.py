"""Symbols as a person wrote them become those of the venue, before anything is built on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.binance_rest import UNKNOWN_SYMBOL, BinanceRest, CallPolicy
from shared.clock import Clock
from shared.config import Settings
from shared.errors import ConfigError, TradingError, VenueError
from shared.venue_markets import Market, find_markets


async def binance_markets(rest: BinanceRest, wanted: Sequence[str]) -> dict[str, Market]:
    """Return the market of each wanted name, asking Binance for those only unless one is unknown."""
    ids = list(dict.fromkeys(name.replace("/", "").upper() for name in wanted))
    try:
        infos = await rest.markets(ids)
    except VenueError as error:
        if error.code != UNKNOWN_SYMBOL:
            raise
        infos = await rest.markets()  # what may have been meant is among all of them
    markets = [Market(f"{info.baseAsset}/{info.quoteAsset}", info.symbol, info.status == "TRADING") for info in infos]
    return find_markets(wanted, markets, "binance")


def has_bare_symbols(settings: Settings) -> bool:
    """Return whether a symbol is still in the venue's own form."""
    return any("/" not in symbol for symbol in settings.symbols)


async def resolve_symbols(settings: Settings, clock: Clock) -> Settings:
    """Return settings whose symbols are all BASE/QUOTE: bare ones are looked up at the venue, never guessed.

    Raises
    ------
    ConfigError
        A name that the venue does not know, or a venue that does not answer.
    """
    if not has_bare_symbols(settings):
        return settings
    try:
        found = await _look_up(settings, clock)
    except ConfigError:
        raise
    except TradingError as error:
        bare = ", ".join(symbol for symbol in settings.symbols if "/" not in symbol)
        raise ConfigError(
            f"symbols: {bare} cannot be looked up, the venue does not answer ({error}); write BASE/QUOTE or try again"
        ) from None
    symbols = tuple(dict.fromkeys(found[name].symbol for name in settings.symbols))
    given: dict[str, Any] = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Settings(_environment={}, **{**given, "symbols": symbols})


async def _look_up(settings: Settings, clock: Clock) -> dict[str, Market]:
    if settings.feed_kind == "ccxt":
        from shared.ccxt_exchange import open_exchange  # ccxt takes a second to import

        exchange = open_exchange(settings.exchange_name, settings.exchange_url, clock)
        try:
            return await exchange.markets(settings.symbols)
        finally:
            await exchange.close()
    rest = BinanceRest(settings.binance_rest_url, clock=clock, policy=call_policy(settings))
    try:
        return await binance_markets(rest, settings.symbols)
    finally:
        await rest.close()


def call_policy(settings: Settings) -> CallPolicy:
    """Return how patient calls to a venue are, as the settings say."""
    return CallPolicy(
        attempts_max=settings.retry_attempts_max,
        delay_seconds_max=settings.retry_delay_max,
        breaker_threshold=settings.circuit_breaker_threshold,
        breaker_seconds=settings.circuit_breaker_timeout,
    )

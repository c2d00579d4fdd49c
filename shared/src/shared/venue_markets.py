"""Which markets a venue has: the two names of each, and what a person may have meant by a name it has not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from shared.errors import ConfigError

NEAR_MATCHES_MAX = 3


@dataclass(frozen=True, slots=True)
class Market:
    """One market: our name `BTC/USDT`, the venue's own `BTCUSDT`, and whether it trades now."""

    symbol: str
    market_id: str
    is_trading: bool = True


def find_markets(wanted: Iterable[str], markets: Sequence[Market], venue: str) -> dict[str, Market]:
    """Return the market of each wanted name, whether it is ours or the venue's, in any case.

    Raises
    ------
    ConfigError
        A name that the venue does not know, with the nearest it does; a bare name that two markets bear.
    """
    by_name: dict[str, list[Market]] = {}
    for market in markets:
        for name in {market.symbol.upper(), market.market_id.upper()}:
            by_name.setdefault(name, []).append(market)
    found: dict[str, Market] = {}
    for name in wanted:
        bearers = by_name.get(name.upper(), [])
        if not bearers:
            raise ConfigError(f"symbols: {venue} has no market {name!r}; {_near(name, markets)}")
        if len(bearers) > 1:
            names = ", ".join(sorted(market.symbol for market in bearers))
            raise ConfigError(
                f"symbols: {name!r} is the name of several markets of {venue} ({names}); write BASE/QUOTE"
            )
        found[name] = bearers[0]
    return found


def _near(name: str, markets: Sequence[Market]) -> str:
    wanted = name.upper().replace("/", "")
    symbols = {market.symbol.upper().replace("/", ""): market.symbol for market in markets}
    close = get_close_matches(wanted, list(symbols), n=NEAR_MATCHES_MAX, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(symbols[each] for each in close)}?"
    some = ", ".join(sorted(symbols.values())[:5])
    return f"it has {len(markets)} markets, for example {some}" if some else "it lists none"

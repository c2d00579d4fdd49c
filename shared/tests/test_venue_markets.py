"""A name that a person wrote finds its market, or is refused with what may have been meant."""

from __future__ import annotations

import pytest

from shared.errors import ConfigError
from shared.venue_markets import Market, find_markets

MARKETS = [
    Market("BTC/USDT", "BTCUSDT"),
    Market("ETH/USDT", "ETHUSDT"),
    Market("ETH/BTC", "ETHBTC", is_trading=False),
    Market("BTC/USD", "XXBTZUSD"),
    Market("A/BC", "ABC"),
    Market("AB/C", "ABC"),
]


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("BTC/USDT", "BTC/USDT"), ("BTCUSDT", "BTC/USDT"), ("ethbtc", "ETH/BTC"), ("XXBTZUSD", "BTC/USD")],
)
def test_a_market_is_found_by_either_of_its_names(name: str, symbol: str) -> None:
    assert find_markets([name], MARKETS, "binance")[name].symbol == symbol


@pytest.mark.parametrize(
    ("name", "near"), [("BTC/USDTT", "BTC/USDT"), ("EHTUSDT", "ETH/USDT"), ("BTX/USDT", "BTC/USDT")]
)
def test_an_unknown_name_is_refused_with_the_nearest_market(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"binance has no market '{name}'") as caught:
        find_markets([name], MARKETS, "binance")
    assert near in str(caught.value)


def test_a_name_like_none_is_refused_with_examples() -> None:
    with pytest.raises(ConfigError, match="it has 6 markets"):
        find_markets(["ZZZZZZZZZZ"], MARKETS, "binance")


def test_a_bare_name_that_two_markets_bear_is_never_guessed() -> None:
    with pytest.raises(ConfigError, match=r"A/BC, AB/C\); write BASE/QUOTE"):
        find_markets(["ABC"], MARKETS, "binance")

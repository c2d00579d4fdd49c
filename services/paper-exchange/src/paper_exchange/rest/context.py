"""What an endpoint may use."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from paper_exchange.market.run import MarketRun
from paper_exchange.market.symbol_market import SymbolMarket
from paper_exchange.rest.budget import BudgetRules
from paper_exchange.rest.errors import invalid_symbol
from shared.domain.rounding import Instrument


@dataclass(frozen=True, slots=True)
class RestContext:
    """One request's view: the market, server time, the rules of its symbols, and the unit of its times."""

    run: MarketRun
    instruments: Mapping[str, Instrument]
    rules: BudgetRules
    now_ms: int
    ticks_a_ms: int = 1
    rows_hidden: int = 0
    holes: Set[tuple[str, int]] = frozenset()

    def market(self, symbol: str) -> SymbolMarket:
        """Return a symbol's market; asking for one is what lets a waiting run begin."""
        self.run.begin()
        market = self.run.markets.get(symbol)
        if market is None:
            raise invalid_symbol()
        return market

    def markets(self) -> list[SymbolMarket]:
        """Return every symbol's market, by symbol."""
        self.run.begin()
        return list(self.run.markets.values())

    @property
    def now(self) -> int:
        """Return server time in the request's unit."""
        return self.now_ms * self.ticks_a_ms

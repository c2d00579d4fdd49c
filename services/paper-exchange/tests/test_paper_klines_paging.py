"""Whoever pages through klines, from whichever end and in whichever steps, gets exactly the recorded candles."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paper_exchange.market.sources import file_recording
from paper_exchange.market.symbol_market import KlineQuery, SymbolMarket
from paper_exchange.rest.klines import visible_klines
from paper_exchange.testing import simulated_file

pytestmark = pytest.mark.thorough

ROWS = 120
NOW_MS = 1_795_374_523_946


def market_of(without: set[int], closed: int) -> SymbolMarket:
    recording = file_recording([simulated_file(rows=ROWS, without=without)], 0)
    _, (market,) = recording.begin(now_ms=NOW_MS, speed=60, alignment="end")
    for _ in range(min(closed, ROWS - len(without))):
        market.base.next_open_ms()
        market.base.close_one()
    return market


def expected(market: SymbolMarket) -> list[tuple[int, float]]:
    rows = market.base.columns(0, market.base.closed)
    return list(zip(rows.open_time_ms.tolist(), rows.close.tolist(), strict=True))


def told(rows: list[Any]) -> list[tuple[int, float]]:
    return [(row.open_ms, row.close) for row in rows]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, ROWS - 1), max_size=40), st.integers(0, ROWS), st.integers(1, 50))
def test_paging_forward_and_backward_gives_the_recording(without: set[int], closed: int, limit: int) -> None:
    market = market_of(without, closed)
    forward: list[Any] = []
    since = 0
    while page := visible_klines(market, KlineQuery("1m", since, None, limit), NOW_MS):
        assert len(page) <= limit
        forward += page
        since = page[-1].open_ms + 1
    backward: list[Any] = []
    until = None
    while page := visible_klines(market, KlineQuery("1m", None, until, limit), NOW_MS):
        backward = page + backward
        until = page[0].open_ms - 1
    assert told(forward) == told(backward) == expected(market)


@settings(max_examples=60, deadline=None)
@given(st.integers(-5, ROWS + 5), st.integers(-5, ROWS + 5), st.integers(1, 200))
def test_a_span_gives_the_oldest_candles_that_open_within_it(start: int, end: int, limit: int) -> None:
    market = market_of({7, 8, 50}, ROWS)
    first_ms = int(market.base.open_ms[0])
    since, until = first_ms + start * 60_000, first_ms + end * 60_000
    rows = visible_klines(market, KlineQuery("1m", since, until, limit), NOW_MS)
    assert told(rows) == [row for row in expected(market) if since <= row[0] <= until][:limit]

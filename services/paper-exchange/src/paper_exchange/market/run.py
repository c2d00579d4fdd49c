"""Plays a recording: opens, fills and closes candles when they are due and says so."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from paper_exchange.market.intervals import bucket
from paper_exchange.market.run_plan import Alignment, RunPlan
from paper_exchange.market.sources import Recording
from paper_exchange.market.splits import TRADES_A_CANDLE
from paper_exchange.market.symbol_market import SymbolMarket
from paper_exchange.market.tape import Kline, Trade
from shared.clock import Clock
from shared.models import to_milliseconds

PUSH_MS: Final = 2000.0  # how often a forming candle is told at least
PUSH_MS_MIN: Final = 40.0  # and at most, between its first frame and its last
_CLOSE, _MADE_CLOSE, _STEP = 0, 1, 2
_STEPS_AT_ONCE_MAX = 2000


class MarketListener(Protocol):
    """What hears of the market; called in the market's order and never waited for."""

    def wants_kline(self, market: SymbolMarket, interval: str) -> bool:
        """Return whether anybody listens to a candle: what nobody hears is not worked out."""

    def wants_trades(self, market: SymbolMarket) -> bool:
        """Return whether anybody listens to trades, or to what follows from them."""

    def on_kline(self, market: SymbolMarket, interval: str, kline: Kline, is_closed: bool) -> None:
        """Hear that a candle changed, or is over."""

    def on_trade(self, market: SymbolMarket, trade: Trade) -> None:
        """Hear that somebody traded."""


class _Due(NamedTuple):
    """Something that happens at a moment of the market; closes come before the next candle's first step."""

    at_ms: int
    kind: int
    order: int
    symbol: int
    interval: str
    step: int = 0


class MarketRun:
    """The market of a run. It stands still until `begin`; then `run` plays it to the end of the recording."""

    def __init__(self, recording: Recording, clock: Clock, *, speed: float, alignment: Alignment = "end") -> None:
        self._recording, self._clock = recording, clock
        self.speed, self.alignment = speed, alignment
        self.symbols = tuple(sorted({symbol for symbol, _ in recording.tapes}))
        self.markets: dict[str, SymbolMarket] = {}
        self.plan: RunPlan | None = None
        self.is_over = False
        self._order: Sequence[SymbolMarket] = ()
        self._listeners: list[MarketListener] = []
        self._begun = asyncio.Event()
        self._began_at = 0.0
        self._due: list[_Due] = []
        self._rows_due = 0  # tapes that have a row forming or to come; what is made of them ends with them
        self._pushed: dict[tuple[int, str], float] = {}
        self._made_until: dict[tuple[int, str], int] = {}

    def listen(self, listener: MarketListener) -> None:
        """Tell `listener` of everything from now on."""
        self._listeners.append(listener)

    def server_ms(self) -> int:
        """Return server time: the wall clock."""
        return to_milliseconds(self._clock.now())

    def seconds(self) -> float:
        """Return the seconds of machine time since the beginning, 0 before it."""
        return 0.0 if self.plan is None else self._clock.monotonic() - self._began_at

    def begin(self) -> None:
        """Fix the stamps and let time pass; a second call does nothing."""
        if self.plan is not None:
            return
        now_ms = self.server_ms()
        self._began_at = self._clock.monotonic()
        self.plan, self._order = self._recording.begin(now_ms=now_ms, speed=self.speed, alignment=self.alignment)
        self.markets = {market.venue_symbol: market for market in self._order}
        for number, market in enumerate(self._order):
            for interval in market.tapes:
                self._plan_row(number, interval)
        self._advance(self.market_ms())
        self._begun.set()

    def market_ms(self) -> float:
        """Return the market's own time, the one its stamps tell."""
        assert self.plan is not None, "the run has not begun"
        return self.plan.market_ms((self._clock.monotonic() - self._began_at) * 1000)

    def told_ms(self) -> float:
        """Return the time up to which everything has happened: behind the market's own while the machine is busy."""
        now_ms = self.market_ms()
        return min(now_ms, self._due[0].at_ms) if self._due else now_ms

    async def run(self) -> None:
        """Play until the recording is over, or for ever when it has no end."""
        await self._begun.wait()
        assert self.plan is not None, "begun runs have a plan"
        while self._rows_due:
            wall_ms = self.plan.elapsed_ms(self._due[0].at_ms) - (self._clock.monotonic() - self._began_at) * 1000
            await self._clock.sleep(min(max(wall_ms, 0.0), PUSH_MS) / 1000)
            self._advance(self.market_ms())
            self._push_again()
        self.is_over = True

    def _advance(self, now_ms: float) -> None:
        for _ in range(_STEPS_AT_ONCE_MAX):
            if not self._due or self._due[0].at_ms > now_ms:
                return
            due = heapq.heappop(self._due)
            self._order[due.symbol].now_ms = due.at_ms
            if due.kind == _STEP:
                self._step(due)
            elif due.kind == _CLOSE:
                self._close(due)
            else:
                self._close_made(due)

    def _plan_row(self, number: int, interval: str) -> None:
        market = self._order[number]
        tape = market.tapes[interval]
        open_ms = tape.next_open_ms()
        if open_ms is None:
            return
        self._rows_due += 1
        order = list(market.tapes).index(interval)
        heapq.heappush(self._due, _Due(open_ms, _STEP, order, number, interval, 1))
        if interval == market.base_interval:
            for made in market.made:
                close_ms = bucket(made, open_ms)[1]
                if self._made_until.get((number, made)) != close_ms:
                    self._made_until[number, made] = close_ms
                    heapq.heappush(self._due, _Due(close_ms, _MADE_CLOSE, len(self._due), number, made))

    def _step(self, due: _Due) -> None:
        market = self._order[due.symbol]
        tape = market.tapes[due.interval]
        market.progress[due.interval] = due.step
        open_ms = int(tape.open_ms[tape.closed])
        if due.step < TRADES_A_CANDLE:
            at_ms = open_ms + tape.step_ms * due.step // TRADES_A_CANDLE
            heapq.heappush(self._due, due._replace(at_ms=at_ms, step=due.step + 1))
        else:
            heapq.heappush(self._due, _Due(open_ms + tape.step_ms, _CLOSE, due.order, due.symbol, due.interval))
        if due.interval == market.base_interval:
            self._tell_trades(market, due)
        self._tell_forming(due.symbol, due.interval, at_once=due.step == 1)

    def _tell_trades(self, market: SymbolMarket, due: _Due) -> None:
        listeners = [listener for listener in self._listeners if listener.wants_trades(market)]
        if not listeners:
            return
        for trade in market.base.trades(market.base.closed):
            if trade.at_ms == due.at_ms:
                for listener in listeners:
                    listener.on_trade(market, trade)

    def _close(self, due: _Due) -> None:
        market = self._order[due.symbol]
        tape = market.tapes[due.interval]
        market.progress[due.interval] = 0
        self._rows_due -= 1
        tape.close_one()
        self._tell(market, due.interval, tape.klines(tape.closed - 1, tape.closed)[0], is_closed=True)
        self._plan_row(due.symbol, due.interval)

    def _close_made(self, due: _Due) -> None:
        market = self._order[due.symbol]
        if not any(listener.wants_kline(market, due.interval) for listener in self._listeners):
            return
        kline = market.closed_at(due.interval, due.at_ms)
        if kline is not None:
            self._tell(market, due.interval, kline, is_closed=True)

    def _tell_forming(self, number: int, interval: str, *, at_once: bool) -> None:
        """Tell a forming candle, and with the shortest one all that are made of it."""
        market = self._order[number]
        now_ms = self._clock.monotonic() * 1000
        names = (interval, *market.made) if interval == market.base_interval else (interval,)
        for name in names:
            if not at_once and now_ms - self._pushed.get((number, name), 0.0) < PUSH_MS_MIN:
                continue
            self._pushed[number, name] = now_ms
            if any(listener.wants_kline(market, name) for listener in self._listeners):
                kline = market.forming(name)
                if kline is not None:
                    self._tell(market, name, kline, is_closed=False)

    def _push_again(self) -> None:
        now_ms = self._clock.monotonic() * 1000
        for number, market in enumerate(self._order):
            for interval in market.tapes:
                if now_ms - self._pushed.get((number, interval), 0.0) >= PUSH_MS:
                    self._tell_forming(number, interval, at_once=True)

    def _tell(self, market: SymbolMarket, interval: str, kline: Kline, *, is_closed: bool) -> None:
        for listener in self._listeners:
            if listener.wants_kline(market, interval):
                listener.on_kline(market, interval, kline, is_closed)

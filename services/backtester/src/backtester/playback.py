"""Candles through the strategies and the paper venue, and what the account was worth at each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

import msgspec
import numpy as np

from backtester.exit_scan import ExitScan, float_column
from shared.domain.effects import Effect, Filled
from shared.domain.paper import PaperVenue
from shared.domain.performance import EquityCurve, FloatArray, IntArray
from shared.domain.rounding import minus
from shared.domain.slippage import VOLUME_WINDOW
from shared.errors import ConfigError
from shared.models import TIMEFRAME_SECONDS, Candle, OrderStatus, Signal, to_milliseconds
from shared.strategy_runner import StrategyRunner, is_finite

PROGRESS_CANDLES = 5_000
CHUNK_CANDLES = 500  # small enough to stay in a core's cache from the strategy's look to the arrays'

# how MessagePack writes a list of moments: its length, then six bytes for each whole second from 1970 to 2106; any
# other moment takes more
_HEAD_BYTES = 3
_WHOLE_SECOND = np.dtype([("kind", "V2"), ("seconds", ">u4")])

type OnProgress = Callable[[int], None]
type Runners = Mapping[tuple[str, str], StrategyRunner]


class Played(NamedTuple):
    """What a pass over the candles gave: effects in order, marks at closes, and what of each was in positions."""

    effects: list[Effect]
    signals: int
    curve: EquityCurve
    position_values: FloatArray


def play(
    paper: PaperVenue, runners: Runners, candles: Sequence[Candle], on_progress: OnProgress, *, ends_flat: bool
) -> Played:
    """Return what the candles cause; the account is marked at every close, after all that happened at it."""
    if not candles:
        return Played([], 0, EquityCurve(np.empty(0, dtype=np.int64), np.empty(0)), np.empty(0))
    if len(runners) == 1 and paper.book.rules.limits is None:
        return StreamPlayback(paper, next(iter(runners.values())), candles).play(on_progress, ends_flat=ends_flat)
    return MarketPlayback(paper, runners, candles).play(on_progress, ends_flat=ends_flat)


class StreamPlayback:
    """One stream without account limits.

    A strategy does not see the account, so it is heard first; the venue is visited only where a signal speaks, an
    order waits or an exit is in reach. Elsewhere cash and holding stand still, and their marks are one multiplication.
    """

    def __init__(self, paper: PaperVenue, runner: StrategyRunner, candles: Sequence[Candle]) -> None:
        self._paper, self._runner, self._candles = paper, runner, candles
        self._account = paper.book.accounts[runner.key]
        self._exits = ExitScan(candles, self._account) if self._account.rules.has_exits else None
        self._open_ms: IntArray = np.empty(len(candles), dtype=np.int64)
        self._closes: FloatArray = np.zeros(len(candles))  # of candles at which something is held
        self._effects: list[Effect] = []
        self._passed = 0
        self._observed = 0
        # cash and holding from which candle on, in three lists: tuples would keep the garbage collector busy
        self._starts, self._cash, self._held = [0], [float(paper.book.cash)], [0.0]
        self._stretch = 0  # the first of them that reaches to candles yet to come

    def play(self, on_progress: OnProgress, *, ends_flat: bool) -> Played:
        """Return what the candles cause."""
        signals = 0
        for begin in range(0, len(self._candles), CHUNK_CANDLES):
            if begin % PROGRESS_CANDLES == 0:
                on_progress(begin)
            chunk = self._candles[begin : begin + CHUNK_CANDLES]
            self._take(begin, chunk)
            for place, signal in self._runner.feed_many(chunk):
                signals += 1
                self._pass_to(begin + place)
                self._visit(begin + place, (signal,))
            self._pass_to(begin + len(chunk))
            self._take_closes(begin, begin + len(chunk))
        self._end(ends_flat=ends_flat)
        on_progress(len(self._candles))
        return Played(self._effects, signals, *self._marks())

    def _take(self, begin: int, chunk: Sequence[Candle]) -> None:
        """Copy what is looked at many times into arrays; candles out of order are refused."""
        end = begin + len(chunk)
        self._open_ms[begin:end] = _open_times(chunk)
        if self._exits is not None:
            self._exits.take(begin, chunk)
        first = max(begin - 1, 0)
        wrong = np.flatnonzero(np.diff(self._open_ms[first:end]) <= 0)
        if len(wrong):
            place = first + int(wrong[0])
            raise _disorder(self._candles[place], self._candles[place + 1])

    def _take_closes(self, begin: int, end: int) -> None:
        """Copy the closes of those of some candles at which something is held; no others are ever looked at.

        A holding begins at a candle of numbers, so one that is none later has a close before it to be carried on.
        """
        for place in range(self._stretch, len(self._starts)):
            first = max(self._starts[place], begin)
            last = min(self._starts[place + 1], end) if place + 1 < len(self._starts) else end
            if self._held[place] and first < last:
                self._closes[first:last] = float_column(self._candles[first:last], "close")
        self._stretch = len(self._starts) - 1

    def _pass_to(self, end: int) -> None:
        """Go on to before candle `end`, visiting what lies between."""
        while self._passed < end:
            index = end
            if self._account.working:
                index = self._passed
            elif self._exits is not None and self._account.holding.quantity:
                index = self._exits.next_touch(self._passed, end)
            self._passed = index
            if index < end:
                self._visit(index)

    def _visit(self, index: int, signals: Sequence[Signal] = ()) -> None:
        candle = self._candles[index]
        self._passed = index + 1
        if not (signals or is_finite(candle)):
            return  # no price to trade at: what waits waits on
        if self._paper.volumes is not None:
            self._show_volumes(index)
            self._observed = index + 1  # the venue takes this candle's by itself
        effects = self._paper.visit(self._account, candle, signals)
        if effects:
            self._note(index, effects)

    def _show_volumes(self, end: int) -> None:
        """Let a venue that prices by size see what the candles passed over since the last visit traded."""
        if self._paper.volumes is not None:
            for candle in self._candles[max(self._observed, end - VOLUME_WINDOW) : end]:
                self._paper.volumes.observe(candle.symbol, candle.timeframe, candle.volume)

    def _note(self, index: int, effects: Sequence[Effect]) -> None:
        self._effects.extend(effects)
        for effect in effects:
            if type(effect) is Filled:
                self._starts.append(index)
                self._cash.append(float(effect.cash))
                self._held.append(float(self._account.holding.quantity))

    def _end(self, *, ends_flat: bool) -> None:
        last = next((candle for candle in reversed(self._candles) if candle.close.is_finite()), None)
        if last is not None:
            self._paper.book.set_mark(last.symbol, last.close, last.close_time)
        as_of = self._candles[-1].close_time
        self._show_volumes(len(self._candles))
        if ends_flat:
            self._note(len(self._candles) - 1, close_all(self._paper, as_of))
        self._paper.book.mark(as_of)

    def _marks(self) -> tuple[EquityCurve, FloatArray]:
        rows = np.diff(np.array([*self._starts, len(self._closes)]))
        values = np.repeat(np.array(self._held), rows) * _carried(self._closes)
        close_ms = self._open_ms + TIMEFRAME_SECONDS[self._runner.key.timeframe] * 1000
        return EquityCurve(close_ms, np.repeat(np.array(self._cash), rows) + values), values


class MarketPlayback:
    """Several streams, or account limits, which look at every mark: close time by close time."""

    def __init__(self, paper: PaperVenue, runners: Runners, candles: Sequence[Candle]) -> None:
        self._paper, self._runners = paper, runners
        _check_streams(candles)
        self._candles = sorted(candles, key=_close_time)
        self._marks: list[tuple[int, float, float]] = []

    def play(self, on_progress: OnProgress, *, ends_flat: bool) -> Played:
        """Return what the candles cause."""
        effects, signals, done, told = list[Effect](), 0, 0, 0
        on_progress(0)
        for as_of, group in groupby(self._candles, key=_close_time):
            candles = list(group)
            said = [self._runners[candle.symbol, candle.timeframe].feed(candle) for candle in candles]
            spoken = [signal for signal in said if signal is not None]
            effects += self._paper.advance(as_of, [candle for candle in candles if is_finite(candle)], spoken)
            self._mark(as_of)
            signals, done = signals + len(spoken), done + len(candles)
            if done >= told + PROGRESS_CANDLES:
                told = done
                on_progress(done)
        if ends_flat:
            as_of = self._candles[-1].close_time
            effects += close_all(self._paper, as_of)
            self._marks.pop()
            self._mark(as_of)
        on_progress(len(self._candles))
        times, totals, values = zip(*self._marks, strict=True)
        curve = EquityCurve(np.array(times, dtype=np.int64), np.array(totals))
        return Played(effects, signals, curve, np.array(values))

    def _mark(self, as_of: datetime) -> None:
        book = self._paper.book
        equity = book.equity()
        assert equity is not None, "backtest: everything held has been marked"
        self._marks.append((to_milliseconds(as_of), float(equity), float(minus(equity, book.cash))))


def close_all(paper: PaperVenue, as_of: datetime) -> list[Effect]:
    """Return what ends every order and position at the last close."""
    effects: list[Effect] = []
    for account in paper.book.accounts.values():
        waiting = list(account.working)
        effects += [paper.book.close(order, OrderStatus.CANCELED, "end_of_data") for order in waiting]
        mark = paper.book.marks.get(account.key.symbol)
        if account.holding.quantity and mark is not None:
            effects.extend(paper.sell_out(account, mark, as_of))
    paper.book.mark(as_of)
    return effects


def _open_times(candles: Sequence[Candle]) -> IntArray:
    """Return the candles' open times in milliseconds."""
    times = [candle.open_time for candle in candles]
    written = msgspec.msgpack.encode(times)  # all at once: a look at each by itself takes far longer
    if len(written) == _HEAD_BYTES + _WHOLE_SECOND.itemsize * len(times):
        seconds = np.frombuffer(written, _WHOLE_SECOND, offset=_HEAD_BYTES)["seconds"]
        return seconds.astype(np.int64) * 1000
    return np.fromiter(map(to_milliseconds, times), dtype=np.int64, count=len(times))


def _check_streams(candles: Sequence[Candle]) -> None:
    latest: dict[tuple[str, str], Candle] = {}
    for candle in candles:
        stream = (candle.symbol, candle.timeframe)
        before = latest.get(stream)
        if before is not None and before.open_time >= candle.open_time:
            raise _disorder(before, candle)
        latest[stream] = candle


def _disorder(before: Candle, after: Candle) -> ConfigError:
    fault = "stands there twice" if before.open_time == after.open_time else f"comes after {before.open_time}"
    return ConfigError(f"candles: {after.symbol} {after.timeframe} {after.open_time} {fault}; sort them, each once")


def _carried(closes: FloatArray) -> FloatArray:
    """Return the closes, one that is no number replaced by the one before it (0 before the first)."""
    finite = np.isfinite(closes)
    if finite.all():
        return closes
    rows = np.maximum.accumulate(np.where(finite, np.arange(len(closes)), -1))
    carried: FloatArray = np.where(rows >= 0, closes[np.maximum(rows, 0)], 0.0)
    return carried


def _close_time(candle: Candle) -> datetime:
    return candle.close_time

"""One symbol: its tapes, and every other interval made of the shortest of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from paper_exchange.market.intervals import INTERVALS, bucket, length_ms
from paper_exchange.market.numbers import SCALE
from paper_exchange.market.splits import TRADES_A_CANDLE
from paper_exchange.market.tape import FIRST_TRADE_ID, CandleTape, Kline, Trade
from shared.models import split_symbol

_ROWS_AT_ONCE = 20_000
_EVER_MS = 2**62


@dataclass(frozen=True, slots=True)
class KlineQuery:
    """Which candles are wanted: open times within [since_ms, until_ms], `limit` of them from the old or the new end."""

    interval: str
    since_ms: int | None
    until_ms: int | None
    limit: int


@dataclass(slots=True)
class _MadeCandles:
    """Candles of an interval that is made of a shorter one: those that are over, and the one that grows."""

    done: list[Kline] = field(default_factory=list)
    growing: Kline | None = None
    folded_ms: int = 0

    def add(self, row: Kline, span: tuple[int, int]) -> None:
        """Put one row of the shorter interval in; `span` is the longer candle's [open, close)."""
        self.end(row.open_ms)
        self.growing = combine([row] if self.growing is None else [self.growing, row], *span)
        self.folded_ms = row.close_ms
        self.end(row.close_ms)

    def end(self, now_ms: int) -> None:
        """Say that the market's time is `now_ms`."""
        if self.growing is not None and self.growing.close_ms <= now_ms:
            self.done.append(self.growing)
            self.growing = None


class SymbolMarket:
    """What is known of one symbol now: closed candles, the forming ones, trades and the last price."""

    def __init__(self, symbol: str, tapes: Mapping[str, CandleTape]) -> None:
        self.symbol = symbol
        self.base_asset, self.quote_asset = split_symbol(symbol)
        self.venue_symbol = self.base_asset + self.quote_asset
        self.tapes = dict(sorted(tapes.items(), key=lambda item: item[1].step_ms))
        self.base_interval, self.base = next(iter(self.tapes.items()))
        self.progress: dict[str, int] = dict.fromkeys(self.tapes, 0)
        self._total_before = self.base.total
        self.made: Final = tuple(
            name for name in INTERVALS if name not in self.tapes and length_ms(name) > self.base.step_ms
        )
        self._made = {name: _MadeCandles() for name in self.made}

    @property
    def candle_number(self) -> int:
        """Return the number of the shortest candle that is not over, 1 at the beginning of the run."""
        return self.base.total - self._total_before + 1

    def forming(self, interval: str) -> Kline | None:
        """Return the candle of `interval` that is not over, None between two candles."""
        tape = self.tapes.get(interval)
        if tape is not None:
            progress = self.progress[interval]
            return tape.forming(progress) if progress else None
        if interval not in self._made:
            return None
        self._fold(interval)
        growing, newest = self._made[interval].growing, self.forming(self.base_interval)
        rows = [row for row in (growing, newest) if row is not None]
        return combine(rows, *bucket(interval, rows[-1].open_ms)) if rows else None

    def finish(self, interval: str, close_ms: int) -> Kline | None:
        """Return the made candle that is over at `close_ms`, None when it holds nothing."""
        self._fold(interval)
        made = self._made[interval]
        made.end(close_ms)
        return made.done[-1] if made.done and made.done[-1].close_ms == close_ms else None

    def closed(self, query: KlineQuery) -> list[Kline]:
        """Return closed candles, oldest first: the newest ones unless a start is asked for."""
        since = query.since_ms if query.since_ms is not None else 0
        until = query.until_ms + 1 if query.until_ms is not None else _EVER_MS
        tape = self.tapes.get(query.interval)
        if tape is not None:
            start, stop = tape.rows_between(since, until)
            start, stop = _cut(start, stop, query)
            return tape.klines(start, stop)
        if query.interval not in self._made:
            return []
        self._fold(query.interval)
        done = self._made[query.interval].done
        start = bisect_left(done, since, key=lambda kline: kline.open_ms)
        stop = bisect_left(done, until, key=lambda kline: kline.open_ms)
        start, stop = _cut(start, max(start, stop), query)
        return done[start:stop]

    def newest(self, query: KlineQuery) -> list[Kline]:
        """Return what `closed` does, and the forming candle after them where it belongs."""
        rows = self.closed(query)
        forming = self.forming(query.interval)
        if forming is None or (query.until_ms is not None and forming.open_ms > query.until_ms):
            return rows
        if query.since_ms is None:
            return [*rows, forming][-query.limit :]
        if forming.open_ms >= query.since_ms and len(rows) < query.limit:
            rows.append(forming)
        return rows

    def recent_trades(self, limit: int) -> list[Trade]:
        """Return the newest trades, oldest first."""
        found = self.forming_trades()
        row = self.base.closed - 1
        while len(found) < limit and row >= 0:
            found = self.base.trades(row) + found
            row -= 1
        return found[-limit:]

    def forming_trades(self) -> list[Trade]:
        """Return the trades of the base candle that is not over."""
        progress = self.progress[self.base_interval]
        if not progress:
            return []
        forming = self.base.forming(progress)
        return self.base.trades(self.base.closed)[: forming.trades]

    def last_trade(self) -> Trade:
        """Return the newest trade; before the first one, a trade of nothing at the first known price."""
        newest = self.recent_trades(1)
        if newest:
            return newest[0]
        row = max(self.base.closed - 1, 0)
        open_ms, price = int(self.base.open_ms[row]), self.base.columns(row, row + 1).open[0]
        return Trade(FIRST_TRADE_ID - 1, round(float(price) * SCALE), 0, open_ms, False)

    def trade_before(self, trade: Trade) -> Trade:
        """Return the trade before `trade`, itself when it is the first."""
        earlier = self.trades_from(trade.id - 1, 1)
        return earlier[0] if earlier else trade

    def trades_from(self, trade_id: int, limit: int) -> list[Trade]:
        """Return the trades from an id on, oldest first."""
        row = max(self.base.row_of_trade(trade_id), 0)
        found: list[Trade] = []
        while row < self.base.closed and len(found) < limit:
            found += [trade for trade in self.base.trades(row) if trade.id >= trade_id]
            row += 1
        if len(found) < limit:
            found += [trade for trade in self.forming_trades() if trade.id >= trade_id]
        return found[:limit]

    def trades_between(self, since_ms: int, until_ms: int, limit: int) -> list[Trade]:
        """Return the trades of [since_ms, until_ms], oldest first."""
        start, stop = self.base.rows_between(since_ms - self.base.step_ms + 1, until_ms + 1)
        found: list[Trade] = []
        for row in range(start, stop):
            found += self.base.trades(row)
            if len(found) > limit + 2 * TRADES_A_CANDLE:
                break
        else:
            found += self.forming_trades()
        return [trade for trade in found if since_ms <= trade.at_ms <= until_ms][:limit]

    def summary(self, length_ms: int) -> Kline | None:
        """Return one candle of the last `length_ms`, the forming one included; None before the first."""
        newest = self.forming(self.base_interval)
        end_ms = newest.close_ms if newest is not None else self._closed_until_ms()
        rows = self.base.klines(*self.base.rows_between(end_ms - length_ms, end_ms))
        if newest is not None:
            rows.append(newest)
        return combine(rows, end_ms - length_ms, end_ms) if rows else None

    def close_before(self, open_ms: int) -> float | None:
        """Return the close of the last candle that opened before `open_ms`, None without one."""
        _, stop = self.base.rows_between(0, open_ms)
        return float(self.base.columns(stop - 1, stop).close[0]) if stop else None

    def _closed_until_ms(self) -> int:
        return int(self.base.open_ms[self.base.closed - 1]) + self.base.step_ms if self.base.closed else 0

    def _fold(self, interval: str) -> None:
        """Put the base rows closed since the last time into the candle of `interval` that grows."""
        made = self._made[interval]
        start, stop = self.base.rows_between(made.folded_ms, _EVER_MS)
        for low in range(start, stop, _ROWS_AT_ONCE):
            for row in self.base.klines(low, min(stop, low + _ROWS_AT_ONCE)):
                made.add(row, bucket(interval, row.open_ms))


def combine(rows: Iterable[Kline], open_ms: int, close_ms: int) -> Kline:
    """Return the one candle that a run of candles makes."""
    parts = list(rows)
    traded = [row for row in parts if row.trades]
    return Kline(
        open_ms,
        close_ms,
        parts[0].open,
        max(row.high for row in parts),
        min(row.low for row in parts),
        parts[-1].close,
        round(sum(row.volume for row in parts), 8),
        round(sum(row.quote_volume for row in parts), 8),
        sum(row.trades for row in parts),
        round(sum(row.taker_base for row in parts), 8),
        round(sum(row.taker_quote for row in parts), 8),
        traded[0].first_id if traded else -1,
        traded[-1].last_id if traded else -1,
    )


def _cut(start: int, stop: int, query: KlineQuery) -> tuple[int, int]:
    if query.since_ms is None:
        return max(start, stop - query.limit), stop
    return start, min(stop, start + query.limit)

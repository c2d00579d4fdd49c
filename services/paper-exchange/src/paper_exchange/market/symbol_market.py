"""One symbol: its tapes, and every other interval made of the shortest of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from paper_exchange.market.intervals import INTERVALS, STREAM_ZONE, in_zone, length_ms
from paper_exchange.market.made_candles import MadeCandles, combine
from paper_exchange.market.numbers import SCALE
from paper_exchange.market.splits import TRADES_A_CANDLE
from paper_exchange.market.tape import FIRST_TRADE_ID, CandleTape, Kline, Trade
from shared.models import split_symbol

_EVER_MS = 2**62


@dataclass(frozen=True, slots=True)
class KlineQuery:
    """Which candles are wanted: open times within [since_ms, until_ms], `limit` of them from the old or the new end."""

    interval: str
    since_ms: int | None
    until_ms: int | None
    limit: int


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
        self.now_ms = 0
        names = (*INTERVALS, *(in_zone(name, STREAM_ZONE) for name in INTERVALS))
        self.made: Final = tuple(
            name for name in names if name not in self.tapes and length_ms(name) >= self.base.step_ms
        )
        self._made = {name: MadeCandles(name, self.base) for name in self.made}

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
        made = self._made_of(interval)
        return None if made is None else made.growing(self.forming(self.base_interval), self.now_ms)

    def closed_at(self, interval: str, close_ms: int) -> Kline | None:
        """Return the made candle that is over at `close_ms`, None when it holds nothing."""
        return self._made[interval].closed_at(close_ms)

    def _made_of(self, interval: str) -> MadeCandles | None:
        """Return the candles of an interval without a tape; those of a rare zone are made for this once."""
        made = self._made.get(interval)
        if made is None and length_ms(interval) >= self.base.step_ms:
            return MadeCandles(interval, self.base)
        return made

    def closed(self, query: KlineQuery) -> list[Kline]:
        """Return closed candles, oldest first: the newest ones unless a start is asked for."""
        since = query.since_ms if query.since_ms is not None else 0
        until = query.until_ms + 1 if query.until_ms is not None else _EVER_MS
        tape = self.tapes.get(query.interval)
        if tape is not None:
            start, stop = tape.rows_between(since, until)
            start, stop = _cut(start, stop, query)
            return tape.klines(start, stop)
        made = self._made_of(query.interval)
        rows = [] if made is None else made.between(since, until, self.now_ms)
        return rows[-query.limit :] if query.since_ms is None else rows[: query.limit]

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


def _cut(start: int, stop: int, query: KlineQuery) -> tuple[int, int]:
    if query.since_ms is None:
        return max(start, stop - query.limit), stop
    return start, min(stop, start + query.limit)

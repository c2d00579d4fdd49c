"""One symbol's recorded candles of one timeframe, under the stamps of this run; only rows already closed are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from paper_exchange.market.numbers import SCALE
from paper_exchange.market.splits import (
    TRADES_A_CANDLE,
    Splits,
    price_tick,
    quantity_scale,
    split_candles,
    split_quantities,
)
from shared.candle_columns import CandleColumns

ROWS_MAX: Final = 3_000_000
FIRST_TRADE_ID: Final = 1_000_001
_REFILL_ROWS = 64
_TICK_ROWS = 5_000
_BLOCK_ROWS = 64
_LOTS_A_CANDLE = 5_000  # of a level in the book: a usual candle is about ten levels deep


class Kline(NamedTuple):
    """A candle as the exchange tells it; `close_ms` is the instant it closes, ids are -1 without a trade."""

    open_ms: int
    close_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float = 0.0
    trades: int = 0
    taker_base: float = 0.0
    taker_quote: float = 0.0
    first_id: int = -1
    last_id: int = -1


class Trade(NamedTuple):
    """One execution in the market; price and quantity in units."""

    id: int
    price: int
    quantity: int
    at_ms: int
    buyer_is_maker: bool


class _Block(NamedTuple):
    """Some rows in a run worked out at once: one at a time costs many times as much."""

    start: int
    klines: list[Kline]
    trades: list[list[Trade]]

    def has(self, row: int) -> bool:
        """Return whether a row is among them."""
        return self.start <= row < self.start + len(self.klines)


class CandleTape:
    """The rows of one stream in order. `closed` of those kept are over, `total` since the first one ever."""

    def __init__(
        self, symbol: str, step_ms: int, columns: CandleColumns, refill: Callable[[], CandleColumns] | None = None
    ) -> None:
        self.symbol, self.step_ms = symbol, step_ms
        self._refill = refill
        self._columns = columns
        self.tick = price_tick(np.concatenate([part[-_TICK_ROWS:] for part in columns[1:5]]))
        self.scale = quantity_scale(float(columns.volume.max()))
        self.lot = max(1, int(float(columns.volume.mean()) * self.scale) // _LOTS_A_CANDLE)
        self._first_ids = self._ids(columns, FIRST_TRADE_ID)
        self._next_id = int(self._first_ids[-1]) + self._counts(columns)[-1]
        self.closed = 0
        self.total = 0
        self._shift_ms = 0
        self._block = _Block(0, [], [])

    @property
    def open_ms(self) -> npt.NDArray[np.int64]:
        """Return every row's open time, those to come included."""
        return self._columns.open_time_ms

    def shift(self, shift_ms: int) -> None:
        """Move every stamp, also of rows to come."""
        self._shift_ms += shift_ms
        self._block = _Block(0, [], [])
        self._columns = self._columns._replace(open_time_ms=self._columns.open_time_ms + shift_ms)

    def next_open_ms(self) -> int | None:
        """Return when the row after the closed ones opens, None at the end of the recording."""
        if self._refill is not None and self.closed + _REFILL_ROWS > len(self.open_ms):
            self._extend(self._refill())
        return int(self.open_ms[self.closed]) if self.closed < len(self.open_ms) else None

    def close_one(self) -> None:
        """Say that the forming row is over."""
        self.closed += 1
        self.total += 1

    def rows_between(self, since_ms: int, until_ms: int) -> tuple[int, int]:
        """Return the numbers [start, stop) of the closed rows with since_ms <= open time < until_ms."""
        start, stop = np.searchsorted(self.open_ms[: self.closed], [since_ms, until_ms]).tolist()
        return start, max(start, stop)

    def columns(self, start: int, stop: int) -> CandleColumns:
        """Return rows `start` up to before `stop`, without a copy."""
        rows = slice(start, stop)
        times, first, high, low, last, volume = self._columns
        return CandleColumns(times[rows], first[rows], high[rows], low[rows], last[rows], volume[rows])

    def splits(self, start: int, stop: int) -> Splits:
        """Return the trades of the rows `start` up to before `stop`."""
        return split_candles(self.columns(start, stop), self.tick, self.scale)

    def klines(self, start: int, stop: int) -> list[Kline]:
        """Return the rows `start` up to before `stop` as the exchange tells them."""
        if stop - start == 1:
            block = self._block_of(start)
            return [block.klines[start - block.start]]
        return self._make_klines(start, stop) if start < stop else []

    def _make_klines(self, start: int, stop: int) -> list[Kline]:
        columns = self.columns(start, stop)
        extras = self.extras(start, stop)
        return [
            Kline(open_ms, open_ms + self.step_ms, *row)
            for open_ms, *row in zip(*(part.tolist() for part in (*columns, *extras)), strict=True)
        ]

    def extras(self, start: int, stop: int) -> Sequence[npt.NDArray[Any]]:
        """Return quote volume, trades, taker base, taker quote, first and last id of the rows as arrays."""
        splits = self.splits(start, stop)
        there = splits.quantities > 0
        prices, quantities = splits.prices / SCALE, splits.quantities / self.scale
        bought = np.where(splits.sold, 0.0, quantities)
        counts = there.sum(axis=1)
        first = np.where(counts > 0, self._first_ids[start:stop], -1)
        last = np.where(counts > 0, first + counts - 1, -1)
        quote, taker_quote = (prices * quantities).sum(axis=1), (prices * bought).sum(axis=1)
        return np.round(quote, 8), counts, np.round(bought.sum(axis=1), 8), np.round(taker_quote, 8), first, last

    def trades(self, row: int) -> list[Trade]:
        """Return the trades of one row, oldest first."""
        block = self._block_of(row)
        return block.trades[row - block.start]

    def _block_of(self, row: int) -> _Block:
        if not self._block.has(row):
            stop = min(row + _BLOCK_ROWS, len(self.open_ms))
            self._block = _Block(row, self._make_klines(row, stop), self._make_trades(row, stop))
        return self._block

    def _make_trades(self, start: int, stop: int) -> list[list[Trade]]:
        prices, quantities, sold = (part.tolist() for part in self.splits(start, stop))
        made = []
        for row, open_ms, first_id in zip(
            range(stop - start), self.open_ms[start:stop].tolist(), self._first_ids[start:stop].tolist(), strict=True
        ):
            trades: list[Trade] = []
            for place, quantity in enumerate(quantities[row]):
                if quantity:
                    at_ms = open_ms + self.step_ms * place // TRADES_A_CANDLE
                    trades.append(Trade(first_id + len(trades), prices[row][place], quantity, at_ms, sold[row][place]))
            made.append(trades)
        return made

    def row_of_trade(self, trade_id: int) -> int:
        """Return the number of the row that holds a trade, or the row before the first."""
        return int(np.searchsorted(self._first_ids, trade_id, side="right")) - 1

    def forming(self, progress: int) -> Kline:
        """Return the row after the closed ones as it stands after `progress` of its seven steps, at least one."""
        row = self.closed
        open_ms = int(self.open_ms[row])
        first = float(self._columns.open[row])
        trades = [t for t in self.trades(row) if t.at_ms <= open_ms + self.step_ms * (progress - 1) // TRADES_A_CANDLE]
        if not trades:
            return Kline(open_ms, open_ms + self.step_ms, first, first, first, first, 0.0)
        prices = [trade.price / SCALE for trade in trades]
        quantities = [trade.quantity / self.scale for trade in trades]
        taken = [(p, q) for p, q, trade in zip(prices, quantities, trades, strict=True) if not trade.buyer_is_maker]
        return Kline(
            open_ms,
            open_ms + self.step_ms,
            first,
            max(first, *prices),
            min(first, *prices),
            prices[-1],
            round(sum(quantities), 8),
            round(sum(p * q for p, q in zip(prices, quantities, strict=True)), 8),
            len(trades),
            round(sum(q for _, q in taken), 8),
            round(sum(p * q for p, q in taken), 8),
            trades[0].id,
            trades[-1].id,
        )

    def _counts(self, columns: CandleColumns) -> list[int]:
        found: list[int] = (split_quantities(columns.volume, self.scale) > 0).sum(axis=1).tolist()
        return found

    def _ids(self, columns: CandleColumns, first_id: int) -> npt.NDArray[np.int64]:
        counts = np.array(self._counts(columns), dtype=np.int64)
        return first_id + np.cumsum(counts) - counts

    def _extend(self, more: CandleColumns) -> None:
        more = more._replace(open_time_ms=more.open_time_ms + self._shift_ms)
        surplus = max(0, min(self.closed, len(self.open_ms) + len(more.open_time_ms) - ROWS_MAX))
        ids = self._ids(more, self._next_id)
        self._next_id = int(ids[-1]) + self._counts(more)[-1]
        self._first_ids = np.concatenate([self._first_ids[surplus:], ids])
        times, *numbers = (np.concatenate([old[surplus:], new]) for old, new in zip(self._columns, more, strict=True))
        self._columns = CandleColumns(times, *numbers)
        self.closed -= surplus
        self._block = _Block(0, [], [])

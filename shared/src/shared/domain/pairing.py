"""From fills to closed pairs and round trips: what trade statistics are made of.

Money itself is kept at average cost (`shared.domain.positions`); pairs only say what was gained from entry to exit.
Realised plus unrealised is the same under both.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from operator import attrgetter

from msgspec.structs import replace

from shared.domain.rounding import FREE_STEP, ZERO, minus, plus, ratio, times
from shared.domain.trade_records import OpenLot, OpenPosition, Pairing, RoundTrip, TradePair, TradeRecord
from shared.models import OrderSide


def pair_trades(trades: Iterable[TradeRecord], *, newest_first: bool = False, dust: Decimal = FREE_STEP) -> Pairing:
    """Return the pairs, round trips and open lots of fills, per strategy and symbol.

    Parameters
    ----------
    trades : iterable of TradeRecord
        In any order. At one instant SELLs that are covered go first, then BUYs, then the other SELLs; otherwise
        their given order holds.
    newest_first : bool
        False: first in, first out by quantity. True: a SELL closes the newest entry first, as the executor does
        when a strategy may hold several entries.
    dust : Decimal
        Base units; less than this left counts as flat, and an entry of less as ended.

    Returns
    -------
    Pairing
        Pairs in the order of their exits. Partial lots split quantity and fees in proportion; the last part takes
        the rest, so nothing is lost to rounding. A pair uses fills up to its exit only.

    Example: BUY 2 at 10, SELL 1 at 12, fees 0 -> one pair, pnl 2; one open lot of 1.
    """
    books: defaultdict[tuple[str, str], _LotBook] = defaultdict(lambda: _LotBook(newest_first=newest_first, dust=dust))
    for instant in _instants(sorted(trades, key=attrgetter("time"))):
        if len(instant) == 1:
            trade = instant[0]
            books[trade.strategy, trade.symbol].take(trade)
            continue
        by_key: defaultdict[tuple[str, str], list[TradeRecord]] = defaultdict(list)
        for trade in instant:
            by_key[trade.strategy, trade.symbol].append(trade)
        for key, group in by_key.items():
            books[key].take_instant(group)
    pairs = [pair for book in books.values() for pair in book.pairs]
    trips = [trip for book in books.values() for trip in book.trips()]
    return Pairing(
        pairs=tuple(sorted(pairs, key=attrgetter("exit_time"))),
        round_trips=tuple(sorted(trips, key=attrgetter("entry_time"))),
        lots=tuple(lot.record() for book in books.values() for lot in book.lots),
        average_costs={key: book.average_cost for key, book in books.items() if book.lots},
        unmatched=tuple(trade for book in books.values() for trade in book.unmatched),
    )


def open_positions(pairing: Pairing, last_prices: Mapping[str, Decimal] | None = None) -> tuple[OpenPosition, ...]:
    """Return what is still held, per strategy and symbol, valued where a last price is known.

    Parameters
    ----------
    pairing : Pairing
        From `pair_trades`.
    last_prices : mapping of str to Decimal, optional
        Quote per base at the end, by symbol.

    Returns
    -------
    tuple of OpenPosition
        In order of first entry. Example: one lot of 1 at 10, last price 12 -> unrealised 2.
    """
    grouped: defaultdict[tuple[str, str], list[OpenLot]] = defaultdict(list)
    for lot in pairing.lots:
        grouped[(lot.strategy, lot.symbol)].append(lot)
    found = []
    for (strategy, symbol), lots in grouped.items():
        quantity = sum((lot.quantity for lot in lots), ZERO)
        average = pairing.average_costs[(strategy, symbol)]
        price = (last_prices or {}).get(symbol)
        found.append(
            OpenPosition(
                symbol=symbol,
                strategy=strategy,
                quantity=quantity,
                avg_entry_price=average,
                entry_time=min(lot.time for lot in lots),
                price=price,
                unrealized_pnl=None if price is None else times(minus(price, average), quantity),
            )
        )
    return tuple(sorted(found, key=lambda position: position.entry_time))


def _instants(ordered: Sequence[TradeRecord]) -> Iterator[Sequence[TradeRecord]]:
    """Yield the fills of each instant together; most instants have one."""
    start = 0
    for place in range(1, len(ordered) + 1):
        if place == len(ordered) or ordered[place].time != ordered[start].time:
            yield ordered[start:place]
            start = place


class _Lot:
    """A lot while it is being eaten."""

    __slots__ = ("fee", "quantity", "trade")

    def __init__(self, trade: TradeRecord) -> None:
        self.trade, self.quantity, self.fee = trade, trade.quantity, trade.fee

    def take(self, quantity: Decimal) -> Decimal:
        """Remove `quantity` and return its share of the fee."""
        if quantity == self.quantity:
            share, self.quantity, self.fee = self.fee, ZERO, ZERO
            return share
        share = ratio(times(self.fee, quantity), self.quantity)
        self.quantity, self.fee = minus(self.quantity, quantity), minus(self.fee, share)
        return share

    def record(self) -> OpenLot:
        trade = self.trade
        return OpenLot(
            symbol=trade.symbol,
            strategy=trade.strategy,
            time=trade.time,
            price=trade.price,
            quantity=self.quantity,
            fee=self.fee,
        )


class _LotBook:
    """The open lots of one strategy in one symbol, and what came of those closed."""

    def __init__(self, *, newest_first: bool, dust: Decimal) -> None:
        self.lots: deque[_Lot] = deque()
        self.pairs: list[TradePair] = []
        self.unmatched: list[TradeRecord] = []
        self.held = ZERO
        self._purchases: list[tuple[Decimal, TradeRecord]] = []  # since it was flat, each with what was held before
        self._closed_trips: list[RoundTrip] = []
        self._trip_start: TradeRecord | None = None
        self._trip_pnl = ZERO
        self._trip_entries_max = 0
        self._entries = 0
        self._newest_first, self._dust = newest_first, dust

    def take(self, trade: TradeRecord) -> None:
        """Book the only fill of its instant."""
        (self._buy if trade.side is OrderSide.BUY else self._sell)(trade)

    def take_instant(self, trades: list[TradeRecord]) -> None:
        """Book the fills of one instant."""
        waiting = []
        for sale in (trade for trade in trades if trade.side == OrderSide.SELL):
            if sale.quantity <= self.held:
                self._sell(sale)
            else:
                waiting.append(sale)
        for purchase in (trade for trade in trades if trade.side == OrderSide.BUY):
            self._buy(purchase)
        for sale in waiting:
            self._sell(sale)

    @property
    def average_cost(self) -> Decimal:
        """Return what a unit of the holding cost on average, without fees; 0 when flat."""
        average = ZERO
        for held, trade in self._purchases:
            cost = plus(times(held, average), times(trade.quantity, trade.price))
            average = ratio(cost, plus(held, trade.quantity))
        return average

    def trips(self) -> list[RoundTrip]:
        """Return the round trips, the unfinished one last."""
        return [*self._closed_trips, self._trip(None)] if self._trip_start else list(self._closed_trips)

    def _buy(self, trade: TradeRecord) -> None:
        if self._trip_start is None:
            self._trip_start, self._trip_pnl, self._trip_entries_max = trade, ZERO, 0
        self._purchases.append((self.held, trade))
        self.held = plus(self.held, trade.quantity)
        self.lots.append(_Lot(trade))
        self._entries += trade.quantity >= self._dust
        self._trip_entries_max = max(self._trip_entries_max, self._entries, 1)

    def _sell(self, trade: TradeRecord) -> None:
        lots, sale, dust = self.lots, _Lot(trade), self._dust
        while lots and sale.quantity:
            lot = lots[-1 if self._newest_first else 0]
            quantity = lot.quantity if lot.quantity <= sale.quantity else sale.quantity
            fees = plus(lot.take(quantity), sale.take(quantity))
            pair = _pair(lot.trade, trade, quantity, fees)
            self.pairs.append(pair)
            self.held = minus(self.held, quantity)
            self._trip_pnl = plus(self._trip_pnl, pair.pnl)
            if not lot.quantity:
                self._entries -= quantity >= dust
                lots.pop() if self._newest_first else lots.popleft()
            elif lot.quantity < dust:
                self._entries -= dust <= plus(lot.quantity, quantity)
        if sale.quantity:
            self.unmatched.append(replace(trade, quantity=sale.quantity, fee=sale.fee))
        if self._trip_start is not None and self.held < self._dust:
            self._closed_trips.append(self._trip(trade.time))
            self._trip_start = None
        if not self.lots:
            self._purchases.clear()

    def _trip(self, exit_time: datetime | None) -> RoundTrip:
        start = self._trip_start
        if start is None:
            raise AssertionError("a round trip ended that had not begun")
        return RoundTrip(
            symbol=start.symbol,
            strategy=start.strategy,
            entry_time=start.time,
            exit_time=exit_time,
            pnl=self._trip_pnl,
            entries_max=self._trip_entries_max,
        )


def _pair(entry: TradeRecord, exit_: TradeRecord, quantity: Decimal, fees: Decimal) -> TradePair:
    pnl = minus(times(minus(exit_.price, entry.price), quantity), fees)
    return TradePair(
        entry_time=entry.time,
        exit_time=exit_.time,
        entry_price=entry.price,
        exit_price=exit_.price,
        quantity=quantity,
        pnl=pnl,
        pnl_pct=100 * float(pnl) / float(entry.price * quantity),
        holding_period=exit_.time - entry.time,
        symbol=entry.symbol,
        strategy=entry.strategy,
        fees=fees,
    )

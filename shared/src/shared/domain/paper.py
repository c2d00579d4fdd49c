"""The paper venue's order of business per close time: opens, stops, marks, signals. Live paper and backtest alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from shared.domain.book import Book, SubAccount
from shared.domain.effects import Effect, Filled, Placed, StateChanged
from shared.domain.matching import ExitHit, fill_price, is_late, match_exits
from shared.domain.positions import is_dust
from shared.domain.risk import ControlState
from shared.domain.rounding import sellable_quantity
from shared.domain.sizing import affordable_quantity
from shared.domain.slippage import RecentVolumes
from shared.models import Candle, Order, OrderSide, OrderStatus, Signal


class PaperVenue:
    """Simulated executions for every instance of a book; pure, it only ever hears of candles and signals."""

    def __init__(
        self,
        book: Book,
        *,
        fills_at_close: bool = False,
        detail: Callable[[Candle], Sequence[Candle]] = lambda _candle: (),
    ) -> None:
        self.book = book
        self.volumes = None if book.rules.impact is None else RecentVolumes(book.rules.impact)
        self.exits_contested = 0
        self.exits_resolved = 0
        self.entries_cut = 0
        self._fills_at_close = fills_at_close
        self._detail = detail
        self._by_stream: dict[tuple[str, str], list[SubAccount]] = {}
        for key in sorted(book.accounts):
            self._by_stream.setdefault((key.symbol, key.timeframe), []).append(book.accounts[key])

    def advance(self, as_of: datetime, candles: Sequence[Candle], signals: Sequence[Signal] = ()) -> list[Effect]:
        """Return everything that close time `as_of` causes; `candles` are those that close at it."""
        effects: list[Effect] = []
        if len(candles) > 1:
            candles = sorted(candles, key=_candle_order)
        streams = [(candle, self._by_stream.get((candle.symbol, candle.timeframe), ())) for candle in candles]
        for candle, accounts in streams:
            for account in accounts:
                if account.working:
                    self._fill_waiting(account, candle.open_time, candle.open, as_of, effects)
        for candle, accounts in streams:
            for account in accounts:
                if account.holding.quantity and account.rules.has_exits:
                    self._match_exits(account, candle, as_of, effects)
        self._mark(as_of, candles, effects)
        if signals:
            for signal in sorted(signals, key=_signal_order):
                self._handle_signal(signal, as_of, effects)
        return effects

    def visit(self, account: SubAccount, candle: Candle, signals: Sequence[Signal]) -> list[Effect]:
        """Return what `advance` would for one sub-account and a candle of its stream, where no account limit is set.

        Marks, which then nothing that trades looks at, are the caller's.
        """
        effects: list[Effect] = []
        as_of = candle.close_time
        if account.working:
            self._fill_waiting(account, candle.open_time, candle.open, as_of, effects)
        if account.holding.quantity and account.rules.has_exits:
            self._match_exits(account, candle, as_of, effects)
        if self.volumes is not None:
            self.volumes.observe(candle.symbol, candle.timeframe, candle.volume)
        for signal in signals:
            self._handle_signal(signal, as_of, effects, account)
        return effects

    def open_candle(self, symbol: str, timeframe: str, open_time: datetime, open: Decimal) -> list[Effect]:
        """Return the fills at the first frame of a new candle, as soon as its open is known."""
        effects: list[Effect] = []
        for account in self._by_stream.get((symbol, timeframe), ()):
            if account.working:
                self._fill_waiting(account, open_time, open, open_time, effects)
        return effects

    def close_orphan(self, account: SubAccount, price: Decimal, as_of: datetime) -> Placed | None:
        """Return the order that ends an orphan's position at the next open, or None for dust."""
        quantity = sellable_quantity(account.holding.quantity, account.rules.instrument.step_size)
        if account.working or is_dust(quantity, price, account.rules.instrument):
            return None
        order = self.book.reducing_order(account, quantity=quantity, price=price, as_of=as_of, purpose="orphan")
        return self.book.place(order, None)

    def sell_out(self, account: SubAccount, price: Decimal, as_of: datetime) -> list[Effect]:
        """Return the sale of a whole position at the last close, for runs that are asked to end flat."""
        effects: list[Effect] = []
        quantity = sellable_quantity(account.holding.quantity, account.rules.instrument.step_size)
        if not is_dust(quantity, price, account.rules.instrument):
            order = self.book.reducing_order(
                account, quantity=quantity, price=price, as_of=as_of, purpose="end_of_data"
            )
            effects.append(self.book.place(order, None))
            self._execute(account, order, price, (as_of, as_of), effects)
        return effects

    def _mark(self, as_of: datetime, candles: Sequence[Candle], effects: list[Effect]) -> None:
        book, before = self.book, self.book.figures
        for candle in candles:
            book.set_mark(candle.symbol, candle.close, as_of)
            if self.volumes is not None:
                self.volumes.observe(candle.symbol, candle.timeframe, candle.volume)
        book.mark(as_of)
        if book.figures.state_reason != before.state_reason:
            detail = f"equity {book.figures.equity:.2f}, day PnL {book.figures.day_pnl:.2f}, peak {book.figures.equity_peak:.2f}"
            effects.append(StateChanged(book.figures.state, book.figures.state_reason, detail, as_of))

    def _handle_signal(
        self, signal: Signal, as_of: datetime, effects: list[Effect], account: SubAccount | None = None
    ) -> None:
        effect = self.book.decide(signal, as_of, account)
        effects.append(effect)
        if self._fills_at_close and isinstance(effect, Placed):
            account = account or self.book.accounts[signal.instance]
            self._execute(account, effect.order, signal.price, (as_of, as_of), effects)

    def _fill_waiting(
        self, account: SubAccount, open_time: datetime, open: Decimal, as_of: datetime, effects: list[Effect]
    ) -> None:
        for order in [waiting for waiting in account.working if waiting.created_at <= open_time]:
            if self.book.control is ControlState.HALT and order.side is OrderSide.SELL:
                continue  # held, not ended: it goes out late once a person has resumed
            late = is_late(order.created_at, open_time, account.rules.age_max)
            if late and order.side is OrderSide.BUY and self.book.rules.gap_refuses:
                effects.append(self.book.close(order, OrderStatus.EXPIRED, "gap"))
                continue
            if order.side is OrderSide.BUY and self.book.control is not ControlState.ACTIVE:
                reason = "halted" if self.book.control is ControlState.HALT else "reduce_only"
                effects.append(self.book.close(order, OrderStatus.CANCELED, reason))
                continue
            if order.side is OrderSide.SELL and order.quantity > account.holding.quantity:
                effects.append(self.book.close(order, OrderStatus.CANCELED, "nothing_held"))
                continue
            order = msgspec.structs.replace(order, late=late) if late else order
            self._execute(account, order, open, (open_time, as_of), effects)

    def _execute(
        self, account: SubAccount, order: Order, price: Decimal, times: tuple[datetime, datetime], effects: list[Effect]
    ) -> None:
        """Fill an order of the account; `times` are that of the fill and that at which it is booked."""
        paid = self._price(account, order, price)
        if self.book.rules.partial_cash and order.side is OrderSide.BUY:
            order = self._cut_to_cash(account, order, paid)
            paid = self._price(account, order, price)
        effect = self.book.fill(order, paid, *times, price, account)
        if self.volumes is not None and isinstance(effect, Filled):
            self.volumes.record(self.volumes.share(order.symbol, order.timeframe, order.quantity))
        effects.append(effect)

    def _price(self, account: SubAccount, order: Order, price: Decimal) -> Decimal:
        bps = self.book.rules.slippage_bps
        if self.volumes is not None:
            bps = self.volumes.slippage_bps(order.symbol, order.timeframe, order.quantity)
        return fill_price(price, side=order.side, slippage_bps=bps, instrument=account.rules.instrument)

    def _cut_to_cash(self, account: SubAccount, order: Order, price: Decimal) -> Order:
        """Return a BUY of what its sub-account's cash covers; uncut, to be rejected, where that is no order."""
        fees, instrument = self.book.rules.fees, account.rules.instrument
        most = affordable_quantity(account.cash, price=price, fees=fees, step_size=instrument.step_size)
        if most >= order.quantity or is_dust(most, price, instrument):
            return order
        self.entries_cut += 1
        return msgspec.structs.replace(order, quantity=most)

    def _match_exits(self, account: SubAccount, candle: Candle, as_of: datetime, effects: list[Effect]) -> None:
        hit = self._exit_hit(account, candle)
        if hit is not None:
            quantity = sellable_quantity(account.holding.quantity, account.rules.instrument.step_size)
            if quantity and not is_dust(quantity, hit.price, account.rules.instrument):
                order = self.book.reducing_order(
                    account, quantity=quantity, price=hit.price, as_of=as_of, purpose=hit.purpose
                )
                effects.append(self.book.place(order, None))
                self.exits_contested += hit.is_contested
                self.exits_resolved += hit.is_resolved
                times = (candle.open_time if hit.at_open else as_of, as_of)
                self._execute(account, order, hit.price, times, effects)
                self.book.start_cooldown(account, candle.open_time)
                return
        if account.rules.trailing_pct > 0 and account.holding.entries and candle.high > account.high_water_price:
            account.high_water_price = candle.high
            self.book.touched.add(account.key)

    def _exit_hit(self, account: SubAccount, candle: Candle) -> ExitHit | None:
        stop, trailing_stop, target = account.stop_price, account.trailing_stop, account.target_price
        hit = match_exits(candle, stop=stop, trailing_stop=trailing_stop, target=target)
        if hit is None or not hit.is_contested:
            return hit
        return match_exits(candle, stop=stop, trailing_stop=trailing_stop, target=target, detail=self._detail(candle))


def _candle_order(candle: Candle) -> tuple[str, str]:
    return (candle.symbol, candle.timeframe)


def _signal_order(signal: Signal) -> tuple[bool, str, str, str]:
    return (signal.side is OrderSide.BUY, signal.symbol, signal.timeframe, signal.strategy)

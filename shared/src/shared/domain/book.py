"""The book: every sub-account, every working order, the account's limits, and the one way a signal becomes an order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal

import msgspec

from shared.clock import derived_id
from shared.domain.account import AccountFigures, OrderRates, check_state, mark_account, opening_figures
from shared.domain.effects import IGNORED, REFUSED, Closed, Declined, Effect, Filled, Placed
from shared.domain.fees import BNB, FeeAsset, compute_fee
from shared.domain.matching import TAKE_PROFIT
from shared.domain.order_lifecycle import move
from shared.domain.positions import Holding, apply_fill, fill_effect, is_dust
from shared.domain.risk import ControlState, IncreaseFigures, Refusal, check_increase
from shared.domain.rounding import ZERO, minus, plus, ratio, sellable_quantity, times
from shared.domain.sizing import SizingRule, entry_quantity, smallest_passing_quantity
from shared.domain.sub_account import BookRules, InstanceRules, SubAccount
from shared.models import (
    TIMEFRAME_DELTA,
    Fill,
    InstanceKey,
    Order,
    OrderSide,
    OrderStatus,
    OrderType,
    Signal,
    split_symbol,
)

__all__ = ["Book", "BookRules", "InstanceRules", "SubAccount"]


class Book:
    """All sub-accounts of one account. Deterministic: the same calls give the same effects, ids and numbers.

    `make_id` turns the facts of an order or fill into its id; one that nobody will look up may have a shorter one.
    """

    def __init__(
        self,
        rules: BookRules,
        balance: Decimal,
        control: ControlState = ControlState.ACTIVE,
        make_id: Callable[..., str] = derived_id,
    ) -> None:
        self.rules = rules
        self.initial_balance = balance
        self.cash = balance
        self.control = control
        self.accounts: dict[InstanceKey, SubAccount] = {}
        self.marks: dict[str, Decimal] = {}
        self.figures: AccountFigures = opening_figures(balance)
        self.sequence = 0
        self.touched: set[InstanceKey] = set()
        self._make_id = make_id
        self._held: dict[str, Decimal] = {}
        self._mark_times: dict[str, datetime] = {}
        self._rates = OrderRates()
        self._marked: AccountFigures | None = None

    def open_account(self, key: InstanceKey, rules: InstanceRules, cash: Decimal) -> SubAccount:
        """Add an instance with its allocation of the account's cash."""
        assert key not in self.accounts, f"book: {key} opened twice"
        account = SubAccount(key, rules, cash)
        self.accounts[key] = account
        return account

    def restore_holding(self, key: InstanceKey, holding: Holding) -> None:
        """Put back what the fills of an instance add up to."""
        account = self.accounts[key]
        account.cash = plus(account.cash, minus(holding.cash_flow, account.holding.cash_flow))
        self.cash = plus(self.cash, minus(holding.cash_flow, account.holding.cash_flow))
        self._add_held(key.symbol, minus(holding.quantity, account.holding.quantity))
        account.holding = holding

    def restore_rates(self, orders: Iterable[Order]) -> None:
        """Put back the increasing orders among those of the last hour, oldest first."""
        for order in orders:
            if order.side is not OrderSide.BUY:
                continue
            self._rates.record(order.created_at, times(order.quantity, order.price))

    def held(self, symbol: str) -> Decimal:
        """Return what all instances together hold of a symbol."""
        return self._held.get(symbol, ZERO)

    def equity(self) -> Decimal | None:
        """Return cash and positions at their marks; None while a held symbol has none."""
        total = self.cash
        for symbol, quantity in self._held.items():
            if quantity:
                mark = self.marks.get(symbol)
                if mark is None:
                    return None
                total = plus(total, times(quantity, mark))
        return total

    def set_mark(self, symbol: str, price: Decimal, as_of: datetime) -> None:
        """Take a close as the symbol's mark, unless a later one is already known: a late candle prices nothing anew."""
        if as_of >= self._mark_times.get(symbol, as_of):
            self.marks[symbol] = price
            self._mark_times[symbol] = as_of

    def mark(self, as_of: datetime) -> None:
        """Move the account's figures to `as_of`, at the marks set so far."""
        equity, figures = self.equity(), self.figures
        if equity is None or (figures is self._marked and equity == figures.equity and as_of.date() == figures.day):
            return  # nothing that the limits look at has moved since they were looked at
        self.figures = self._marked = mark_account(figures, as_of, equity, self.rules.limits)

    def revalue(self) -> None:
        """Take fills into the equity between two marks, as a live open brings them; limits look at the next close."""
        equity = self.equity()
        if equity is not None:
            self.figures = msgspec.structs.replace(self.figures, equity=equity)

    def decide(self, signal: Signal, as_of: datetime, account: SubAccount | None = None) -> Effect:
        """Return the order that a signal makes, or why it makes none; its sub-account, where known, is not looked up."""
        account = account or self.accounts.get(signal.instance)
        if account is None:
            return Declined(signal, REFUSED, "no_account", f"{signal.instance} has no sub-account", as_of)
        if not _is_readable(signal, account.rules):
            detail = f"{account.key} asked for {signal.quantity} at {signal.price}: numbers above 0 are needed"
            return Declined(signal, REFUSED, "invalid_signal", detail, as_of)
        if signal.side is OrderSide.SELL:
            return self._decide_sell(account, signal, as_of)
        return self._decide_buy(account, signal, as_of)

    def place(self, order: Order, signal: Signal | None, account: SubAccount | None = None) -> Placed:
        """Take an order among the working ones."""
        account = account or self.accounts[order.instance]
        account.working.append(order)
        self.touched.add(account.key)
        if order.side is OrderSide.BUY and self.rules.limits is not None:
            self._rates.record(order.created_at, times(order.quantity, order.price))
        return Placed(order, signal)

    def close(self, order: Order, status: OrderStatus, reason: str) -> Closed:
        """End a working order that will not fill (any further)."""
        ended = msgspec.structs.replace(order, status=move(order.status, status), reason=reason)
        self._forget(self.accounts[order.instance], order)
        return Closed(ended)

    def fill(
        self,
        order: Order,
        price: Decimal,
        traded_at: datetime,
        as_of: datetime,
        arrival_price: Decimal | None = None,
        account: SubAccount | None = None,
    ) -> Filled | Closed:
        """Book a full execution at `price`; a BUY that its own cash does not cover is rejected instead."""
        account = account or self.accounts[order.instance]
        fill, effect = self._execution(order, price, traded_at, as_of)
        if order.side is OrderSide.BUY and plus(account.cash, effect[1]) < ZERO:
            arrived = msgspec.structs.replace(order, arrival_price=arrival_price or order.arrival_price)
            return self.close(arrived, OrderStatus.REJECTED, "insufficient_cash")
        self.sequence += 1
        return self._book(account, order, fill, effect, arrival_price)

    def _execution(
        self, order: Order, price: Decimal, traded_at: datetime, as_of: datetime
    ) -> tuple[Fill, tuple[Decimal, Decimal]]:
        """Return the fill of a whole order, and what it changes."""
        notional, fees = times(order.quantity, price), self.rules.fees
        fee = compute_fee(
            fees,
            symbol=order.symbol,
            side=order.side,
            quantity=order.quantity,
            price=price,
            bnb_price=self._bnb_price(order.symbol) if fees.asset is FeeAsset.BNB else None,
            is_maker=order.purpose == TAKE_PROFIT,
            notional=notional,
        )
        fill = Fill(
            id=self._make_id(order.id, "fill", 1),
            order_id=order.id,
            symbol=order.symbol,
            side=order.side,
            price=price,
            quantity=order.quantity,
            fee=fee.amount,
            fee_asset=fee.asset,
            fee_quote=fee.value_quote,
            traded_at=traded_at,
            as_of=as_of,
            sequence=self.sequence + 1,
            strategy=order.strategy,
            timeframe=order.timeframe,
            reason=order.reason,
            venue=self.rules.venue,
            venue_trade_id=f"{self.rules.venue}-{order.id}",
        )
        return fill, fill_effect(fill, notional)

    def book_fill(self, order: Order, fill: Fill) -> Filled:
        """Move cash and position by a fill that a venue reported."""
        return self._book(self.accounts[order.instance], order, fill, fill_effect(fill), None)

    def _book(
        self,
        account: SubAccount,
        order: Order,
        fill: Fill,
        effect: tuple[Decimal, Decimal],
        arrival_price: Decimal | None,
    ) -> Filled:
        """Move cash and position by a fill; the only place where either changes."""
        before, base_change, cash_change = account.holding, *effect
        filled = plus(order.filled_quantity, fill.quantity) if order.filled_quantity else fill.quantity
        done = filled >= order.quantity
        status = OrderStatus.FILLED if done else OrderStatus.PARTIAL
        if not (status is order.status is OrderStatus.PARTIAL):
            status = move(order.status, status)  # before anything changes: an ended order takes no fill
        account.holding = apply_fill(before, fill, account.rules.instrument, effect)
        account.cash = plus(account.cash, cash_change)
        self.cash = plus(self.cash, cash_change)
        self._add_held(fill.symbol, base_change)
        if fill.side is OrderSide.BUY:  # dust of an ended entry is no position
            account.high_water_price = max(account.high_water_price, fill.price) if before.entries else fill.price
        elif not account.holding.entries:
            account.high_water_price = ZERO
        average = fill.price
        if order.filled_quantity:
            paid = times(order.filled_quantity, order.avg_fill_price or ZERO)
            average = ratio(plus(paid, times(fill.quantity, fill.price)), filled)
        after = msgspec.structs.replace(
            order,
            status=status,
            filled_quantity=filled,
            avg_fill_price=average,
            arrival_price=arrival_price or order.arrival_price,
            filled_at=fill.traded_at,
        )
        self._forget(account, order)
        if not done:
            account.working.append(after)
        return Filled(after, fill, account.cash, base_change)

    def reducing_order(
        self, account: SubAccount, *, quantity: Decimal, price: Decimal, as_of: datetime, purpose: str
    ) -> Order:
        """Return an order of our own that sells `quantity`: a stop, a target, an orphan's end."""
        return Order(
            id=self._make_id(*account.key, purpose, as_of.isoformat()),
            symbol=account.key.symbol,
            side=OrderSide.SELL,
            type=OrderType.STOP_LOSS if purpose in ("stop_loss", "trailing_stop") else OrderType.MARKET,
            price=price,
            quantity=quantity,
            created_at=as_of,
            strategy=account.key.strategy,
            timeframe=account.key.timeframe,
            purpose=purpose,
            reason=purpose,
        )

    def start_cooldown(self, account: SubAccount, candle_open_time: datetime) -> None:
        """Refuse this instance's entries from the stopped candle on, for its cool-down candles."""
        candles = account.rules.stop_cooldown_candles
        account.cooldown_until = candle_open_time + candles * TIMEFRAME_DELTA[account.key.timeframe]

    def _decide_sell(self, account: SubAccount, signal: Signal, as_of: datetime) -> Effect:
        holding, rules = account.holding, account.rules
        free = holding.quantity
        if account.working:
            free = minus(free, account.working_quantity(OrderSide.SELL))
        if free <= ZERO:
            return Declined(signal, IGNORED, "nothing_held", f"{account.key} holds nothing to sell", as_of)
        if self.control is ControlState.HALT:
            return Declined(signal, REFUSED, "halted", "the kill switch is at HALT; only protective stops sell", as_of)
        wanted = free
        if rules.max_entries == 0:
            wanted = min(free, signal.quantity)
        elif rules.max_entries > 1 and holding.entries:
            wanted = min(free, holding.entries[-1])
        quantity = sellable_quantity(wanted, rules.instrument.step_size)
        if quantity <= ZERO or is_dust(quantity, signal.price, rules.instrument):
            outcome, reason = (REFUSED, "dust") if holding.entries else (IGNORED, "nothing_held")
            return Declined(
                signal, outcome, reason, f"{account.key} holds {holding.quantity:f}, too little to sell", as_of
            )
        return self.place(self._order(signal, quantity, as_of), signal, account)

    def _decide_buy(self, account: SubAccount, signal: Signal, as_of: datetime) -> Effect:
        rules, entries = account.rules, len(account.holding.entries)
        if account.working:
            entries += sum(order.side is OrderSide.BUY for order in account.working)
        if rules.max_entries and entries >= rules.max_entries:
            return Declined(
                signal, IGNORED, "already_in", f"{account.key} has {entries} of {rules.max_entries} entries open", as_of
            )
        stop_distance_pct = rules.stop_distance_pct(signal.price) if rules.sizing.rule is SizingRule.RISK else ZERO
        if rules.sizing.rule is SizingRule.RISK and rules.stop_anchor_price is not None and stop_distance_pct <= 0:
            detail = f"{account.key}: {signal.price:f} is at or below the stop already; no size has its loss there"
            return Declined(signal, REFUSED, "below_stop", detail, as_of)
        needs_equity = rules.sizing.rule in (SizingRule.EQUITY_FRACTION, SizingRule.RISK)
        quantity = entry_quantity(
            rules.sizing,
            signal_quantity=signal.quantity,
            price=signal.price,
            # at its own close, so that no other stream changes the size
            equity=account.equity(signal.price) if needs_equity else ZERO,
            stop_loss_pct=stop_distance_pct,
            step_size=rules.instrument.step_size,
        )
        refusal = self._refuse_buy(account, signal, quantity, as_of)
        if refusal is not None:
            return Declined(signal, REFUSED, refusal.reason, refusal.detail, as_of)
        return self.place(self._order(signal, quantity, as_of), signal, account)

    def _refuse_buy(self, account: SubAccount, signal: Signal, quantity: Decimal, as_of: datetime) -> Refusal | None:
        if account.cooldown_until is not None:
            candle_time = signal.candle_open_time or signal.created_at - TIMEFRAME_DELTA[signal.timeframe]
            if candle_time < account.cooldown_until:
                return Refusal(
                    "stop_cooldown", f"{account.key} was stopped out; entries wait until {account.cooldown_until:%H:%M}"
                )
        if signal.expires_at is not None and as_of > signal.expires_at:
            return Refusal(
                "expired", f"the signal of {signal.created_at:%Y-%m-%d %H:%M} expired at {signal.expires_at:%H:%M}"
            )
        if account.is_orphan:
            return Refusal("orphan", f"{account.key} is not enabled any more; its position only shrinks")
        instrument = account.rules.instrument
        if quantity <= ZERO or (instrument.notional_min and times(quantity, signal.price) < instrument.notional_min):
            least = smallest_passing_quantity(instrument, signal.price)
            return Refusal(
                "below_min_notional",
                f"{quantity:f} {account.key.symbol} at {signal.price:f} is below the venue's minimum; the smallest that passes is {least:f}",
            )
        state = check_state(self.control, self.figures)
        if state is not None or self.rules.limits is None:
            return state
        return check_increase(self.rules.limits, self._figures_for(signal, quantity, as_of))

    def _figures_for(self, signal: Signal, quantity: Decimal, as_of: datetime) -> IncreaseFigures:
        waiting: dict[str, Decimal] = {}
        for account in self.accounts.values():
            if account.working:
                symbol = account.key.symbol
                waiting[symbol] = plus(waiting.get(symbol, ZERO), account.working_quantity(OrderSide.BUY))
        gross: Decimal | None = ZERO
        for symbol in self._held.keys() | waiting.keys():
            exposed = plus(self.held(symbol), waiting.get(symbol, ZERO))
            mark = self.marks.get(symbol)
            if exposed and mark is None:
                gross = None
                break
            gross = plus(gross or ZERO, times(exposed, mark or ZERO))
        return IncreaseFigures(
            symbol=signal.symbol,
            price=signal.price,
            quantity=quantity,
            equity=self.equity(),
            symbol_quantity=plus(self.held(signal.symbol), waiting.get(signal.symbol, ZERO)),
            gross_exposure=gross,
            day_base=self.figures.day_base,
            day_flows=self.figures.day_flows,
            equity_peak=self.figures.equity_peak,
            orders_last_minute=self._rates.last_minute(as_of),
            notional_last_hour=self._rates.last_hour_notional(as_of),
        )

    def _order(self, signal: Signal, quantity: Decimal, as_of: datetime) -> Order:
        return Order(
            id=self._make_id(signal.id, "order"),
            signal_id=signal.id,
            symbol=signal.symbol,
            side=signal.side,
            price=signal.price,
            quantity=quantity,
            created_at=as_of,
            strategy=signal.strategy,
            timeframe=signal.timeframe,
            reason=signal.reason,
        )

    def _forget(self, account: SubAccount, order: Order) -> None:
        working = account.working
        is_only = len(working) == 1 and working[0].id == order.id  # as it mostly is
        account.working = [] if is_only else [other for other in working if other.id != order.id]
        self.touched.add(account.key)

    def _bnb_price(self, symbol: str) -> Decimal | None:
        return self.marks.get(f"{BNB}/{split_symbol(symbol)[1]}")

    def _add_held(self, symbol: str, change: Decimal) -> None:
        if change:
            self._held[symbol] = plus(self._held.get(symbol, ZERO), change)


def _is_readable(signal: Signal, rules: InstanceRules) -> bool:
    if not (signal.price.is_finite() and signal.price > ZERO):
        return False
    is_buy = signal.side is OrderSide.BUY
    is_quantity_used = rules.sizing.rule is SizingRule.FIXED if is_buy else rules.max_entries == 0
    return not is_quantity_used or (signal.quantity.is_finite() and signal.quantity >= ZERO)

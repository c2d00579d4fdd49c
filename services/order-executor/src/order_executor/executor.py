"""Signals become orders: decide on the book, record everything in one transaction, then tell the world."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from order_executor.config import ACCOUNT, ExecutorConfig
from order_executor.notices import notify
from order_executor.recording import decided_ids, write_records
from order_executor.records import account_row, order_event, position_rows, sub_account_row, to_records
from order_executor.recovery import open_book, read_control
from order_executor.risk_manager import RiskManager
from order_executor.signals import exact, refusal_of
from order_executor.sub_accounts import SubAccounts, adopt_instance
from order_executor.venues.port import Venue
from shared.broker import Broker
from shared.db import Conflict, Database
from shared.domain.book import Book
from shared.domain.effects import REFUSED, Declined, Effect, Placed, StateChanged
from shared.domain.paper import PaperVenue
from shared.domain.positions import is_dust
from shared.domain.risk import ControlState
from shared.domain.rounding import sellable_quantity
from shared.errors import BrokerError, ConfigError
from shared.events import ORDER_STREAM, SIGNAL_STREAM, CandleOpened
from shared.models import Candle, InstanceKey, Order, Signal
from shared.notifier import TelegramNotifier
from shared.sa_models import AccountRow, PositionRow, StrategyPositionRow


class Step(NamedTuple):
    """One close time to handle: its candles, and the signals that are due at it."""

    as_of: datetime
    candles: list[Candle]
    signals: list[Signal]


class Touch(NamedTuple):
    """When a sub-account last changed, and the account's fills by then."""

    as_of: datetime
    sequence: int


class OrderExecutor:
    """Holds the account's book; whatever it decides is in the database before anyone hears of it.

    `exchange` is a network venue, None on paper, where executions are simulated inside the same transaction.
    """

    def __init__(
        self,
        exchange: Venue | None,
        risk_manager: RiskManager,
        broker: Broker,
        db: Database,
        notifier: TelegramNotifier | None = None,
        dry_run: bool = True,
        *,
        config: ExecutorConfig | None = None,
    ) -> None:
        if not dry_run:
            raise ConfigError(
                f"order executor: dry_run is off, but this build sends nothing to {exchange or 'an exchange'}; "
                "it trades on paper only, leave dry_run on"
            )
        chosen = config or ExecutorConfig()
        if config is None:
            rules = msgspec.structs.replace(chosen.rules, limits=risk_manager.limits)
            chosen = dataclasses.replace(chosen, rules=rules, stop_loss_pct=risk_manager.stop_loss_pct, adopts=True)
        self.config = chosen
        self._broker = broker
        self._database = db
        self._notifier = notifier
        self._paper: PaperVenue | None = None
        self._turn = asyncio.Lock()  # one decision after the other: they share the book

    @property
    def book(self) -> Book:
        """Return the account's book, once loaded."""
        assert self._paper is not None, "executor: the book was asked for before it was loaded"
        return self._paper.book

    @property
    def is_loaded(self) -> bool:
        """Return whether the book is in memory; a transaction that failed throws it away."""
        return self._paper is not None

    async def load(self) -> None:
        """Open the book, or rebuild it from what is stored."""
        self._paper = PaperVenue(await open_book(self._database, self.config))

    async def execute(self, signal: Signal) -> Order | None:
        """Return the PENDING order that `signal` makes, stored and published; None when it is refused or ignored.

        A signal that was decided before makes nothing new and gives None.
        """
        refusal = refusal_of(signal, self.config.quote_asset)
        if refusal is not None and not refusal.is_storable:
            declined = Declined(signal, REFUSED, "invalid_signal", refusal.detail, signal.created_at)
            await self._tell([declined])
            return None
        signal = exact(signal)
        async with self._transaction(self._database.get_session) as session:
            await self._database.insert_signal(signal, session)
            if refusal is not None:
                effects = await self._refuse(session, signal, refusal.detail)
            else:
                effects = await self._take(session, signal)
            await self._database.ack_outbox(session, SIGNAL_STREAM, [signal.id])
        await self._tell(effects)
        for effect in effects:
            if isinstance(effect, Placed):
                with contextlib.suppress(BrokerError):  # stored in the outbox: it is sent again
                    await self._broker.publish(ORDER_STREAM, order_event(effect.order))
                return effect.order
        return None

    async def handle(
        self, steps: Sequence[Step], cursors: Mapping[str, int], watermark: datetime, handled_keys: Sequence[str] = ()
    ) -> list[Effect]:
        """Run close times through the book and record them with the reader's cursors, all in one transaction.

        The messages of the steps' signals are acknowledged in it, and those of `handled_keys`.
        """
        keys = [signal.id for step in steps for signal in step.signals] + list(handled_keys)
        async with self._transaction(self._database.batch) as session:
            changes = await self._obey_control(session, watermark)
            effects, touched = await self._decide(steps, session)
            await self._record(session, effects, touched, watermark)
            if keys:
                await self._database.write_acks(session, SIGNAL_STREAM, keys)
            await self._database.write_cursors(session, cursors)
        await self._tell([*changes, *effects])
        return [*changes, *effects]

    async def open_candles(self, opened: Sequence[CandleOpened], watermark: datetime) -> list[Effect]:
        """Fill what waits for these opens, before anything else of their candles is known, in one transaction."""
        effects: list[Effect] = []
        async with self._transaction(self._database.batch) as session:
            assert self._paper is not None, "executor: a transaction has a book"
            effects += await self._obey_control(session, watermark)
            for each in opened:
                effects += self._paper.open_candle(each.symbol, each.timeframe, each.open_time, Decimal(each.open))
            self.book.revalue()
            await self._record(session, effects, self._touched(watermark), watermark)
        await self._tell(effects)
        return effects

    async def close_orphans(self, as_of: datetime) -> list[Effect]:
        """Place the orders that end every orphan's position at the next open."""
        effects: list[Effect] = []
        async with self._transaction(self._database.batch) as session:
            assert self._paper is not None, "executor: a transaction has a book"
            for account in list(self.book.accounts.values()):
                mark = self.book.marks.get(account.key.symbol)
                if account.is_orphan and account.holding.quantity and mark is not None:
                    placed = self._paper.close_orphan(account, mark, as_of)
                    effects.extend([placed] if placed else [])
            await self._record(session, effects, self._touched(as_of), as_of)
        await self._tell(effects)
        return effects

    @contextlib.asynccontextmanager
    async def _transaction(
        self, begin: Callable[[], AbstractAsyncContextManager[AsyncSession]]
    ) -> AsyncIterator[AsyncSession]:
        """Open one transaction on the loaded book; when it fails the book, which ran ahead of it, is forgotten."""
        async with self._turn:
            if not self.is_loaded:
                await self.load()
            try:
                async with begin() as session:
                    yield session
            except BaseException:
                self._paper = None
                raise

    async def _take(self, session: AsyncSession, signal: Signal) -> list[Effect]:
        """Decide one signal on its own, at its own price and time."""
        changes = await self._obey_control(session, signal.created_at)
        if signal.instance not in self.book.accounts and self.config.adopts:
            owners = SubAccounts(self._database, session, self.book, self.config, signal.created_at)
            await adopt_instance(owners, signal.instance)
            self._paper = PaperVenue(self.book)
        self.book.set_mark(signal.symbol, signal.price, signal.created_at)
        effects, touched = await self._decide([Step(signal.created_at, [], [signal])], session)
        await self._record(session, effects, touched, signal.created_at)
        return [*changes, *effects]

    async def _refuse(self, session: AsyncSession, signal: Signal, detail: str) -> list[Effect]:
        """Record a signal that no book can read."""
        if await decided_ids(session, [signal.id]):
            return []
        effects: list[Effect] = [Declined(signal, REFUSED, "invalid_signal", detail, signal.created_at)]
        await write_records(self._database, session, to_records(effects, ACCOUNT))
        return effects

    async def _obey_control(self, session: AsyncSession, as_of: datetime) -> list[Effect]:
        """Take over what the kill switch says, inside the transaction that acts on it."""
        order = await read_control(session)
        if order.state is self.book.control:
            return []
        self.book.control = order.state
        return [StateChanged(order.state, order.reason, f"the kill switch, set by {order.set_by or 'nobody'}", as_of)]

    def _flatten(self, as_of: datetime) -> list[Effect]:
        """Return the orders that end every position at the next open."""
        book = self.book
        effects: list[Effect] = []
        for key in sorted(book.accounts):
            account, mark = book.accounts[key], book.marks.get(key.symbol)
            quantity = sellable_quantity(account.holding.quantity, account.rules.instrument.step_size)
            if mark is None or account.working or is_dust(quantity, mark, account.rules.instrument):
                continue
            order = book.reducing_order(account, quantity=quantity, price=mark, as_of=as_of, purpose="flatten")
            effects.append(book.place(order, None))
        return effects

    async def _decide(
        self, steps: Sequence[Step], session: AsyncSession
    ) -> tuple[list[Effect], dict[InstanceKey, Touch]]:
        assert self._paper is not None, "executor: a book that failed is loaded again before it decides"
        known = await decided_ids(session, [signal.id for step in steps for signal in step.signals])
        effects: list[Effect] = []
        touched: dict[InstanceKey, Touch] = {}
        for step in steps:
            fresh = []
            for signal in step.signals:
                if signal.id not in known:
                    known.add(signal.id)
                    fresh.append(signal)
            effects.extend(self._paper.advance(step.as_of, step.candles, fresh))
            if self.book.control is ControlState.FLATTEN:
                effects.extend(self._flatten(step.as_of))
            touched |= self._touched(step.as_of)
        return effects, touched

    def _touched(self, as_of: datetime) -> dict[InstanceKey, Touch]:
        """Return the sub-accounts that `as_of` changed: its time is stored, not that of the batch it came in."""
        book = self.book
        touched = {key: Touch(as_of, book.sequence) for key in book.touched}
        book.touched.clear()
        return touched

    async def _record(
        self, session: AsyncSession, effects: Sequence[Effect], touched: Mapping[InstanceKey, Touch], as_of: datetime
    ) -> None:
        book, database = self.book, self._database
        await write_records(database, session, to_records(effects, ACCOUNT))
        changed = [sub_account_row(book.accounts[key], *touched[key]) for key in sorted(touched)]
        if changed:
            await database.write_rows(session, StrategyPositionRow, changed, conflict=Conflict.UPDATES)
        positions = position_rows(book, as_of)
        if positions:
            await database.write_rows(session, PositionRow, positions, conflict=Conflict.UPDATES)
        own = account_row(
            book, account=ACCOUNT, mode=self.config.mode, quote_asset=self.config.quote_asset, as_of=as_of
        )
        await database.write_rows(session, AccountRow, [own], conflict=Conflict.UPDATES)

    async def _tell(self, effects: Sequence[Effect]) -> None:
        if self._notifier is not None and self._notifier.enabled:
            await notify(self._notifier, effects)

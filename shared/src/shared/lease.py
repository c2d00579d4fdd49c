"""Who may write: one holder of a name at a time, and a token that each of its transactions checks.

A lease is a row. Its holder renews it by the database's clock; when it has run out, or its holder is known to have
ended, another process takes it and counts its epoch up. A process that was paused and wakes later still believes that
it holds the lease, but its epoch is the old one: `FencedDatabase` finds that out inside each transaction, before
anything of it can be committed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.stdlib import BoundLogger

from shared.clock import Clock
from shared.db import Database
from shared.db_chain import Guard
from shared.db_session import fetch
from shared.errors import DatabaseError, LeaseLost
from shared.models import from_milliseconds
from shared.process_identity import own_identity, parse_identity
from shared.sa_models import LeaseRow

RENEWALS_PER_LEASE: Final = 5
STANDBY_POLL_SECONDS: Final = 1.0
# KEY SHARE: whoever takes the lease (FOR UPDATE) waits for this transaction's end, our own renewal does not.
_FENCE: Final = {
    "sqlite": "SELECT name, epoch FROM lease WHERE name IN (SELECT value FROM json_each(?))",
    "postgresql": "SELECT name, epoch FROM lease WHERE name = ANY($1::text[]) FOR KEY SHARE",
}
_GUARD: Final = (
    "SELECT count(*) = cardinality($1::text[]) FROM unnest($1::text[], $2::bigint[]) AS ours(name, epoch) "
    f"JOIN ({_FENCE['postgresql']}) AS held ON held.name = ours.name AND held.epoch = ours.epoch"
)

type Check = Callable[[AsyncSession], Awaitable[None]]


class FencedDatabase(Database):
    """A database whose write transactions begin with a check, once there is one."""

    _check: Check | None = None
    _guard: Callable[[], Guard] | None = None

    def fence(self, check: Check | None, guard: Callable[[], Guard] | None = None) -> None:
        """Begin every write transaction with `check` from now on; None takes the fence away.

        `guard` asks the same in the one statement of a batch on PostgreSQL.
        """
        self._check, self._guard = check, guard

    def get_session(self, *, readonly: bool = False) -> AbstractAsyncContextManager[AsyncSession]:
        """Return a transaction; one that writes is refused where the check raises."""
        if readonly or self._check is None:
            return super().get_session(readonly=readonly)
        return self._checked(super().get_session(), self._check)

    def batch(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Return a transaction for plain writes; it is refused where the check raises or the guard does not hold."""
        if self._check is None:
            return super().batch()
        if self._guard is not None and self.dialect == "postgresql":
            return self._connections.batching(self._guard())
        return self._checked(super().batch(), self._check)

    def unfenced(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Return a write transaction that checks nothing: for the lease itself."""
        return super().get_session()

    async def run_transaction[T](self, work: Callable[[AsyncSession], Awaitable[T]], *, attempts_max: int = 5) -> T:
        """Run `work` as if nobody else wrote, behind the same check."""

        async def checked(session: AsyncSession) -> T:
            if self._check is not None:
                await self._check(session)
            return await work(session)

        return await super().run_transaction(checked, attempts_max=attempts_max)

    @asynccontextmanager
    async def _checked(
        self, transaction: AbstractAsyncContextManager[AsyncSession], check: Check
    ) -> AsyncIterator[AsyncSession]:
        async with transaction as session:
            await check(session)
            yield session


class Lease:
    """One process's hold on one or more names: all of them or none."""

    def __init__(
        self, database: FencedDatabase, names: Sequence[str], *, seconds: float, clock: Clock, log: BoundLogger
    ) -> None:
        self.names = tuple(sorted(names))
        self.holder = str(own_identity())
        self.epochs: dict[str, int] = {}
        self._database = database
        self._seconds = seconds
        self._clock = clock
        self._log = log
        self._other = ""

    @property
    def is_held(self) -> bool:
        """Return whether this process holds the names, as far as it knows."""
        return bool(self.epochs)

    def check_health(self) -> tuple[bool, str]:
        """Return what /health says: a standby is well, too."""
        if self.is_held:
            return True, f"held, epoch {max(self.epochs.values())}"
        return (True, f"standby: {self._other}") if self._other else (False, "not taken yet")

    async def wait_for(self, stop: asyncio.Event) -> bool:
        """Take the names as soon as nobody else holds them; False when `stop` came first."""
        while not stop.is_set():
            wait_seconds = STANDBY_POLL_SECONDS
            try:
                left = await self._seconds_left()
                if left <= 0 and await self.take():
                    return True
                wait_seconds = min(max(left, 0.02), STANDBY_POLL_SECONDS)
            except DatabaseError as error:
                if not error.retryable:
                    raise
                self._log.warning("lease.database_away", error=str(error))
            await self._sleep(wait_seconds, stop)
        return False

    async def take(self) -> bool:
        """Take every name that has run out or whose holder has ended; False (and nothing taken) when one is held."""
        async with self._database.unfenced() as session:
            blank = {"epoch": 0, "holder": "", "build_id": "", "expires_at": from_milliseconds(0)}
            rows = [{"name": name, **blank} for name in self.names]
            await self._database.insert_rows(session, LeaseRow, rows, ignore_conflicts=True)
            wanted = select(LeaseRow.__table__).where(LeaseRow.name.in_(self.names)).order_by(LeaseRow.name)
            found = (await session.execute(wanted.with_for_update())).mappings().all()
            now = await _now(self._database, session)
            if any(not _is_free(row["holder"], row["expires_at"], now) for row in found):
                return False
            epochs = {row["name"]: int(row["epoch"]) + 1 for row in found}
            for name, epoch in epochs.items():
                values = {"epoch": epoch, "holder": self.holder, "expires_at": now + timedelta(seconds=self._seconds)}
                await session.execute(update(LeaseRow).where(LeaseRow.name == name).values(values))
        self.epochs, self._other = epochs, ""
        self._database.fence(self.check, self.guard)
        self._log.info("lease.taken", epochs=epochs)
        return True

    async def other_holder(self) -> str:
        """Return which name is held by whom, empty when all may be taken."""
        return next(iter(await holders_of(self._database, self.names)), "")

    async def check(self, session: AsyncSession) -> None:
        """Raise LeaseLost unless the names are still ours; they stay so until the session's transaction ends."""
        is_sqlite = self._database.dialect == "sqlite"
        names = json.dumps(self.names) if is_sqlite else list(self.names)
        rows = await fetch(session, _FENCE["sqlite" if is_sqlite else "postgresql"], (names,))
        found = {name: int(epoch) for name, epoch in rows}
        if not self.epochs or found != self.epochs:
            raise self._lost()

    def guard(self) -> Guard:
        """Return what a statement asks to know whether the names are still ours, and to keep them so until it ends."""
        epochs = [self.epochs.get(name, -1) for name in self.names]
        return Guard(_GUARD, (list(self.names), epochs), self._lost)

    async def keep(self) -> None:
        """Renew until cancelled; raise LeaseLost once somebody else has a name of ours."""
        while True:
            await self._clock.sleep(self._seconds / RENEWALS_PER_LEASE)
            try:
                await self._renew()
            except LeaseLost:
                raise
            except DatabaseError as error:  # nothing can be written either; the next renewal tells whether we lost
                if not error.retryable:
                    raise
                self._log.warning("lease.not_renewed", error=str(error))

    async def release(self) -> None:
        """Let the names go, so that a standby need not wait until they run out."""
        if not self.epochs:
            return
        epochs = self.forget()
        async with self._database.unfenced() as session:
            now = await _now(self._database, session)
            for name, epoch in epochs.items():
                mine = (LeaseRow.name == name) & (LeaseRow.epoch == epoch)
                await session.execute(update(LeaseRow).where(mine).values(expires_at=now))

    def forget(self) -> dict[str, int]:
        """Stop believing that we hold the names; writes are refused until they are taken again."""
        epochs, self.epochs = self.epochs, {}
        return epochs

    async def _renew(self) -> None:
        async with self._database.unfenced() as session:
            until = await _now(self._database, session) + timedelta(seconds=self._seconds)
            for name, epoch in self.epochs.items():
                mine = (LeaseRow.name == name) & (LeaseRow.epoch == epoch)
                done = await session.execute(update(LeaseRow).where(mine).values(expires_at=until))
                if done.rowcount != 1:  # type: ignore[attr-defined]
                    raise self._lost()

    async def _seconds_left(self) -> float:
        """Return how long the names are still held by others; 0 when they may be taken."""
        held = await _held(self._database, self.names)
        if not held:
            self._other = ""
            return 0.0
        other = str(held[0])
        if other != self._other:
            self._other = other
            self._log.info("lease.standby", detail=other)
        return max(each.seconds_left for each in held)

    def _lost(self) -> LeaseLost:
        names = ", ".join(self.names)
        return LeaseLost(f"lease: {names} was taken by another process while this one was away; nothing was written")

    async def _sleep(self, seconds: float, stop: asyncio.Event) -> None:
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(stop.wait()),
            asyncio.ensure_future(self._clock.sleep(seconds)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()


def _is_free(holder: str, expires_at: datetime, now: datetime) -> bool:
    if expires_at <= now:
        return True
    identity = parse_identity(holder)
    return identity is not None and identity.has_ended


class _Held(NamedTuple):
    """A lease that may not be taken now."""

    name: str
    holder: str
    seconds_left: float

    def __str__(self) -> str:
        return f"{self.name} is held by {self.holder.partition(' (')[0]}"


async def holders_of(database: Database, names: Sequence[str]) -> list[str]:
    """Return a sentence for each of `names` that a process holds now."""
    return [str(each) for each in await _held(database, names)]


async def _held(database: Database, names: Sequence[str]) -> list[_Held]:
    async with database.read() as session:
        wanted = select(LeaseRow.__table__).where(LeaseRow.name.in_(names)).order_by(LeaseRow.name)
        rows = (await session.execute(wanted)).mappings().all()
        now = await _now(database, session)
    return [
        _Held(row["name"], row["holder"], (row["expires_at"] - now).total_seconds())
        for row in rows
        if not _is_free(row["holder"], row["expires_at"], now)
    ]


async def _now(database: Database, session: AsyncSession) -> datetime:
    """Return the database's own time: the machines that hold leases need not agree on theirs."""
    if database.dialect == "sqlite":
        stored = await session.scalar(text("SELECT strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')"))
        return datetime.fromisoformat(str(stored))
    moment = await session.scalar(select(func.clock_timestamp()))  # not now(): that is when the transaction began
    assert isinstance(moment, datetime)
    return moment

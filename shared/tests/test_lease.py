"""One writer at a time: the second waits, takes over when the first is silent, and the first then writes nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import structlog

from shared.clock import SystemClock
from shared.errors import DatabaseError, LeaseLost
from shared.lease import FencedDatabase, Lease
from shared.process_identity import ProcessIdentity, own_identity, parse_identity
from shared.sa_models import CursorRow

LONG, SHORT = 600.0, 0.2

type Copies = Callable[..., tuple[Lease, FencedDatabase]]


@pytest.fixture
async def copies(database_url: str) -> AsyncIterator[Copies]:
    """Make copies of one service, each with connections of its own."""
    opened: list[FencedDatabase] = []

    def make(seconds: float, names: tuple[str, ...] = ("order-executor",)) -> tuple[Lease, FencedDatabase]:
        database = FencedDatabase(database_url)
        opened.append(database)
        log = structlog.stdlib.get_logger("lease")
        return Lease(database, names, seconds=seconds, clock=SystemClock(), log=log), database

    yield make
    for database in opened:
        await database.close()


async def write(database: FencedDatabase, value: str) -> None:
    async with database.get_session() as session:
        await database.upsert_rows(session, CursorRow, [{"name": "mine", "value": value}])


@asynccontextmanager
async def cancelled_at_end(task: asyncio.Task[None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_second_copy_does_not_get_what_the_first_holds(copies: Copies) -> None:
    (first, _), (second, _) = copies(LONG), copies(LONG)
    assert await first.take()
    assert not await second.take()
    assert first.is_held
    assert not second.is_held


async def test_what_was_let_go_is_taken_at_once_and_the_epoch_grows(
    copies: Copies,
) -> None:
    (first, _), (second, _) = copies(LONG), copies(LONG)
    await first.take()
    before = dict(first.epochs)
    await first.release()
    assert await second.wait_for(asyncio.Event())
    assert second.epochs["order-executor"] == before["order-executor"] + 1


async def test_a_holder_that_was_away_too_long_writes_nothing_any_more(
    copies: Copies,
) -> None:
    (first, old), (second, new) = copies(SHORT), copies(LONG)
    await first.take()
    await write(old, "before")
    assert await second.wait_for(asyncio.Event())  # the first one never renewed: it slept
    with pytest.raises(LeaseLost, match="order-executor was taken by another process"):
        await write(old, "after")
    with pytest.raises(LeaseLost):
        await old.run_transaction(lambda session: old.write_cursors(session, {"mine": "after"}))
    await write(new, "its successor")
    assert (await new.read_cursors("mine"))["mine"] == "its successor"


async def test_a_transaction_that_is_under_way_ends_before_anyone_takes_over(
    copies: Copies,
) -> None:
    (first, old), (second, new) = copies(SHORT), copies(LONG)
    await first.take()
    async with old.get_session() as session:
        await old.write_cursors(session, {"mine": "begun in time"})
        waiting = asyncio.create_task(second.wait_for(asyncio.Event()))
        done, _ = await asyncio.wait({waiting}, timeout=3 * SHORT)
        if not done:  # on SQLite the file is locked, on PostgreSQL the row is
            assert not second.is_held
    assert await waiting
    assert (await new.read_cursors("mine"))["mine"] == "begun in time"
    assert not done


async def test_who_renews_keeps_it(copies: Copies) -> None:
    (first, old), (second, _) = copies(3 * SHORT), copies(LONG)
    await first.take()
    stop = asyncio.Event()
    async with cancelled_at_end(asyncio.create_task(first.keep())):
        waiting = asyncio.create_task(second.wait_for(stop))
        done, _ = await asyncio.wait({waiting}, timeout=8 * SHORT)
        assert not done
        await write(old, "still mine")
        stop.set()
        assert not await waiting


async def test_the_keeper_says_when_it_was_taken(copies: Copies) -> None:
    (first, _), (second, _) = copies(SHORT), copies(LONG)
    await first.take()
    assert await second.wait_for(asyncio.Event())
    with pytest.raises(LeaseLost):
        await first.keep()


async def test_of_several_names_all_are_taken_or_none(copies: Copies) -> None:
    (first, _), (second, _) = copies(LONG, ("engine",)), copies(LONG, ("collector", "engine"))
    await first.take()
    assert not await second.take()
    third, _ = copies(LONG, ("collector",))
    assert await third.take()


async def test_a_holder_whose_process_has_ended_is_not_waited_for(
    copies: Copies,
) -> None:
    (first, _), (second, _) = copies(LONG), copies(LONG)
    own = own_identity()
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
    await ended.wait()
    first.holder = str(ProcessIdentity(own.host, own.namespace, ended.pid, "1"))
    await first.take()
    assert await second.take()


def test_a_process_is_known_by_more_than_its_number() -> None:
    own = own_identity()
    assert parse_identity(str(own)) == own
    assert not own.has_ended
    assert own._replace(started="1").has_ended, "the number was given to another process"
    assert not own._replace(host="elsewhere", started="1").has_ended, "nobody here can know"
    assert parse_identity("somebody") is None


async def test_a_standby_is_well_and_says_who_holds_it(copies: Copies) -> None:
    (first, _), (second, _) = copies(LONG), copies(LONG)
    await first.take()
    stop = asyncio.Event()
    waiting = asyncio.create_task(second.wait_for(stop))
    while "held by" not in second.check_health()[1]:
        await SystemClock().sleep(0.01)
    ok, detail = second.check_health()
    assert ok
    assert f"standby: order-executor is held by process {own_identity().pid} on" in detail
    stop.set()
    await waiting


def test_a_lost_lease_is_not_tried_again() -> None:
    assert isinstance(LeaseLost("x"), DatabaseError)
    assert not LeaseLost("x").retryable

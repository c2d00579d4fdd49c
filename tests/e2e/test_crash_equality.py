"""A platform that is killed, as often as one likes, ends where one ends that never was."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from portfolio_manager.verification import Verification, verify_database
from shared.db import Database
from shared.testing.crash_market import CrashMarket, Undisturbed
from shared.testing.platform_runs import PlatformRun, handled, has_rows, kill_points
from shared.testing.state_tables import Tables, read_tables, state_differences
from trading_cli.verify import verify

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

SEED = 20240804


class Reference(NamedTuple):
    """The run that nobody disturbed, and its tables."""

    options: tuple[str, ...]
    market: CrashMarket
    tables: Tables

    @property
    def candles(self) -> int:
        return self.market.candles


@pytest.fixture(scope="module")
def reference(undisturbed: Undisturbed) -> Reference:
    return Reference(undisturbed.options, undisturbed.market, read_tables(undisturbed.database))


def verified(database: Path) -> Verification:
    async def look() -> Verification:
        opened = Database(f"sqlite:///{database}")
        try:
            return await verify_database(opened)
        finally:
            await opened.close()

    return asyncio.run(look())


def counts(rows: list[Mapping[str, Any]], outcome: str) -> Counter[str]:
    return Counter(row["reason"] for row in rows if row["outcome"] == outcome)


def test_the_undisturbed_run_holds_enough_to_see_a_fault(reference: Reference) -> None:
    tables = reference.tables
    assert len(tables["candles"]) == reference.candles
    assert len(tables["trades"]) >= 300
    assert sum(row["purpose"] == "stop_loss" for row in tables["orders"]) >= 1
    assert len(counts(tables["decisions"], "refused")) >= 2
    assert len(counts(tables["decisions"], "ignored")) >= 2
    assert {row["strategy"] for row in tables["trades"]} == {row["strategy"] for row in tables["strategy_positions"]}
    assert len(tables["strategy_positions"]) == 7


def test_a_platform_killed_again_and_again_ends_with_the_same_state(
    reference: Reference, tmp_path: Path, is_proof: bool, record_property: Callable[..., None]
) -> None:
    run, kills = PlatformRun(tmp_path / "state", reference.options), 20 if is_proof else 5
    began = run.clock.monotonic()
    for point in kill_points(SEED, reference.candles, kills):
        was_running = run.kill_when(
            handled(point.service, reference.market.close_ms(point.candles)),
            *("--batch-rows-max", str(point.batch_rows_max)),
            with_children=point.with_children,
        )
        assert was_running, f"{point} was never reached; the runs said:\n{run.said()[-4000:]}"
        found = CliRunner().invoke(verify, ["--state", str(run.state)])  # a process of its own costs two seconds
        assert found.exit_code == 0, f"after {point}: {found.output}"
    ended = run.finish()
    assert ended.code == 0, ended.output
    assert run.verify().code == 0
    assert state_differences(reference.tables, read_tables(run.database)) == []
    record_property(
        "proved",
        f"one process: {kills} kills; {reference.candles} candles, {len(reference.tables['trades'])} fills, "
        f"{len(reference.tables)} tables equal, verified {kills + 1} times, {run.clock.monotonic() - began:.0f} s",
    )


def test_a_platform_ended_in_every_other_way_ends_with_the_same_state(reference: Reference, tmp_path: Path) -> None:
    run = PlatformRun(tmp_path / "state", reference.options)
    run.kill_at_once(run.database.exists)
    run.kill_when(has_rows("alembic_version"))
    run.kill_when(has_rows("cursors"))
    assert verified(run.copy_database(tmp_path / "first-second")).is_clean
    terminated = run.stop_when(handled("engine", reference.market.close_ms(reference.candles // 3)), signal.SIGTERM)
    assert terminated.code == 0, terminated.output
    assert verified(run.copy_database(tmp_path / "terminated")).is_clean
    assert len(read_tables(run.database, ["portfolio_snapshots"])["portfolio_snapshots"]) < reference.candles
    half, two_thirds = (handled("portfolio", reference.market.close_ms(reference.candles * n // 6)) for n in (3, 4))
    interrupted = run.stop_when(two_thirds, signal.SIGINT, bus_dies=half)
    assert "bus.died" in run.said()
    assert interrupted.code == 130, interrupted.output
    assert verified(run.copy_database(tmp_path / "interrupted")).is_clean
    assert run.finish().code == 0
    assert state_differences(reference.tables, read_tables(run.database)) == []
    assert run.finish().code == 0, "a finished state ends at once"
    assert state_differences(reference.tables, read_tables(run.database)) == []

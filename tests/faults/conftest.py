"""What every table of faults needs: the command in this process, a folder of its own, candles to replay."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from data_collector.feeds.market import SyntheticMarket
from shared.config import ENVIRONMENT_NAMES
from trading_cli.main import main

FIRST_DAY = 20_089  # 2025-01-01, in days since 1970


class Outcome(NamedTuple):
    """How a command ended, and what a person saw."""

    code: int
    said: str


type Trading = Callable[..., Outcome]


@pytest.fixture
def clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder, with no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.upper() in ENVIRONMENT_NAMES:
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def trading(clean_place: Path) -> Iterator[Trading]:
    """Run `trading ...` in this process."""

    def run(*arguments: str, env: dict[str, str | None] | None = None) -> Outcome:
        result = CliRunner().invoke(main, list(arguments), env=env, prog_name="trading")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return Outcome(result.exit_code, result.output)

    yield run
    logging.getLogger().handlers.clear()  # they write to streams that ended with the call


@pytest.fixture(scope="session")
def market() -> Any:
    """Return a day of believable minutes as columns a file may hold."""
    import polars as pl

    day = SyntheticMarket("BTC/USDT", 3).minutes(FIRST_DAY)
    return pl.DataFrame(
        {
            "open_time": pl.Series(day.open_time_ms).cast(pl.Datetime("ms", "UTC")),
            **{name: getattr(day, name) for name in ("open", "high", "low", "close", "volume")},
        }
    )


@pytest.fixture
def replay(clean_place: Path, market: Any) -> Callable[[int], tuple[str, ...]]:
    """Write the first candles of the day to a file and return the options that replay it."""

    def options(candles: int) -> tuple[str, ...]:
        path = clean_place / "candles.parquet"
        market.head(candles).write_parquet(path)
        return ("up", "--feed", "replay", "--data", f"BTC/USDT:1m={path}", "--speed", "max", "--health-port", "0")

    return options


def assert_refused(outcome: Outcome, *fragments: str, code: int = 2) -> None:
    """A deliberate end: its code, the sentence that helps, and no traceback."""
    assert outcome.code == code, outcome.said
    assert "Traceback" not in outcome.said, outcome.said
    for fragment in fragments:
        assert fragment in outcome.said, f"{fragment!r} is not in: {outcome.said}"


@pytest.fixture(scope="session")
def refused() -> Callable[..., None]:
    """Give the assertion of every table."""
    return assert_refused

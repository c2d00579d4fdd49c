"""Whatever the Bot API does, what is traded is the same, value by value."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from shared.config import load_settings
from shared.synthetic_market import SyntheticMarket
from shared.testing.bot_api import FakeBotApi, Outcome, garbage, hang, refusal, too_many_requests
from shared.testing.state_tables import Tables, read_tables, state_differences
from trading_cli.composition import open_platform

CANDLES = 700
FIRST_DAY = 20_089  # 2025-01-01, in days since 1970
BAD_DAYS = {
    "hangs": hang(),
    "bans with 429": too_many_requests(3600),
    "answers 400": refusal(400, "Bad Request: can't parse entities"),
    "answers rubbish": garbage(),
}


@pytest.fixture(scope="module")
def candles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give candles around a midnight, so that the day's summary is due as well."""
    market = SyntheticMarket("BTC/USDT", 3)
    days = pl.concat(
        [
            pl.DataFrame(
                {
                    "open_time": pl.Series(day.open_time_ms).cast(pl.Datetime("ms", "UTC")),
                    **{name: getattr(day, name) for name in ("open", "high", "low", "close", "volume")},
                }
            )
            for day in (market.minutes(FIRST_DAY), market.minutes(FIRST_DAY + 1))
        ]
    )
    midnight = datetime(2025, 1, 2, tzinfo=UTC)
    path = tmp_path_factory.mktemp("candles") / "candles.parquet"
    before = days.filter(pl.col("open_time") < midnight).tail(CANDLES - 200)
    pl.concat([before, days.filter(pl.col("open_time") >= midnight).head(200)]).write_parquet(path)
    return path


async def trade(folder: Path, candles: Path, api: FakeBotApi | None) -> Tables:
    """Run the whole platform over the candles and return every table."""
    telegram = {} if api is None else {"telegram_enabled": True, "telegram_bot_token": api.token, "telegram_chat_id": "42", "telegram_api_url": api.url}  # fmt: skip
    options = {"feed": "replay", "data": f"BTC/USDT:1m={candles}", "speed": "max", "health_port": 0, "state": folder}
    settings = load_settings({**options, **telegram, "telegram_close_seconds_max": 0.5}, env={})
    async with open_platform(settings) as platform:
        await platform.run(asyncio.Event())
    return read_tables(folder / "trading.db")


@pytest.fixture(scope="module")
def undisturbed(candles: Path, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Give what is traded without any messages."""
    return asyncio.run(trade(tmp_path_factory.mktemp("alone"), candles, None))


@pytest.mark.parametrize("behaviour", BAD_DAYS)
async def test_a_bot_api_that_fails_changes_nothing(
    behaviour: str, undisturbed: Tables, candles: Path, tmp_path: Path
) -> None:
    outcome: Outcome = BAD_DAYS[behaviour]
    async with FakeBotApi(always=outcome) as api:
        traded = await trade(tmp_path, candles, api)
        await api.wait_for_requests(1)
    assert len(undisturbed["trades"]) > 10
    assert state_differences(undisturbed, traded) == []


async def test_what_people_are_told_is_the_same_run(undisturbed: Tables, candles: Path, tmp_path: Path) -> None:
    async with FakeBotApi() as api:
        traded = await trade(tmp_path, candles, api)
        told = [message.text.splitlines()[0] for message in api.received]
    assert state_differences(undisturbed, traded) == []
    assert told[0].startswith("<b>Signal: ")

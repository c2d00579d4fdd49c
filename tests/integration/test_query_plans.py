"""The busiest questions are answered from an index: no plan that the server itself notes reads a whole table."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from shared.broker_memory import MemoryBroker
from shared.db import Database
from shared.models import Candle, OrderStatus
from shared.outbox import OutboxRelay
from shared.testing.servers import ServerMissing, postgres_run

pytestmark = [pytest.mark.integration, pytest.mark.e2e]

SYMBOLS, CANDLES = 10, 3_000
START = datetime(2024, 1, 1, tzinfo=UTC)
NOTED = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_nested_statements": "on",
}
FILL = (
    f"""INSERT INTO candles SELECT 'S' || s || '/USDT', '1m', timestamptz '2024-01-01 00:00+00' + n * interval '1 minute',
    1.25, 2.5, 0.5, 1.75, 10 FROM generate_series(0, {SYMBOLS - 1}) s, generate_series(0, {CANDLES - 1}) n""",
    """INSERT INTO orders (id, symbol, side, type, price, quantity, status, created_at, as_of)
    SELECT 'o' || n, 'S1/USDT', 'BUY', 'MARKET', 1, 1, CASE WHEN n % 500 = 0 THEN 'PENDING' ELSE 'FILLED' END,
    timestamptz '2024-01-01 00:00+00' + n * interval '1 minute', now() FROM generate_series(1, 20000) n""",
    """INSERT INTO outbox (topic, key, payload, created_at, sent_at, acked_at)
    SELECT 'signals', 'k' || n, '', now(), now(), CASE WHEN n % 1000 = 0 THEN NULL ELSE now() END
    FROM generate_series(1, 20000) n""",
    "VACUUM ANALYZE",
)


class Filled(NamedTuple):
    """A database of many rows, and where its server writes each plan."""

    database: Database
    log: Path

    def plans(self) -> str:
        """Return what was planned so far."""
        return self.log.read_text(errors="replace")


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Path]]:
    try:
        with postgres_run(settings=NOTED) as run:
            yield run.url, run.folder / "log"
    except ServerMissing as missing:
        pytest.skip(f"not installed: {missing}")


@pytest.fixture
async def filled(server: tuple[str, Path]) -> AsyncIterator[Filled]:
    url, log = server
    database = Database(url)
    await database.init_tables()
    connection = await asyncpg.connect(url)
    for statement in FILL:
        await connection.execute(statement)
    await connection.close()
    yield Filled(database, log)
    await database.close()


def candle_at(minute: int) -> Candle:
    moment = START + timedelta(minutes=minute)
    return Candle(
        symbol="S3/USDT", timeframe="1m", open_time=moment, open=1.25, high=2.5, low=0.5, close=1.75, volume=10
    )


async def test_no_busy_question_reads_a_whole_table(filled: Filled) -> None:
    database = filled.database
    relay = OutboxRelay(database, MemoryBroker(), topics=["signals"])
    await relay.send_due()  # a first pass after a start sends whatever nobody acknowledged
    before = len(filled.plans())
    streams = [(f"S{number}/USDT", "1m", START + timedelta(minutes=CANDLES - 400)) for number in range(SYMBOLS)]
    assert sum(map(len, (await database.read_candles_of(streams, None, 500)).values())) == SYMBOLS * 399
    assert len(await database.get_candles("S3/USDT", "1m", 300)) == 300
    known = await database.upsert_candles([candle_at(minute) for minute in range(CANDLES - 100, CANDLES + 1)])
    assert (known.inserted, known.revised, known.unchanged) == (1, 0, 100)
    assert len(await database.pending_outbox("signals", 500)) == 20
    async with database.get_session() as session:
        assert await database.ack_outbox(session, "signals", ["k1000", "k2000"]) == 2
    await relay.send_due()
    assert await database.update_order_status("o500", OrderStatus.FILLED)
    plans = filled.plans()[before:]
    assert set(re.findall(r"Index (?:Only )?Scan (?:Backward )?using (\w+)", plans)) >= {"pk_candles", "pk_orders"}
    whole = re.findall(r"Seq Scan on (candles|orders|outbox)\b.*", plans)
    assert whole == [], plans[-6000:]

"""What goes wrong in `benchmarks.market_alarms`: each outage, how it is made and undone, and what it should raise."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import asyncpg
import redis

from benchmarks.market_exchange import LocalExchange
from shared.testing.bot_api import FakeBotApi, hang
from shared.testing.process_runs import ProcessRun
from shared.testing.servers import ServerRun

CONTROL = """
INSERT INTO control (account, state, reason, set_by, seq, set_at)
SELECT account, $1, 'an exercise', 'operator', 1, now() FROM (SELECT 'paper' AS account) AS own
ON CONFLICT (account) DO UPDATE SET state = $1, seq = control.seq + 1
"""
HELD = "LOCK TABLE candles, signals, decisions, orders, strategy_states IN ACCESS EXCLUSIVE MODE"


@dataclass(frozen=True)
class Platform:
    """Everything that an outage can touch."""

    run: ProcessRun
    exchange: LocalExchange
    bus: ServerRun
    api: FakeBotApi
    ports: dict[str, int]

    def start(self, *names: str, **settings: str) -> None:
        """Start services, each on the port that Prometheus asks."""
        for name in names:
            self.run.start(name, health_port=str(self.ports[name]), **settings)

    def restart(self, name: str, **settings: str) -> None:
        """SIGKILL a service and start it again."""
        self.run.kill(name)
        self.start(name, **settings)

    def execute(self, *statements: tuple[str, ...], held_seconds: float = 0.0) -> None:
        """Run statements in one transaction and keep it open for a while."""

        async def work() -> None:
            connection = await asyncpg.connect(self.run.database_url)
            try:
                async with connection.transaction():
                    for statement, *values in statements:
                        await connection.execute(statement, *values)
                    await asyncio.sleep(held_seconds)
            finally:
                await connection.close()

        asyncio.run(work())


@dataclass(frozen=True)
class Outage:
    """One thing that goes wrong for the length of a block, and the alerts that are there to say so."""

    name: str
    cause: Callable[[Platform], AbstractContextManager[None]]
    raises: frozenset[str]
    seconds_max: float = 30.0


@contextmanager
def _people_unreachable(platform: Platform) -> Iterator[None]:
    platform.api.always = hang()
    yield
    platform.api.always = None


@contextmanager
def _stranger_on_the_bus(platform: Platform) -> Iterator[None]:
    with redis.Redis.from_url(platform.bus.url) as client:
        for stream in ("signals", "orders", "watermarks", "candles.BTC_USDT.1m"):
            client.xadd(stream, {"data": b"\xff{not an event"})
    yield


@contextmanager
def _rubbish_candles(platform: Platform) -> Iterator[None]:
    platform.exchange.set_faults([{"kind": "malformed", "form": "negative", "chance": 0.2}])
    yield
    platform.exchange.set_faults([])


@contextmanager
def _exchange_broken(platform: Platform) -> Iterator[None]:
    platform.exchange.set_faults([{"kind": "error", "path": "/api/*"}, {"kind": "drop", "every": 1, "candle": 1}])
    yield
    platform.exchange.set_faults([])


@contextmanager
def _service_away(platform: Platform) -> Iterator[None]:
    platform.run.kill("portfolio-manager")
    yield
    platform.start("portfolio-manager")


@contextmanager
def _restarts(platform: Platform) -> Iterator[None]:
    for _ in range(5):
        platform.restart("portfolio-manager")
        time.sleep(6)
    yield


@contextmanager
def _bus_away(platform: Platform) -> Iterator[None]:
    platform.bus.stop()
    yield
    platform.bus.start()


@contextmanager
def _database_held(platform: Platform) -> Iterator[None]:
    over = threading.Event()

    def hold() -> None:
        while not over.is_set():
            platform.execute((HELD,), held_seconds=4.0)
            over.wait(0.4)

    thread = threading.Thread(target=hold)
    thread.start()
    yield
    over.set()
    thread.join()


@contextmanager
def _executor_away(platform: Platform) -> Iterator[None]:
    platform.run.kill("order-executor")
    yield
    platform.start("order-executor")


@contextmanager
def _reduce_only(platform: Platform) -> Iterator[None]:
    platform.execute((CONTROL, "REDUCE_ONLY"))
    yield
    platform.execute((CONTROL, "ACTIVE"))


@contextmanager
def _ledger_tampered(platform: Platform) -> Iterator[None]:
    platform.execute(("UPDATE accounts SET cash = cash + 1000",))
    platform.restart("portfolio-manager")
    yield
    platform.execute(("UPDATE accounts SET cash = cash - 1000",), (CONTROL, "ACTIVE"))
    platform.restart("portfolio-manager")


@contextmanager
def _nothing(_: Platform) -> Iterator[None]:
    yield


OUTAGES: tuple[Outage, ...] = (
    Outage("the database is held", _database_held, frozenset({"ProcessingSlow", "OrderLatencyHigh"}), 60),
    Outage(
        "the Bot API hangs",
        _people_unreachable,
        frozenset({"NotificationsFailing", "QueueNearlyFull", "QueueDropping"}),
        60,
    ),
    Outage("a stranger writes to the bus", _stranger_on_the_bus, frozenset({"DeadLetters"}), 15),
    Outage("the exchange sends rubbish", _rubbish_candles, frozenset({"CandlesQuarantined"}), 15),
    Outage("a service is killed", _service_away, frozenset({"ServiceDown"}), 15),
    Outage("the executor is away", _executor_away, frozenset({"LagHigh"}), 45),
    Outage("Redis is away", _bus_away, frozenset({"CheckFailing", "ErrorsRising", "OutboxBacklog"}), 60),
    Outage("the exchange is broken", _exchange_broken, frozenset({"BreakerOpen", "DataStale"}), 25),
    Outage("a service restarts again and again", _restarts, frozenset({"RestartLoop"}), 10),
    Outage("only orders that reduce", _reduce_only, frozenset({"TradingReduceOnly", "RefusalsRising"}), 20),
    Outage("the stored cash is changed", _ledger_tampered, frozenset({"LedgerMismatch", "TradingHalted"}), 30),
)

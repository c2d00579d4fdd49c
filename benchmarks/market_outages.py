"""What goes wrong in `benchmarks.market_alarms`: each outage, how it is made and undone, and what it should raise."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass

import asyncpg
import redis

from benchmarks.market_exchange import LocalExchange
from shared.plugins import bundled_strategies_dir
from shared.testing.bot_api import FakeBotApi, hang
from shared.testing.compose_twin import get
from shared.testing.process_runs import PROCESSES, ProcessRun
from shared.testing.servers import ServerRun

CONTROL = """
INSERT INTO control (account, state, reason, set_by, seq, set_at)
SELECT account, $1, 'an exercise', 'operator', 1, now() FROM (SELECT 'paper' AS account) AS own
ON CONFLICT (account) DO UPDATE SET state = $1, seq = control.seq + 1
"""
# What a person does who has looked at a drawdown and goes on: the account's peak is where it stands.
LOSS_ACCEPTED = "UPDATE accounts SET equity_peak = equity, state = 'ACTIVE', state_reason = ''"
READY_SECONDS_MAX = 60.0
TWO_SCRAPES_SECONDS = 2.5
# Parameters by which strategies trade at nearly every candle, at a fee that no account bears for long.
RUNAWAY = {
    "rsi": {"period": 2, "oversold": 49, "overbought": 51},
    "ema_crossover": {"short_period": 2, "long_period": 3},
    "macd": {"fast_period": 2, "slow_period": 3, "signal_period": 2},
    "bollinger": {"period": 3, "num_std": 0.3, "min_bandwidth": 0},
}
LOSING = {
    "fee_taker": "0.006",
    "sizing": "equity_fraction:0.9",
    "risk_max_position_size": "0.3",
    "risk_daily_loss_limit_pct": "16",
    "risk_max_drawdown_pct": "18",
}
STUCK = '''"""A strategy that does not come back: its numbers are worked out where no alarm of the interpreter reaches."""

import numpy as np

from shared.models import Candle, Signal
from shared.strategy import BaseStrategy


class StuckStrategy(BaseStrategy):
    """Convolves far too much."""

    name = "stuck"
    warmup_period = 1

    def reset(self) -> None:
        """Keep nothing."""

    def on_candle(self, candle: Candle) -> Signal | None:
        """Work for many minutes."""
        much = np.ones(400_000)
        np.convolve(much, much)
        return None
'''
TAMPERED = (
    "UPDATE trades SET quantity = quantity * $1::text::numeric WHERE sequence = (SELECT min(sequence) FROM trades)"
)
HELD = "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"


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

    def kill(self, name: str) -> None:
        """SIGKILL a service, if it has not ended by itself."""
        process = self.run.running.pop(name)
        process.kill()
        process.wait()

    def restart(self, name: str, **settings: str) -> None:
        """SIGKILL a service and start it again."""
        self.kill(name)
        self.start(name, **settings)

    def until_well(self) -> bool:
        """Wait until every service is ready, starting again what has ended, as a deployment does; False if too long."""
        for _ in range(int(READY_SECONDS_MAX / 0.5)):
            for name in PROCESSES:
                if self.run.running[name].poll() is not None:
                    self.restart(name)
            if all(self.is_ready(name) for name in PROCESSES):
                return True
            time.sleep(0.5)
        return False

    def is_ready(self, name: str, path: str = "/ready") -> bool:
        """Return whether a service says that it is ready, or whatever else `path` asks."""
        return get(f"http://127.0.0.1:{self.ports[name]}{path}")[0] == 200

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
    platform.restart("order-executor", telegram_topics="signals,orders,refusals,errors,summary")
    yield
    platform.api.always = None
    platform.restart("order-executor")


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
def _exchange_with_holes(platform: Platform) -> Iterator[None]:
    platform.exchange.set_faults([{"kind": "hole", "chance": 0.2}])
    yield
    platform.exchange.set_faults([])


@contextmanager
def _service_away(platform: Platform) -> Iterator[None]:
    platform.kill("portfolio-manager")
    yield
    platform.start("portfolio-manager")


@contextmanager
def _restarts(platform: Platform) -> Iterator[None]:
    for _ in range(5):
        platform.restart("portfolio-manager")
        while not platform.is_ready("portfolio-manager", "/live"):  # which it says before it has its lease
            time.sleep(0.2)
        time.sleep(TWO_SCRAPES_SECONDS)
    yield


@contextmanager
def _strategy_stuck(platform: Platform) -> Iterator[None]:
    folder = platform.run.folder / "strategies"
    shutil.copytree(bundled_strategies_dir(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "stuck_strategy.py").write_text(STUCK)
    platform.restart("strategy-engine", strategies_dir=str(folder))
    yield
    platform.restart("strategy-engine")


@contextmanager
def _strategies_run_away(platform: Platform) -> Iterator[None]:
    """Let them trade at nearly every candle and pay for it; then a person accepts the loss and goes on."""
    wild = {"strategy_params": json.dumps(RUNAWAY), "telegram_enabled": "false"}
    platform.restart("strategy-engine", **wild)
    platform.restart("order-executor", **wild, **LOSING)
    yield
    platform.kill("order-executor")
    platform.restart("strategy-engine")
    platform.execute((LOSS_ACCEPTED,), (CONTROL, "ACTIVE"))
    platform.start("order-executor")


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
            with suppress(asyncpg.DeadlockDetectedError):  # a service was in between; the next one is held
                platform.execute((HELD,), held_seconds=4.0)
            over.wait(0.4)

    thread = threading.Thread(target=hold)
    thread.start()
    yield
    over.set()
    thread.join()


@contextmanager
def _executor_away(platform: Platform) -> Iterator[None]:
    platform.restart("strategy-engine", strategy_params=json.dumps(RUNAWAY))
    platform.kill("order-executor")
    yield
    platform.restart("strategy-engine")
    platform.start("order-executor")


@contextmanager
def _reduce_only(platform: Platform) -> Iterator[None]:
    platform.execute((CONTROL, "REDUCE_ONLY"))
    yield
    platform.execute((CONTROL, "ACTIVE"))


@contextmanager
def _ledger_tampered(platform: Platform) -> Iterator[None]:
    platform.execute((TAMPERED, "2"))
    platform.restart("portfolio-manager")
    yield
    platform.execute((TAMPERED, "0.5"), (CONTROL, "ACTIVE"))
    platform.restart("portfolio-manager")


@contextmanager
def _nothing(_: Platform) -> Iterator[None]:
    yield


# Those that need a market at speed come first; the market has caught up with the clock by the end.
OUTAGES: tuple[Outage, ...] = (
    Outage("the market lies days behind the clock", _nothing, frozenset({"DataStale"}), 30),
    Outage(
        "strategies run away",
        _strategies_run_away,
        frozenset({"DayLossLarge", "DrawdownDeep", "RefusalsRising"}),
        180,
    ),
    Outage("the executor is away", _executor_away, frozenset({"LagHigh", "OutboxBacklog"}), 120),
    Outage("the database is held", _database_held, frozenset({"ProcessingSlow", "OrderLatencyHigh"}), 100),
    Outage(
        "the Bot API hangs",
        _people_unreachable,
        frozenset({"NotificationsFailing", "QueueNearlyFull", "QueueDropping"}),
        60,
    ),
    Outage("only orders that reduce", _reduce_only, frozenset({"TradingReduceOnly"}), 30),
    Outage("the exchange has holes", _exchange_with_holes, frozenset({"GapsFound"}), 30),
    Outage("the exchange sends rubbish", _rubbish_candles, frozenset({"CandlesQuarantined"}), 20),
    Outage("a stranger writes to the bus", _stranger_on_the_bus, frozenset({"DeadLetters"}), 20),
    Outage("a service is killed", _service_away, frozenset({"ServiceDown"}), 20),
    Outage("a stored fill is changed", _ledger_tampered, frozenset({"LedgerMismatch", "TradingHalted"}), 40),
    Outage("the exchange is broken", _exchange_broken, frozenset({"BreakerOpen"}), 30),
    Outage("Redis is away", _bus_away, frozenset({"CheckFailing", "ErrorsRising"}), 60),
    Outage("a service restarts again and again", _restarts, frozenset({"RestartLoop"}), 15),
    Outage("a strategy does not come back", _strategy_stuck, frozenset({"ServiceStopped"}), 90),
)

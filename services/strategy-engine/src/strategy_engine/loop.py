"""The durable loop: candles from the database, signals, cursors and states into it in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any

from structlog.stdlib import BoundLogger

from shared.broker import Broker
from shared.candle_reader import CandleReader, last_open_times
from shared.clock import Clock
from shared.db import Conflict, Database
from shared.door_bell import DoorBell
from shared.events import SIGNAL_STREAM, candle_stream
from shared.journal import note_candles, note_signals
from shared.live_history import LIVE_FROM_CURSOR
from shared.metrics import ServiceMetrics
from shared.models import Candle, InstanceKey, Signal
from shared.sa_models import SignalRow, StrategyStateRow
from shared.strategy import CompiledStrategy
from strategy_engine.checkpoints import checkpoint_rows, restore_runners
from strategy_engine.config import StrategyConfig
from strategy_engine.engine import StrategyEngine, signal_event
from strategy_engine.horizon import WaitingRoom
from strategy_engine.live_gate import LiveGate

GROUP = "strategy-engine"


class EngineLoop:
    """Runs a `StrategyEngine` over stored candles; the bus only rings the bell."""

    def __init__(
        self,
        engine: StrategyEngine,
        database: Database,
        broker: Broker,
        config: StrategyConfig,
        *,
        clock: Clock,
        log: BoundLogger,
        metrics: ServiceMetrics,
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._database = database
        self._config = config
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._on_commit = on_commit
        rows_max = min(config.batch_rows_max, config.checkpoint_candles_max)
        self._reader = CandleReader(database, "engine", config.streams, rows_max)
        self._bell = DoorBell(
            broker,
            database,
            GROUP,
            [candle_stream(symbol, timeframe) for symbol, timeframe in config.streams],
            clock=clock,
            log=log,
            metrics=metrics,
            dead_letters_max=config.dead_letters_max,
        )
        self._is_loaded = False
        self._gate = None if config.is_deterministic else LiveGate(engine.runners)
        self._waiting = WaitingRoom(config.streams, config.wait_seconds)
        self._faults_told: set[str] = set()
        self._noticed: set[InstanceKey] = set()
        self._noticed_on: date | None = None
        self._silences: dict[InstanceKey, str] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Handle close times until `stop`; a database or bus that is away is waited for."""
        await self._bell.follow(self.step, stop)

    async def prepare(self) -> None:
        """Load compiled steps (seconds, the first time) off the loop, so that no candle waits for them."""
        compiled = [runner.strategy for runner in self._engine.runners if isinstance(runner.strategy, CompiledStrategy)]
        await asyncio.to_thread(lambda: [strategy.prepare() for strategy in compiled])

    async def load(self) -> None:
        """Bring every instance to where the last run committed."""
        await self._reader.load()
        for note in await restore_runners(self._database, self._engine.runners, self._reader):
            self._log.info("engine.rebuilt", detail=note)
        if self._gate is not None:
            firsts = await self._database.read_candles_of([(*each, None) for each in self._gate.streams], None, 1)
            self._gate.asks_about(candle for found in firsts.values() for candle in found)
        self._is_loaded = True

    def notices(self) -> list[str]:
        """Return what a person should know of the instances as they run: faults first, then their own words."""
        runners = sorted(self._engine.runners, key=lambda runner: not runner.fault)
        silences = [f"{key}: {text}" for key, text in self._silences.items()]
        return silences + [f"{runner.key}: {text}" for runner in runners for text in runner.notices()]

    def check(self) -> tuple[bool, str]:
        """Return whether the loop is well, and how far it has come."""
        return self._bell.check(self._reader.watermark)

    def check_turning(self) -> tuple[bool, str]:
        """Return False when the loop stands still and only a restart helps."""
        return self._bell.check_turning()

    async def step(self) -> bool:
        """Handle what is complete now, in one transaction; return whether there was anything."""
        if not self._is_loaded:
            await self.load()
        candles, watermark = await self._next_candles()
        before = self._reader.watermark
        if watermark is None or (not candles and before is not None and watermark <= before):
            return False
        try:
            with self._metrics.processing():
                signals = self._engine.handle(candles)
                if self._gate is not None:
                    signals = self._gate.speaking(signals)
                await self._commit(candles, signals, watermark)
        except BaseException:
            self._is_loaded = False  # the strategies ran ahead of what is stored
            raise
        if signals:
            self._on_commit()
        await self._bell.announce(watermark)
        self._report(candles, signals)
        self._tell_silences(watermark)
        self._tell_notices(watermark.date())
        return True

    async def _next_candles(self) -> tuple[list[Candle], datetime | None]:
        until: datetime | None = None
        async with self._database.look() as session:
            if self._config.is_deterministic:
                until = await self._database.read_moment("collector/watermark", session)
                before = self._reader.watermark
                if until is None or (before is not None and until <= before):
                    return [], before
            candles, horizon = await self._reader.page(session, until)
            # after the page: candles that were stored before the history's end was on record belong to it
            asked = self._gate.asks_about(candles) if self._gate is not None else []
            if self._gate is not None and asked:
                self._gate.take_cursors(asked, await self._database.read_cursors(f"{LIVE_FROM_CURSOR}/", session))
        if not self._config.is_deterministic:
            return self._live(candles)
        if until is not None and horizon is not None:
            self._metrics.lag("candles", (until - horizon).total_seconds())
        return candles, horizon

    def _live(self, candles: list[Candle]) -> tuple[list[Candle], datetime | None]:
        """Return what may be handled: late candles at once, newer ones when every stream is there or was waited for."""
        before = self._reader.watermark
        late = [candle for candle in candles if before is not None and candle.close_time <= before]
        fresh = candles[len(late) :]
        until = self._waiting.complete_until(fresh, self._clock.monotonic())
        if until is None:
            return late, before
        self._waiting.handled(until)
        return late + [candle for candle in fresh if candle.close_time <= until], until

    async def _commit(self, candles: Sequence[Candle], signals: Sequence[Signal], watermark: datetime) -> None:
        database = self._database
        states = checkpoint_rows(self._engine.runners, last_open_times(candles))
        async with database.batch() as session:
            if signals:
                rows = [_signal_row(signal) for signal in signals]
                await database.write_rows(session, SignalRow, rows, conflict=Conflict.IGNORED)
                await database.append_outbox(session, [_outbox_row(signal) for signal in signals])
            if states:
                await database.write_rows(session, StrategyStateRow, states, conflict=Conflict.UPDATES)
            await database.write_cursors(session, self._reader.cursors(candles, watermark))
        self._reader.advance(candles, watermark)

    def _report(self, candles: Sequence[Candle], signals: Sequence[Signal]) -> None:
        self._metrics.event("candle", len(candles))
        note_candles(self._log, "candle.handled", candles)
        note_signals(self._log, signals)
        for signal in signals:
            self._metrics.signal(signal.strategy, signal.side)
        for runner in self._engine.runners:
            if runner.fault and str(runner.key) not in self._faults_told:
                self._faults_told.add(str(runner.key))
                self._metrics.error("StrategyFault")
                self._log.error("strategy.isolated", instance=str(runner.key), detail=runner.fault)

    def _tell_silences(self, watermark: datetime) -> None:
        """Say which instances of a live feed may not speak yet, and when each may, once."""
        silences = self._gate.silences(watermark) if self._gate is not None else {}
        for key in silences.keys() - self._silences.keys():
            self._log.info("strategy.silent", instance=str(key), detail=silences[key])
        for key in self._silences.keys() - silences.keys():
            self._log.info("strategy.speaks", instance=str(key))
        self._silences = silences

    def _tell_notices(self, day: date) -> None:
        """Say what a person should know of an instance, once; looked for on every new day of the market."""
        if day == self._noticed_on:
            return
        self._noticed_on = day
        for runner in self._engine.runners:
            if runner.fault or runner.key in self._noticed:
                continue
            for text in runner.notices():
                self._noticed.add(runner.key)
                self._log.warning("strategy.notice", instance=str(runner.key), detail=text)


def _signal_row(signal: Signal) -> dict[str, Any]:
    return {name: getattr(signal, name) for name in signal.__struct_fields__}


def _outbox_row(signal: Signal) -> dict[str, Any]:
    payload = signal_event(signal).encode().decode()
    return {"topic": SIGNAL_STREAM, "key": signal.id, "payload": payload, "as_of": signal.created_at}

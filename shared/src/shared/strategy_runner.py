"""One strategy instance as every engine runs it: warm-up gate, count of candles, faults kept to itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from shared.models import Candle, InstanceKey, OrderSide, Signal
from shared.strategy import BaseStrategy, CompiledStrategy, stamp_signal
from shared.watchdog import DeadlineExceeded, deadline

CALL_SECONDS_MAX = 2.0


@dataclass(frozen=True, slots=True)
class InstanceStamp:
    """What every signal of an instance carries beside the strategy's own words; `age_max` sets its expiry."""

    age_max: timedelta
    mode: str = "paper"
    config_hash: str = ""
    code_hash: str = ""


class StrategyRunner:
    """Feeds candles to one strategy; after a fault the instance is silent until the next start."""

    def __init__(
        self,
        key: InstanceKey,
        strategy: BaseStrategy,
        stamp: InstanceStamp,
        *,
        call_seconds_max: float = CALL_SECONDS_MAX,
    ) -> None:
        self.key = key
        self.strategy = strategy
        self.stamp = stamp
        self.candles_seen = 0
        self.fault = ""
        self._call_seconds_max = call_seconds_max
        self._is_compiled = isinstance(strategy, CompiledStrategy)
        self._warmup = strategy.warmup_period

    def feed(self, candle: Candle) -> Signal | None:
        """Return the instance's signal at this candle; None also before its warm-up is over."""
        if self.fault:
            return None
        try:
            signal = self._ask(candle)
        except (Exception, DeadlineExceeded) as error:  # noqa: BLE001 - one strategy's call must not stop the others
            self.fault = f"{type(error).__name__}: {error} (candle of {candle.open_time:%Y-%m-%d %H:%M} UTC)"
            return None
        self.candles_seen += 1
        if signal is None or self.candles_seen < self._warmup:
            return None
        stamp = self.stamp
        return stamp_signal(
            signal,
            candle,
            strategy=self.key.strategy,
            expires_at=candle.close_time + stamp.age_max,
            mode=stamp.mode,
            config_hash=stamp.config_hash,
            code_hash=stamp.code_hash,
        )

    def rebuild(self, candles: Iterable[Candle]) -> None:
        """Feed candles of the past without speaking."""
        for candle in candles:
            self.feed(candle)

    def snapshot(self) -> bytes | None:
        """Return the strategy's flat state; None means that a restart feeds stored candles again."""
        return None if self.fault else self.strategy.snapshot()

    def restore(self, state: bytes, candles_seen: int) -> bool:
        """Take up a stored state; False when it does not fit the code and parameters of today."""
        if not self.strategy.restore(state):
            return False
        self.candles_seen = candles_seen
        return True

    def _ask(self, candle: Candle) -> Signal | None:
        if self._is_compiled:
            return self.strategy.on_candle(candle)
        with deadline(self._call_seconds_max):
            signal = self.strategy.on_candle(candle)
        return None if signal is None else self._checked(signal, candle)

    def _checked(self, signal: Signal, candle: Candle) -> Signal:
        if not isinstance(signal, Signal):
            raise TypeError(f"on_candle must return a Signal or None, was {type(signal).__name__}")
        if signal.symbol != candle.symbol:
            raise ValueError(f"a signal for {signal.symbol} at a candle of {candle.symbol}")
        if OrderSide(signal.side) is not signal.side:
            raise ValueError(f"a side is BUY or SELL, was {signal.side!r}")
        for name, value in (("price", signal.price), ("quantity", signal.quantity)):
            if not value.is_finite() or value <= 0:
                raise ValueError(f"a signal's {name} must be above 0, was {value}")
        return signal

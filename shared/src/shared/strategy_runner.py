"""One strategy instance as every engine runs it: warm-up gate, count of candles, faults kept to itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from operator import length_hint

from msgspec.structs import replace

from shared.domain.rounding import ZERO, money
from shared.models import Candle, InstanceKey, OrderSide, Signal
from shared.strategy import BaseStrategy, CompiledStrategy, ids_left_out, signal_id
from shared.watchdog import CallGuard

CALL_SECONDS_MAX = 2.0
REASON_LENGTH_MAX = 500
AMOUNT_MAX = Decimal(10) ** 18


@dataclass(frozen=True, slots=True)
class InstanceStamp:
    """What every signal of an instance carries beside the strategy's own words; `age_max` sets its expiry.

    `make_id` turns the facts of a signal into its id.
    """

    age_max: timedelta
    mode: str = "paper"
    config_hash: str = ""
    code_hash: str = ""
    make_id: Callable[[str, str, str, datetime], str] = signal_id


class StrategyRunner:
    """Feeds candles to one strategy; after a fault the instance is silent until the next start."""

    def __init__(
        self,
        key: InstanceKey,
        strategy: BaseStrategy,
        stamp: InstanceStamp,
        *,
        guard: CallGuard | None = None,
    ) -> None:
        self.key = key
        self.strategy = strategy
        self.stamp = stamp
        self.candles_seen = 0
        self.fault = ""
        self._guard = guard or CallGuard(CALL_SECONDS_MAX)
        self._is_compiled = isinstance(strategy, CompiledStrategy)
        self._warmup = 0
        self._known_quantity = ZERO
        self._guarded(self._read_warmup, None)

    def feed(self, candle: Candle) -> Signal | None:
        """Return the instance's signal at this candle; None also before its warm-up is over."""
        if self.fault:
            return None
        try:
            signal = self._ask(candle)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - also SystemExit and the deadline: the others must go on
            self._put_aside(error, _when(candle))
            return None
        self.candles_seen += 1
        if signal is None or self.candles_seen < self._warmup:
            return None
        return self._stamped(signal, candle)

    def feed_many(self, candles: Sequence[Candle]) -> list[tuple[int, Signal]]:
        """Return (place, signal) wherever the instance speaks, as `feed` would one by one, at a fraction of its time."""
        if self.fault or self._is_compiled or not self._guard.is_ticking:
            return [
                (place, signal) for place, candle in enumerate(candles) if (signal := self.feed(candle)) is not None
            ]
        found, before, left = list[tuple[int, Signal]](), self.candles_seen, iter(list(candles))
        try:
            with self._guard.watching(left), ids_left_out(self.strategy):
                self._ask_many(left, len(candles), found)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - as in `feed`
            place = len(candles) - length_hint(left) - 1
            self.candles_seen = before + place
            self._put_aside(error, _when(candles[place]))
            return found
        self.candles_seen = before + len(candles)
        return found

    def _ask_many(self, left: Iterator[Candle], count: int, found: list[tuple[int, Signal]]) -> None:
        """Go through the `count` candles of `left`, an iterator over a list, noting what is said and where."""
        on_candle, silent = self.strategy.on_candle, self._warmup - 1 - self.candles_seen
        for candle in left:
            if not (
                candle.open.is_finite()
                and candle.high.is_finite()
                and candle.low.is_finite()
                and candle.close.is_finite()
                and candle.volume.is_finite()
            ):
                continue
            signal = on_candle(candle)
            if signal is not None:
                signal = self._checked(signal, candle)
                place = count - length_hint(left) - 1
                if place >= silent:
                    found.append((place, self._stamped(signal, candle)))

    def rebuild(self, candles: Iterable[Candle]) -> None:
        """Feed candles of the past without speaking."""
        for candle in candles:
            self.feed(candle)

    def reset(self) -> None:
        """Forget every candle; a fault stays."""
        self.candles_seen = 0
        self._guarded(self.strategy.reset, None)

    def snapshot(self) -> bytes | None:
        """Return the strategy's flat state; None means that a restart feeds stored candles again."""
        return None if self.fault else self._guarded(self.strategy.snapshot, None)

    def restore(self, state: bytes, candles_seen: int) -> bool:
        """Take up a stored state; False when it does not fit the code and parameters of today."""
        if not self._guarded(lambda: self.strategy.restore(state), False):
            return False
        self.candles_seen = candles_seen
        return True

    def notices(self) -> list[str]:
        """Return the fault, or what the strategy has to say about itself."""
        words: list[str] = [] if self.fault else self._guarded(self.strategy.notices, [])
        return [f"put aside, {self.fault}"] if self.fault else words

    def _guarded[T](self, call: Callable[[], T], otherwise: T) -> T:
        """Return what foreign code answers; whatever it throws ends this instance and nothing else."""
        try:
            return call()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - as in `feed`
            self._put_aside(error)
            return otherwise

    def _put_aside(self, error: BaseException, where: str = "") -> None:
        self.fault = _storable(f"{type(error).__name__}: {error}") + where

    def _read_warmup(self) -> None:
        warmup = self.strategy.warmup_period
        if not isinstance(warmup, int):
            raise TypeError(f"warmup_period must be a whole number, was {warmup!r}")
        self._warmup = warmup

    def _ask(self, candle: Candle) -> Signal | None:
        if self._is_compiled:
            return self.strategy.on_candle(candle)  # its step leaves out what is not finite by itself
        if not is_finite(candle):
            return None
        signal = self._guard.call(self.strategy.on_candle, candle)
        return None if signal is None else self._checked(signal, candle)

    def _stamped(self, signal: Signal, candle: Candle) -> Signal:
        stamp, close_time = self.stamp, candle.close_time
        return replace(
            signal,
            id=stamp.make_id(self.key.strategy, candle.symbol, candle.timeframe, candle.open_time),
            strategy=self.key.strategy,
            symbol=candle.symbol,
            timeframe=candle.timeframe,
            candle_open_time=candle.open_time,
            created_at=close_time,
            expires_at=close_time + stamp.age_max,
            mode=stamp.mode,
            config_hash=stamp.config_hash,
            code_hash=stamp.code_hash,
        )

    def _checked(self, signal: Signal, candle: Candle) -> Signal:
        if not isinstance(signal, Signal):
            raise TypeError(f"on_candle must return a Signal or None, was {type(signal).__name__}")
        if signal.symbol != candle.symbol:
            raise ValueError(f"a signal for {signal.symbol} at a candle of {candle.symbol}")
        price, quantity, side = _amount("price", signal.price), signal.quantity, signal.side
        if quantity is not self._known_quantity:  # a strategy mostly asks for the very same one
            quantity = self._known_quantity = _amount("quantity", quantity)
        if type(side) is not OrderSide:
            side = OrderSide(side)
        reason = _storable(signal.reason)
        if side is signal.side and reason == signal.reason and price is signal.price and quantity is signal.quantity:
            return signal
        return replace(signal, side=side, reason=reason, price=price, quantity=quantity)


def is_finite(candle: Candle) -> bool:
    """Return whether every number of a candle is one; a strategy is never shown another."""
    return (
        candle.open.is_finite()
        and candle.high.is_finite()
        and candle.low.is_finite()
        and candle.close.is_finite()
        and candle.volume.is_finite()
    )


def _when(candle: Candle) -> str:
    return f" (candle of {candle.open_time:%Y-%m-%d %H:%M} UTC)"


def _amount(name: str, value: Decimal) -> Decimal:
    """Return an amount that can be stored: above 0, not absurd, at most 18 decimals."""
    if not (value.is_finite() and ZERO < value < AMOUNT_MAX):
        raise ValueError(f"a signal's {name} must be above 0 and below {AMOUNT_MAX:g}, was {value}")
    rounded = money(value)
    return value if rounded == value else rounded


def _storable(text: object) -> str:
    """Return text that both databases take: no NUL, no lone surrogate, bounded."""
    if type(text) is str and text.isascii() and len(text) <= REASON_LENGTH_MAX and "\x00" not in text:
        return text
    return str(text).replace("\x00", "").encode("utf-8", "replace").decode()[:REASON_LENGTH_MAX]

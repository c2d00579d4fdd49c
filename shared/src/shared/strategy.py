"""What a strategy is: the contract between a plug-in and every engine that runs it.

A plain plug-in subclasses `BaseStrategy` and writes `warmup_period` and `on_candle` (and `reset`, if it keeps state).
A compiled one subclasses `CompiledStrategy`: typed parameters, a flat state record, and one `step` that the live
engine, the backtester and the sweep all run as the same machine code.
"""

from __future__ import annotations

import hashlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import IntEnum
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from shared.clock import derived_id
from shared.errors import PluginError
from shared.models import TIMEFRAME_DELTA, Candle, OrderSide, Signal, from_milliseconds, to_milliseconds
from shared.step_compiler import load_step, prepare, seldom, step_source
from shared.step_record import Ring, step_record
from shared.strategy_params import StrategyParams, params_numbers, validate_params

__all__ = [
    "BUY",
    "HOLD",
    "ROUND_TRIP_COST",
    "SELL",
    "Action",
    "BaseStrategy",
    "CompiledStrategy",
    "History",
    "PluginError",
    "Ring",
    "StrategyParams",
    "candles_to_forget",
    "ids_left_out",
    "seldom",
    "signal_id",
    "stamp_signal",
]

SNAPSHOT_VERSION = b"STEP1"
FORGET_LN = 20.73  # -ln(1e-9): the past then weighs less than a billionth
ROUND_TRIP_COST = Decimal("0.0024")  # two taker fees of 0.1 % and two slippages of 2 bps


class Action(IntEnum):
    """What a step answers."""

    HOLD = 0
    BUY = 1
    SELL = 2


HOLD, BUY, SELL = 0, 1, 2  # the same as plain numbers, for steps


@dataclass(frozen=True, slots=True)
class History:
    """What an instance must be fed before it may speak live: at least `candles`, and all from `since` on."""

    candles: int = 0
    since: datetime | None = None
    note: str = ""

    def start(self, now: datetime, timeframe: str) -> datetime:
        """Return the open time of the first candle to feed, counting back from the candle in progress at `now`."""
        width = TIMEFRAME_DELTA[timeframe]
        milliseconds = int(width / timedelta(milliseconds=1))
        current = from_milliseconds(to_milliseconds(now) // milliseconds * milliseconds)
        start = current - self.candles * width
        return start if self.since is None else min(start, self.since)


def candles_to_forget(decay: float) -> int:
    """Return how many candles a memory that keeps `decay` of itself each candle takes to fall below 1e-9.

    Parameters
    ----------
    decay : float
        Share kept a candle, in [0, 1): 1 - 2/(n+1) for an EMA of n, 1 - 1/n for Wilder's average.

    Returns
    -------
    int
        ceil(20.73 / -ln(decay)); 0 for a decay of 0.

    Example: an EMA of 21 -> 218.
    """
    return 0 if decay <= 0 else math.ceil(FORGET_LN / -math.log(decay))


def signal_id(strategy: str, symbol: str, timeframe: str, open_time: datetime, leg: int = 0) -> str:
    """Return the id of a strategy's signal on one candle: a repeated candle gives the same one."""
    return derived_id("signal", strategy, symbol, timeframe, to_milliseconds(open_time), leg)


def stamp_signal(
    signal: Signal, candle: Candle, make_id: Callable[[str, str, str, datetime], str] = signal_id, **fields: Any
) -> Signal:
    """Return `signal` with the id, times and names that follow from its candle, and the engine's own `fields`."""
    strategy = fields.setdefault("strategy", signal.strategy)
    return replace(
        signal,
        id=make_id(strategy, candle.symbol, candle.timeframe, candle.open_time),
        symbol=candle.symbol,
        timeframe=candle.timeframe,
        candle_open_time=candle.open_time,
        created_at=candle.close_time,
        **fields,
    )


@contextmanager
def ids_left_out(strategy: object) -> Iterator[None]:
    """Let a strategy's signals be without ids of their own, for a runner that gives every signal its id anyhow."""
    if not isinstance(strategy, BaseStrategy):
        yield
        return
    object.__setattr__(strategy, "_make_id", _no_id)  # whatever a plug-in thinks of being written to
    try:
        yield
    finally:
        object.__delattr__(strategy, "_make_id")


def _no_id(*_facts: object) -> str:
    return ""


class BaseStrategy(ABC):
    """One strategy instance: closed candles in, signals out, no clock, no input or output of its own.

    Nothing is gated by `warmup_period` here: the engines drop signals of candles 1 to warmup_period - 1.
    """

    Params: ClassVar[type[StrategyParams]] = StrategyParams
    name: str = ""
    params: StrategyParams = StrategyParams()
    given_params: Mapping[str, Any] = MappingProxyType({})
    symbol_params: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    _make_id: Callable[[str, str, str, datetime], str] = staticmethod(signal_id)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.name:
            words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
            cls.name = words.removesuffix("_strategy")

    def __init__(self, params: Mapping[str, Any] | StrategyParams | None = None, **overrides: Any) -> None:
        given = params.model_dump() if isinstance(params, StrategyParams) else dict(params or {})
        self.configure({**given, **overrides})

    @property
    @abstractmethod
    def warmup_period(self) -> int:
        """Return the number of the first candle whose signal counts."""

    @abstractmethod
    def on_candle(self, candle: Candle) -> Signal | None:
        """Return a signal for a candle that has just closed, or None."""

    def configure(self, params: Mapping[str, Any] | StrategyParams | None) -> None:
        """Validate `params` over the defaults and reset; a mistake raises PluginError and changes nothing."""
        self.params = validate_params(self.Params, params, self.name)
        self.reset()

    def for_symbol(self, symbol: str) -> Self:
        """Return a fresh instance for `symbol`: the same parameters, or those configured for that symbol."""
        fresh = type(self)()
        given = self.symbol_params.get(symbol) or self.given_params or self.params.model_dump()
        fresh.configure(dict(given))
        fresh.given_params, fresh.symbol_params = given, self.symbol_params
        return fresh

    def reset(self) -> None:  # noqa: B027 - a plug-in without state has nothing to forget
        """Forget every candle."""

    def history(self, now: datetime) -> History:  # noqa: ARG002 - anchored strategies look at it
        """Return what must be fed before the instance may speak live."""
        return History(candles=self.warmup_period)

    @property
    def max_entries_default(self) -> int:
        """Return how many open entries the strategy works with when nothing else is configured."""
        return 1

    @property
    def stop_reference(self) -> Decimal | None:
        """Return the price a stop-loss is counted from; None means the position's average entry."""
        return None

    @property
    def candle_count(self) -> int | None:
        """Return how many candles the state holds, or None where the strategy does not count them."""
        return None

    def check_start(self, timeframe: str, round_trip_cost: Decimal | float = ROUND_TRIP_COST) -> list[str]:  # noqa: ARG002
        """Return warnings about running on `timeframe` at these costs; raise PluginError where it cannot work."""
        return []

    def notices(self) -> list[str]:
        """Return what a person should know about the instance as it runs: a filter that mutes, a range never met."""
        return []

    def snapshot(self) -> bytes | None:
        """Return the state as bytes, or None: then a restart feeds stored candles again."""
        return None

    def restore(self, blob: bytes) -> bool:  # noqa: ARG002
        """Take up a snapshot; False when it is not this strategy's with these parameters and this code."""
        return False

    def signal(self, candle: Candle, side: OrderSide, reason: str) -> Signal:
        """Return the signal of this candle: its close as price, its close time as creation time, a derived id."""
        return Signal(
            id=self._make_id(self.name, candle.symbol, candle.timeframe, candle.open_time),
            strategy=self.name,
            symbol=candle.symbol,
            side=side,
            price=candle.close,
            quantity=self.params.quantity,
            reason=reason,
            created_at=candle.close_time,
            timeframe=candle.timeframe,
            candle_open_time=candle.open_time,
        )

    def buy(self, candle: Candle, reason: str) -> Signal:
        """Return a BUY at this candle's close."""
        return self.signal(candle, OrderSide.BUY, reason)

    def sell(self, candle: Candle, reason: str) -> Signal:
        """Return a SELL at this candle's close."""
        return self.signal(candle, OrderSide.SELL, reason)


class CompiledStrategy(BaseStrategy):
    """A strategy written once as `step(state, params, open_time, open, high, low, close, volume) -> action`.

    A subclass gives `Params`, `state_fields`, `describe` and `step`, a plain function of numbers that numba can
    compile. `open_time` is int64 milliseconds since 1970 UTC; `state.candle_count` counts this candle already.
    """

    step: ClassVar[Callable[..., int]]

    @abstractmethod
    def state_fields(self) -> Mapping[str, int | float | Ring]:
        """Return the state's fields with their first values: an int, a float or a Ring."""

    @abstractmethod
    def describe(self, state: Any, side: OrderSide) -> str:
        """Return the reason of a signal from the numbers in the state."""

    def derived_params(self) -> Mapping[str, int | float]:
        """Return numbers worked out once from the parameters, which the step reads beside them."""
        return {}

    def configure(self, params: Mapping[str, Any] | StrategyParams | None) -> None:
        """Validate `params` over the defaults, lay out the records and reset."""
        before = self.params
        self.params = validate_params(self.Params, params, self.name)
        try:
            values = {"spare": 0, **params_numbers(self.params), **self.derived_params()}  # a record is never empty
            first, numbers = step_record({"candle_count": 0, **self.state_fields()}), step_record(values)
        except (ValueError, MemoryError, OverflowError) as error:
            self.params = before
            raise PluginError(f"{self.name}: these parameters need more memory than there is; lower them") from error
        self._first, self._values = first, numbers
        self._advance: Callable[..., int] | None = None
        self._fingerprint: bytes | None = None
        self.reset()

    def reset(self) -> None:
        """Forget every candle."""
        self._states = self._first.copy()

    def prepare(self) -> Callable[..., int]:
        """Make or load the machine code now, which else the first candle waits for; no candle is counted."""
        advance: Callable[..., int] = load_step(type(self).step).advance_at
        states, values = self.records
        prepare(advance, states, 0, values, 0, math.nan, math.nan, math.nan, math.nan, math.nan)  # counts nothing
        self._advance = advance
        return advance

    def on_candle(self, candle: Candle) -> Signal | None:
        """Return a signal for a candle that has just closed, or None."""
        advance = self._advance
        if advance is None:
            advance = self.prepare()
        try:
            numbers = (*map(float, (candle.open, candle.high, candle.low, candle.close, candle.volume)),)
        except ValueError:  # a signalling NaN has no float at all
            return None
        action = advance(self._states, 0, self._values, to_milliseconds(candle.open_time), *numbers)
        if action == HOLD:
            return None
        if action not in (BUY, SELL):
            raise ValueError(f"a step answers HOLD (0), BUY (1) or SELL (2), was {action}")
        side = OrderSide.BUY if action == BUY else OrderSide.SELL
        return self.signal(candle, side, self.describe(self._states[0], side))

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy takes: all but the machine code, which it finds again."""
        return {**self.__dict__, "_advance": None}

    @property
    def candle_count(self) -> int:
        """Return how many candles the state holds."""
        return int(self._states[0]["candle_count"])

    @property
    def records(self) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """Return fresh one-element arrays (state at its first values, parameters) for loops over many candles."""
        return self._first.copy(), self._values.copy()

    @property
    def state(self) -> np.void:
        """Return a copy of the state record."""
        record: np.void = self._states[0].copy()
        return record

    def _head(self) -> bytes:
        if self._fingerprint is None:
            layout = f"{self._first.dtype.descr}{step_source(type(self).step)}".encode()
            self._fingerprint = SNAPSHOT_VERSION + hashlib.sha256(layout + self._values.tobytes()).digest()[:16]
        return self._fingerprint

    def snapshot(self) -> bytes:
        """Return version, fingerprint of code and parameters, and the flat state: a restart resumes bit for bit."""
        return self._head() + self._states.tobytes()

    def restore(self, blob: bytes) -> bool:
        """Take up a snapshot; False, and nothing changed, when it is of other code, parameters or length."""
        head = self._head()
        if not blob.startswith(head) or len(blob) != len(head) + self._states.nbytes:
            return False
        self._states = np.frombuffer(blob[len(head) :], dtype=self._states.dtype).copy()
        return True

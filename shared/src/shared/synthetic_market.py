"""The simulated market of one symbol: pure functions of (seed, symbol, day)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate
from math import exp, floor, log10, sqrt
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from shared.candle_columns import CandleColumns
from shared.models import TIMEFRAME_SECONDS

DAY_MS = 86_400_000
_MINUTES = 1440
_USUAL_PRICES: Mapping[str, float] = MappingProxyType(
    {
        "BTC": 65_000.0,
        "ETH": 3_200.0,
        "BNB": 600.0,
        "SOL": 150.0,
        "LTC": 80.0,
        "XRP": 0.55,
        "ADA": 0.45,
        "DOGE": 0.12,
        "TRX": 0.12,
        "USD": 1.0,
        "USDT": 1.0,
        "USDC": 1.0,
        "FDUSD": 1.0,
        "EUR": 1.08,
    }
)
_MINUTE_MOVE = 0.0008  # usual standard deviation of a minute's log return
_DAY_MOVE = 0.014  # of the day-to-day anchor's innovation
_DAY_MEMORY = 0.8  # how much of the distance from the level one day leaves
_DAY_MEMORY_DAYS = 40  # 0.8^40 is 1e-4: older days no longer count
_CALM_MEMORY_MINUTES = 144.0  # how long a calm or a storm lasts
_CALM_SPREAD = 0.45  # standard deviation of log volatility within a day
_CALM_WARMUP = 720
_TAIL_FREEDOM = 5.0  # Student's t: moves beyond three deviations happen
_MOVE_DEVIATIONS_MAX = 6.0
_GAP_CHANCE_A_DAY = 0.35
_GAP_MINUTES_MAX = 8
_NOTIONAL_A_MINUTE = 1_500_000.0
_CHUNK_DAYS = 64

type FloatArray = npt.NDArray[np.float64]


def usual_price(symbol: str) -> float:
    """Return the level a symbol's price stays around, in quote per base.

    Known assets have a familiar one; others one between 0.1 and 300 that their name decides.
    Example: BTC/USDT -> 65000.
    """
    base, _, quote = symbol.partition("/")
    return _asset_price(base) / (_asset_price(quote) if quote in _USUAL_PRICES else 1.0)


def _asset_price(asset: str) -> float:
    known = _USUAL_PRICES.get(asset)
    if known is not None:
        return known
    fraction = int.from_bytes(hashlib.sha256(asset.encode()).digest()[:4]) / 2**32
    return float(f"{10 ** (-1 + 3.5 * fraction):.3g}")


def _generator(seed: int, symbol: str, purpose: str, number: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}|{symbol}|{purpose}|{number}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16])))


class SyntheticMarket:
    """One symbol's minutes, a day at a time, in any order.

    The log price runs from one midnight's anchor to the next along a bridge. Anchors wander and are drawn back to
    the level (standard deviation about 2.3 %), so the price stays around it for ever. Volatility is a slow
    log-normal process, so calm and storm cluster; volume grows with it; about one day in three lacks some minutes.
    """

    def __init__(self, symbol: str, seed: int) -> None:
        self._symbol = symbol
        self._seed = seed
        self.level = usual_price(symbol)
        magnitude = floor(log10(self.level))
        self.price_decimals = min(max(4 - magnitude, 2), 12)
        self.volume_decimals = min(max(magnitude + 1, 0), 8)
        self._day_normals = lru_cache(maxsize=4)(self._make_day_normals)
        self._minutes = lru_cache(maxsize=2)(self._make_minutes)

    def minutes(self, day: int) -> CandleColumns:
        """Return the minutes of day number `day` since 1970, those of a gap left out."""
        return self._minutes(day)

    def _make_day_normals(self, chunk: int) -> FloatArray:
        return _generator(self._seed, self._symbol, "days", chunk).standard_normal(_CHUNK_DAYS)

    def _day_shock(self, day: int) -> float:
        chunk, place = divmod(day, _CHUNK_DAYS)
        return float(self._day_normals(chunk)[place])

    def _anchor(self, day: int) -> float:
        """Return the log distance from the level at the midnight that begins `day`."""
        total = 0.0
        for age in range(_DAY_MEMORY_DAYS - 1, -1, -1):
            total = total * _DAY_MEMORY + self._day_shock(day - age)
        return total * _DAY_MOVE

    def _volatility(self, day: int) -> FloatArray:
        """Return each minute's standard deviation: log-normal around the usual one, remembered over midnight."""
        before = _generator(self._seed, self._symbol, "calm", day - 1).standard_normal(_MINUTES)[-_CALM_WARMUP:]
        today = _generator(self._seed, self._symbol, "calm", day).standard_normal(_MINUTES)
        memory = exp(-1 / _CALM_MEMORY_MINUTES)
        shocks = (np.concatenate([before, today]) * (_CALM_SPREAD * sqrt(1 - memory**2))).tolist()
        calm = np.array(list(accumulate(shocks, lambda state, shock: memory * state + shock))[_CALM_WARMUP:])
        return _MINUTE_MOVE * np.exp(calm - _CALM_SPREAD**2)

    def _make_minutes(self, day: int) -> CandleColumns:
        chance = _generator(self._seed, self._symbol, "path", day)
        volatility = self._volatility(day)
        unit = sqrt((_TAIL_FREEDOM - 2) / _TAIL_FREEDOM)
        shocks = np.clip(chance.standard_t(_TAIL_FREEDOM, _MINUTES) * unit, -_MOVE_DEVIATIONS_MAX, _MOVE_DEVIATIONS_MAX)
        walk = np.concatenate([[0.0], np.cumsum(volatility * shocks)])
        start, end = self._anchor(day), self._anchor(day + 1)
        path = start + walk + np.linspace(0.0, 1.0, _MINUTES + 1) * (end - start - walk[-1])
        opens = path[:-1] + 0.05 * volatility * chance.standard_normal(_MINUTES)
        closes = path[1:]
        highs = np.maximum(opens, closes) + 0.5 * volatility * np.abs(chance.standard_normal(_MINUTES))
        lows = np.minimum(opens, closes) - 0.5 * volatility * np.abs(chance.standard_normal(_MINUTES))
        activity = (volatility / _MINUTE_MOVE) ** 1.2 * np.exp(0.5 * chance.standard_normal(_MINUTES))
        volume = np.round(_NOTIONAL_A_MINUTE / self.level * activity, self.volume_decimals)
        times = day * DAY_MS + np.arange(_MINUTES, dtype=np.int64) * 60_000
        there = self._presence(chance)
        first, high, low, last = (self._price(part)[there] for part in (opens, highs, lows, closes))
        volume = np.maximum(volume, 10.0**-self.volume_decimals)[there]
        return CandleColumns(times[there], first, high, low, last, volume)

    def _price(self, log_distance: FloatArray) -> FloatArray:
        return np.round(self.level * np.exp(log_distance), self.price_decimals)

    def _presence(self, chance: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        happens, where, length = chance.random(3).tolist()
        there = np.ones(_MINUTES, dtype=np.bool_)
        if happens < _GAP_CHANCE_A_DAY:
            first = 30 + floor(where * (_MINUTES - 60))
            there[first : first + 1 + floor(length * _GAP_MINUTES_MAX)] = False
        return there


def combine_minutes(minutes: CandleColumns, timeframe: str) -> CandleColumns:
    """Return the candles of `timeframe` that one day's minutes make.

    A candle exists when at least one of its minutes does: open of the first, close of the last, highest high,
    lowest low, summed volume (rounded to the ten decimals that float sums keep).
    """
    length = TIMEFRAME_SECONDS[timeframe] // 60
    if length == 1:
        return minutes
    groups = minutes.open_time_ms // (length * 60_000)
    first = np.flatnonzero(np.concatenate([[True], np.diff(groups) > 0]))
    last = np.append(first[1:], len(groups)) - 1
    return CandleColumns(
        groups[first] * (length * 60_000),
        minutes.open[first],
        np.maximum.reduceat(minutes.high, first),
        np.minimum.reduceat(minutes.low, first),
        minutes.close[last],
        np.round(np.add.reduceat(minutes.volume, first), 10),
    )

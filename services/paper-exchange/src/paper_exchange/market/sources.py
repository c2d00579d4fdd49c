"""Where the candles come from: files, or a market made of a seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from math import lcm
from pathlib import Path
from typing import Final

import numpy as np

from paper_exchange.market.run_plan import Alignment, RunPlan, RunSpan, plan_run
from paper_exchange.market.symbol_market import SymbolMarket
from paper_exchange.market.tape import CandleTape
from shared.candle_columns import CandleColumns
from shared.candle_files import CandleFile, check_stream, read_candle_file
from shared.config_values import DataFile
from shared.errors import ConfigError
from shared.models import TIMEFRAME_SECONDS, to_milliseconds
from shared.synthetic_market import DAY_MS, SyntheticMarket, combine_minutes

HISTORY_CANDLES: Final = 400
SIMULATION_START: Final = datetime(2025, 1, 1, tzinfo=UTC)  # where a simulated run begins, before its stamps move


@dataclass(frozen=True, slots=True)
class Recording:
    """Every tape of a run, stamps as recorded, and the span that is played rather than known from the beginning."""

    tapes: Mapping[tuple[str, str], CandleTape]
    span: RunSpan

    def __post_init__(self) -> None:
        """Refuse two symbols that the venue would write alike."""
        alike: dict[str, str] = {}
        for symbol, _ in self.tapes:
            other = alike.setdefault(symbol.replace("/", ""), symbol)
            if other != symbol:
                raise ConfigError(f"symbols: {other} and {symbol} are one word at the venue; leave one of them away")

    def begin(self, *, now_ms: int, speed: float, alignment: Alignment) -> tuple[RunPlan, list[SymbolMarket]]:
        """Return the plan of a run from now on and the symbols under its stamps, what is history already over."""
        plan = plan_run(self.span, now_ms=now_ms, speed=speed, alignment=alignment)
        by_symbol: dict[str, dict[str, CandleTape]] = defaultdict(dict)
        for (symbol, timeframe), tape in self.tapes.items():
            tape.shift(plan.shift_ms)
            while (open_ms := tape.next_open_ms()) is not None and open_ms + tape.step_ms <= plan.begin_ms:
                tape.close_one()
            by_symbol[symbol][timeframe] = tape
        return plan, [SymbolMarket(symbol, tapes) for symbol, tapes in sorted(by_symbol.items())]


def file_recording(files: Iterable[CandleFile], history_candles: int | None = None) -> Recording:
    """Return the recording of candle files.

    The first `history_candles` of the longest timeframe are over before the run begins: without a number half of
    them, at most `HISTORY_CANDLES`.
    """
    read = list(files)
    if not read:
        raise ConfigError("data: no candles to serve; give --data BTC/USDT:1m=FILE, or --feed simulated")
    tapes = {(file.symbol, file.timeframe): CandleTape(file.symbol, file.timeframe_ms, _columns(file)) for file in read}
    grid_ms = lcm(*(file.timeframe_ms for file in read))
    first_ms = min(int(file.open_time_ms[0]) for file in read)
    end_ms = max(int(file.open_time_ms[-1]) + file.timeframe_ms for file in read)
    longest_ms = max(file.timeframe_ms for file in read)
    if history_candles is None:
        history_candles = min(HISTORY_CANDLES, (end_ms - first_ms) // longest_ms // 2)
    first_ms += history_candles * longest_ms
    first_ms -= first_ms % grid_ms
    if first_ms >= end_ms:
        raise ConfigError(
            f"history: {history_candles} candles before the run leave nothing to play; ask for fewer, or give longer files"
        )
    return Recording(tapes, RunSpan(first_ms, end_ms, grid_ms))


@dataclass(frozen=True, slots=True)
class SimulatedOptions:
    """A market made of a seed; its shortest timeframe is what every other one is made of.

    `run_hours` is how far the market lies behind the clock when it begins at a speed above one.
    """

    symbols: tuple[str, ...] = ("BTC/USDT", "ETH/USDT")
    timeframes: tuple[str, ...] = ("1m",)
    seed: int = 1
    history_candles: int = HISTORY_CANDLES
    run_hours: float = 24.0


def simulated_recording(options: SimulatedOptions) -> Recording:
    """Return the recording of simulated symbols: no end, and the same candles for the same seed."""
    timeframe = min(options.timeframes, key=lambda name: TIMEFRAME_SECONDS[name])
    step_ms = TIMEFRAME_SECONDS[timeframe] * 1000
    start_ms = to_milliseconds(SIMULATION_START)
    first_ms = start_ms - options.history_candles * step_ms
    tapes = {}
    for symbol in options.symbols:
        check_stream(symbol, timeframe)
        days = _days(SyntheticMarket(symbol, options.seed), timeframe, first_ms)
        tapes[symbol, timeframe] = CandleTape(symbol, step_ms, next(days), partial(next, days))
    return Recording(tapes, RunSpan(start_ms, start_ms + int(options.run_hours * 3_600_000), step_ms, endless=True))


def _days(market: SyntheticMarket, timeframe: str, first_ms: int) -> Iterator[CandleColumns]:
    """Yield a day's candles at a time from `first_ms` on, rounded as the exchange writes numbers."""
    for day in count(first_ms // DAY_MS):
        columns = combine_minutes(market.minutes(day), timeframe)
        there = columns.open_time_ms >= first_ms
        if there.any():
            first, high, low, last, volume = (np.round(part[there], 8) for part in columns[1:])
            yield CandleColumns(columns.open_time_ms[there], first, high, low, last, volume)


def read_files(data: Iterable[DataFile]) -> list[CandleFile]:
    """Return the checked candles of every file; two that name one stream are refused."""
    paths: dict[tuple[str, str], Path] = {}
    for symbol, timeframe, path in data:
        if (symbol, timeframe) in paths:
            raise ConfigError(f"data: {symbol}:{timeframe} is given twice; join its files into one")
        paths[symbol, timeframe] = path
    return [read_candle_file(path, symbol=symbol, timeframe=timeframe) for (symbol, timeframe), path in paths.items()]


def _columns(file: CandleFile) -> CandleColumns:
    return CandleColumns(file.open_time_ms, file.open, file.high, file.low, file.close, file.volume)

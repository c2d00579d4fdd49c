"""The event engine: any plug-in, candle by candle, through the very book and paper venue that trade."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Protocol

from backtester.benchmark import hold_balance, mean_exposure
from backtester.metrics import RunFacts, compute_detailed_metrics
from backtester.options import BacktestOptions
from backtester.ratios import sorted_marks
from backtester.result import BacktestResult, RunSeconds
from shared.clock import Clock, SystemClock
from shared.domain.book import Book
from shared.domain.effects import IGNORED, Closed, Declined, Effect, Filled
from shared.domain.fees import FeeAsset
from shared.domain.matching import signal_age_max
from shared.domain.paper import PaperVenue
from shared.domain.positions import fill_effect
from shared.domain.rounding import ZERO, minus, money, plus, times
from shared.domain.trade_records import TradeRecord
from shared.errors import ConfigError
from shared.models import TIMEFRAME_DELTA, Candle, Fill, InstanceKey, OrderStatus, Signal, to_decimal
from shared.strategy_runner import CALL_SECONDS_MAX, InstanceStamp, StrategyRunner
from shared.watchdog import CallGuard

PROGRESS_CANDLES = 5_000


class StrategyProtocol(Protocol):
    """The least that a strategy must offer to be run."""

    name: str

    @property
    def warmup_period(self) -> int:
        """Return the number of the first candle whose signal counts."""

    def on_candle(self, candle: Candle) -> Signal | None:
        """Return a signal for a candle that has just closed, or None."""

    def reset(self) -> None:
        """Forget every candle."""


class BacktestEngine:
    """Runs a strategy over candles; several symbols trade equal parts of the balance, each with a copy of it."""

    def __init__(
        self,
        strategy: StrategyProtocol,
        initial_balance: Decimal | int | float | str = Decimal(10_000),
        options: BacktestOptions | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        balance = to_decimal(initial_balance)
        if not (balance.is_finite() and balance > 0):
            raise ConfigError(f"initial balance: must be > 0, was {balance}; give the money the run starts with")
        self._strategy = strategy
        self._balance = balance
        self._options = options or BacktestOptions()
        self._clock = clock or SystemClock()

    def run(
        self,
        candles: Iterable[Candle],
        history: Iterable[Candle] = (),
        on_progress: Callable[[int], None] | None = None,
    ) -> BacktestResult:
        """Return the outcome over `candles`; `history` lies before them and is only fed, nothing of it trades.

        `on_progress` is told now and then how many candles are done.
        """
        listed = candles if isinstance(candles, Sequence) else list(candles)
        started = self._clock.monotonic()
        run = _Run(self._strategy, self._balance, self._options, listed)
        with run.guard:
            run.feed_history(history)
            run.play(listed if on_progress is None else _reported(listed, on_progress))
        return run.result(self._clock.monotonic() - started)


class _Run:
    """One pass: book, runners, and what is counted on the way."""

    def __init__(
        self, strategy: StrategyProtocol, balance: Decimal, options: BacktestOptions, candles: Sequence[Candle]
    ) -> None:
        self._options = options
        self._strategy = strategy
        self._candles = candles
        self._book = Book(options.book_rules(), balance)
        self._runners: dict[tuple[str, str], StrategyRunner] = {}
        self.guard = CallGuard(CALL_SECONDS_MAX)
        streams = sorted({(candle.symbol, candle.timeframe) for candle in candles})
        for stream in streams:
            self._open(stream, balance / len(streams), is_only=len(streams) == 1)
        self._paper = PaperVenue(self._book, fills_at_close=options.fill == "close")
        self._effects: list[Effect] = []
        self._signals = 0
        self._marks: list[tuple[datetime, Decimal]] = []
        self._values: list[float] = []

    def _open(self, stream: tuple[str, str], cash: Decimal, *, is_only: bool) -> None:
        if stream[1] not in TIMEFRAME_DELTA:
            raise ConfigError(f"candles: timeframe {stream[1]!r} is unknown; known: {', '.join(TIMEFRAME_DELTA)}")
        strategy = self._strategy if is_only else copy.deepcopy(self._strategy)
        strategy.reset()
        key = InstanceKey(strategy.name, *stream)
        stamp = InstanceStamp(age_max=signal_age_max(stream[1], self._options.age_max), mode="backtest")
        self._runners[stream] = StrategyRunner(key, strategy, stamp, guard=self.guard)  # type: ignore[arg-type]
        self._book.open_account(key, self._options.instance_rules(key, strategy), money(cash))  # type: ignore[arg-type]

    def feed_history(self, history: Iterable[Candle]) -> None:
        for candle in history:
            runner = self._runners.get((candle.symbol, candle.timeframe))
            if runner is not None:
                runner.feed(candle)

    def play(self, candles_in_order: Iterable[Candle]) -> None:
        for as_of, group in groupby(candles_in_order, key=_close_time):
            candles = list(group)
            signals = []
            for candle in candles:
                signal = self._runners[candle.symbol, candle.timeframe].feed(candle)
                if signal is not None:
                    signals.append(signal)
            self._signals += len(signals)
            self._effects.extend(self._paper.advance(as_of, candles, signals))
            equity = self._book.figures.equity
            self._marks.append((as_of, equity))
            self._values.append(float(minus(equity, self._book.cash)))
        if self._options.close_at_end and self._candles:
            self._close_all(_close_time(self._candles[-1]))

    def _close_all(self, as_of: datetime) -> None:
        for account in self._book.accounts.values():
            for order in list(account.working):
                self._effects.append(self._book.close(order, OrderStatus.CANCELED, "end_of_data"))
            mark = self._book.marks.get(account.key.symbol)
            if account.holding.quantity and mark is not None:
                self._effects.extend(self._paper.sell_out(account, mark, as_of))
        self._book.mark(as_of)
        self._marks[-1] = (as_of, self._book.figures.equity)
        self._values[-1] = float(minus(self._book.figures.equity, self._book.cash))

    def result(self, seconds: float) -> BacktestResult:
        fills = [(effect.fill, effect.order.created_at) for effect in self._effects if isinstance(effect, Filled)]
        trades = self._trades(fills)
        equity = self._book.equity()
        assert equity is not None, "backtest: everything held has been marked"
        start = self._book.initial_balance
        refused, ignored = _declined(self._effects)
        options = self._options
        first = self._candles[0] if self._candles else None
        costs = (options.fee, options.slippage_bps)
        facts = RunFacts(
            last_prices=dict(self._book.marks),
            closing_fee=costs[0],
            closing_slippage_bps=costs[1],
            position_values=self._values,
            newest_first=any(account.rules.max_entries > 1 for account in self._book.accounts.values()),
        )
        detailed = compute_detailed_metrics(trades, start, equity, self._marks, facts)
        entries = {account.rules.max_entries for account in self._book.accounts.values()}
        return BacktestResult(
            strategy_name=self._strategy.name,
            symbol=", ".join(sorted({stream[0] for stream in self._runners})),
            total_trades=len(trades),
            initial_balance=start,
            final_balance=equity,
            profit=minus(equity, start),
            profit_pct=float(minus(equity, start) / start * 100),
            trades=list(trades),
            detailed=detailed,
            timeframe=first.timeframe if first else "",
            params=_params(self._strategy),
            fill=options.fill,
            fee=options.fee,
            fee_asset=FeeAsset(options.fee_asset).value,
            slippage_bps=options.slippage_bps,
            sizing=str(options.sizing),
            max_entries=entries.pop() if len(entries) == 1 else 0,
            risk="off" if options.limits is None else "live",
            fees_paid=sum((fill.fee_quote for fill, _ in fills), ZERO),
            slippage_paid=sum((_slippage(effect) for effect in self._effects if isinstance(effect, Filled)), ZERO),
            signals=self._signals,
            refused=refused,
            ignored=ignored,
            equity=self._marks,
            open_positions=detailed.open_positions,
            benchmarks=self._benchmarks(costs),
            notes=self._notes(),
            faults=self._faults(),
            seconds=RunSeconds(run=seconds),
        )

    def _trades(self, fills: Iterable[tuple[Fill, datetime]]) -> list[TradeRecord]:
        cash = {key: account.cash for key, account in self._book.accounts.items()}
        for fill, _ in fills:
            cash[fill.instance] = minus(cash[fill.instance], fill_effect(fill)[1])
        trades = []
        for fill, signal_time in fills:
            base, change = fill_effect(fill)
            cash[fill.instance] = plus(cash[fill.instance], change)
            trades.append(
                TradeRecord(
                    fill.traded_at,
                    fill.symbol,
                    fill.side,
                    fill.price,
                    abs(base),
                    fill.fee_quote,
                    fill.strategy,
                    signal_time,
                    cash[fill.instance],
                    fill.reason,
                )
            )
        return trades

    def _benchmarks(self, costs: tuple[Decimal, Decimal]) -> dict[str, Decimal]:
        if len(self._runners) != 1 or not self._candles:
            return {}
        first, last = self._candles[0], self._candles[-1]
        share = to_decimal(mean_exposure(sorted_marks(self._marks, self._values)))
        prices = {"first_open": first.open, "last_close": last.close, "fee": costs[0], "slippage_bps": costs[1]}
        start = self._book.initial_balance
        return {
            "hold": hold_balance(start, **prices),
            "hold at mean exposure": hold_balance(start, **prices, share=share),
        }

    def _faults(self) -> tuple[str, ...]:
        return tuple(f"{runner.key}: {runner.fault}" for runner in self._runners.values() if runner.fault)

    def _notes(self) -> tuple[str, ...]:
        notes = [f"put aside after a fault: {fault}" for fault in self._faults()]
        if self._options.fill == "close":
            notes.append("fills at the same candle's close: a price that was gone when the signal was known")
        waiting = sum(len(account.working) for account in self._book.accounts.values())
        if waiting:
            notes.append(f"{waiting} order(s) of the last candle wait for an open that the data does not have")
        return tuple(notes)


def _reported(candles: Sequence[Candle], on_progress: Callable[[int], None]) -> Iterator[Candle]:
    for start in range(0, len(candles), PROGRESS_CANDLES):
        on_progress(start)
        yield from candles[start : start + PROGRESS_CANDLES]
    on_progress(len(candles))


def _close_time(candle: Candle) -> datetime:
    return candle.close_time


def _declined(effects: Iterable[Effect]) -> tuple[dict[str, int], dict[str, int]]:
    refused: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    for effect in effects:
        if isinstance(effect, Declined):
            (ignored if effect.outcome == IGNORED else refused)[effect.reason] += 1
        elif isinstance(effect, Closed) and effect.order.status is not OrderStatus.CANCELED:
            refused[effect.order.reason] += 1
    return dict(sorted(refused.items())), dict(sorted(ignored.items()))


def _slippage(effect: Filled) -> Decimal:
    """Return what slippage (and the tick) cost: the distance of the fill from the market it met."""
    arrival = effect.order.arrival_price
    return ZERO if arrival is None else times(effect.fill.quantity, abs(minus(effect.fill.price, arrival)))


def _params(strategy: StrategyProtocol) -> dict[str, object]:
    params = getattr(strategy, "params", None)
    dump = getattr(params, "model_dump", None)
    return dict(dump(mode="json")) if dump is not None else {}

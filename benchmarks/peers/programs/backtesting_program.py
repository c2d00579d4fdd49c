"""backtesting.py: signals worked out as one array (W1), or averages kept in plain Python a candle (W3)."""

# ruff: noqa: I001 - the clock starts before the imports that it counts

from __future__ import annotations

import measured

import warnings

import numpy as np
import pandas as pd
from backtesting import Strategy
from backtesting.lib import FractionalBacktest

warnings.filterwarnings("ignore")


def ema(values: np.ndarray, period: int) -> np.ndarray:
    """Return the recursive average, seeded by the first value."""
    return pd.Series(values).ewm(span=period, adjust=False).mean().to_numpy()


def turns(sign: np.ndarray, start: int) -> np.ndarray:
    """Return where a sign differs from the last one that was not 0; none is looked at before candle `start`."""
    sign = np.where(np.arange(1, len(sign) + 1) >= start, sign, 0.0)
    kept = np.maximum.accumulate(np.where(sign != 0, np.arange(len(sign)), 0))
    sign = sign[kept]
    before = np.concatenate([[0.0], sign[:-1]])
    return np.where((before != 0) & (before != sign), sign, 0.0)


def signals(job: measured.Job, close: np.ndarray, params: dict[str, int]) -> np.ndarray:
    """Return +1 to buy, -1 to sell, 0 for nothing, at each candle's close."""
    if job.strategy == "macd":
        line = ema(close, params["fast_period"]) - ema(close, params["slow_period"])
        found = turns(np.sign(line - ema(line, params["signal_period"])), 1)
        start = params["slow_period"] + params["signal_period"]
        return np.where(np.arange(1, len(close) + 1) >= start, found, 0.0)
    difference = ema(close, params["short_period"]) - ema(close, params["long_period"])
    return turns(np.sign(difference), params["long_period"])


def array_strategy(job: measured.Job, close: np.ndarray, params: dict[str, int]) -> type[Strategy]:
    """Return the strategy that reads its signals from one array."""

    class Crossing(Strategy):
        def init(self) -> None:
            self.turn = self.I(lambda: signals(job, close, params), name="turn", plot=False)

        def next(self) -> None:
            turn = self.turn[-1]
            if turn > 0 and not self.position:
                self.buy(size=1)
            elif turn < 0 and self.position:
                self.position.close()

    return Crossing


def plain_strategy(params: dict[str, int]) -> type[Strategy]:
    """Return the strategy that keeps its averages itself, a candle at a time."""
    short_alpha, long_alpha = 2 / (params["short_period"] + 1), 2 / (params["long_period"] + 1)
    start = params["long_period"]

    class Plain(Strategy):
        def init(self) -> None:
            self.count, self.sign = 0, 0
            self.short = self.long = 0.0

        def next(self) -> None:
            close = self.data.Close[-1]
            if self.count == 0:  # the first call is for the second candle
                self.short = self.long = self.data.Close[0]
                self.count = 1
            self.count += 1
            self.short += (close - self.short) * short_alpha
            self.long += (close - self.long) * long_alpha
            if self.count < start or self.short == self.long:
                return
            sign = 1 if self.short > self.long else -1
            last, self.sign = self.sign, sign
            if last in (0, sign):
                return
            if sign > 0 and not self.position:
                self.buy(size=1)
            elif sign < 0 and self.position:
                self.position.close()

    return Plain


def main() -> None:
    """Run the job."""
    imported = measured.import_seconds()
    job = measured.job()
    market = job.market()
    frame = pd.DataFrame(
        {name.capitalize(): market[name] for name in ("open", "high", "low", "close", "volume")},
        index=pd.to_datetime(market["open_time"], unit="ms"),
    )
    all_params = [{"short_period": short, "long_period": long} for short, long in job.sets] or [job.params]

    def once() -> measured.Outcome:
        orders, equity = 0, 0.0
        for params in all_params:
            strategy = plain_strategy(params) if job.work == "W3" else array_strategy(job, market["close"], params)
            test = FractionalBacktest(
                frame, strategy, cash=job.balance, commission=job.fee, fractional_unit=job.quantity
            )
            stats = test.run()
            broker = stats["_strategy"]._broker
            orders += 2 * len(broker.closed_trades) + len(broker.trades)
            equity += float(stats["Equity Final [$]"])
        return measured.Outcome(orders, equity)

    measured.write_figures(job, imported, once)


if __name__ == "__main__":
    main()

"""vectorbt: indicators, signals and portfolio as arrays; its engine is the job's (numba or rust)."""

# ruff: noqa: I001 - the clock starts before the imports that it counts

from __future__ import annotations

import measured

import numpy as np
import vectorbt as vbt


SETS_AT_ONCE = 5  # tried 1, 5 and 20: five are the fastest and need the least memory


def crossings(job: measured.Job, close: np.ndarray, sets: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return BUY and SELL of each set at each candle's close; nothing before the long average is full."""
    shorts, longs = [pair[0] for pair in sets], [pair[1] for pair in sets]
    engine = {"engine": job.engine}
    short = vbt.MA.run(close, shorts, ewm=True, short_name="short", **engine)
    long = vbt.MA.run(close, longs, ewm=True, short_name="long", **engine)
    above, below = short.ma_crossed_above(long).values, short.ma_crossed_below(long).values
    return above.reshape(len(close), -1), below.reshape(len(close), -1)  # one set comes flat


def macd_turns(job: measured.Job, close: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the turns of the histogram's sign from candle slow + signal on, averages seeded by their first value."""

    def ema(values: np.ndarray, period: int) -> np.ndarray:
        return vbt.generic.dispatch.ewm_mean(values[:, None], period, minp=1, adjust=False, engine=job.engine)[:, 0]

    line = ema(close, job.params["fast_period"]) - ema(close, job.params["slow_period"])
    histogram = line - ema(line, job.params["signal_period"])
    sign = np.sign(histogram)
    kept = np.maximum.accumulate(np.where(sign != 0, np.arange(len(sign)), 0))
    sign = sign[kept]
    before = np.concatenate([[0.0], sign[:-1]])
    late = np.arange(1, len(sign) + 1) >= job.params["slow_period"] + job.params["signal_period"]
    return ((before < 0) & (sign > 0) & late)[:, None], ((before > 0) & (sign < 0) & late)[:, None]


def next_open(signals: np.ndarray) -> np.ndarray:
    """Return the signals one candle later: the candle at whose open they fill."""
    return np.concatenate([np.zeros((1, signals.shape[1]), dtype=bool), signals[:-1]])


def portfolio(job: measured.Job, market: dict[str, np.ndarray], sets: list[tuple[int, int]]) -> vbt.Portfolio:
    """Return the portfolio of the sets."""
    close = market["close"]
    buys, sells = macd_turns(job, close) if job.strategy == "macd" else crossings(job, close, sets)
    return vbt.Portfolio.from_signals(
        close[:, None],
        next_open(buys),
        next_open(sells),
        price=market["open"][:, None],
        size=job.quantity,
        init_cash=job.balance,
        fees=job.fee,
        freq="1min",
        engine=job.engine,
    )


def main() -> None:
    """Run the job."""
    imported = measured.import_seconds()
    job = measured.job()
    market = job.market()
    sets = job.sets or [(job.params.get("short_period", 0), job.params.get("long_period", 0))]
    vbt.settings.caching["enabled"] = False  # nothing is asked twice: keeping it costs memory and a third of the speed

    def once() -> measured.Outcome:
        orders, equity = 0, 0.0
        for start in range(0, len(sets), SETS_AT_ONCE):
            folio = portfolio(job, market, sets[start : start + SETS_AT_ONCE])
            orders += len(folio.orders.values)
            if job.work == "W2":
                equity += float(np.sum(folio.final_value()))
            else:
                equity += float(np.asarray(folio.value())[-1].sum())
        return measured.Outcome(orders, equity)

    measured.write_figures(job, imported, once)


if __name__ == "__main__":
    main()

"""backtrader: averages kept in plain Python a candle (W3)."""

# ruff: noqa: I001 - the clock starts before the imports that it counts

from __future__ import annotations

import measured

from datetime import UTC, datetime
from typing import Any

import backtrader as bt


class ArrayFeed(bt.feed.DataBase):
    """Candles out of arrays, one a call."""

    params = (("market", None),)

    def start(self) -> None:
        """Begin at the first candle."""
        super().start()
        names = ("open", "high", "low", "close", "volume")
        self._columns = [self.p.market[name].tolist() for name in names]
        times = self.p.market["open_time"].tolist()
        self._times = [bt.date2num(datetime.fromtimestamp(time / 1000, UTC)) for time in times]
        self._place = 0

    def _load(self) -> bool:
        place = self._place
        if place == len(self._times):
            return False
        lines = self.lines
        lines.datetime[0] = self._times[place]
        lines.open[0], lines.high[0], lines.low[0], lines.close[0], lines.volume[0] = (
            column[place] for column in self._columns
        )
        lines.openinterest[0] = 0.0
        self._place = place + 1
        return True


class Crossing(bt.Strategy):
    """Buys and sells on the crossing of two averages."""

    params = (("short", 9), ("long", 21), ("quantity", 0.01))

    def __init__(self) -> None:
        self.count, self.sign, self.fills = 0, 0, 0
        self.averages = [0.0, 0.0]
        self.weights = [2 / (self.p.short + 1), 2 / (self.p.long + 1)]

    def notify_order(self, order: Any) -> None:
        """Count what was filled."""
        self.fills += order.status == order.Completed

    def next(self) -> None:
        """Follow the sign of the difference from candle `long` on."""
        close = self.data.close[0]
        if self.count == 0:
            self.averages = [close, close]
        self.count += 1
        self.averages = [
            average + (close - average) * weight for average, weight in zip(self.averages, self.weights, strict=True)
        ]
        short, long = self.averages
        if self.count < self.p.long or short == long:
            return
        sign = 1 if short > long else -1
        last, self.sign = self.sign, sign
        if last in (0, sign):
            return
        if sign > 0 and not self.position:
            self.buy(size=self.p.quantity)
        elif sign < 0 and self.position:
            self.close()


def main() -> None:
    """Run the job."""
    imported = measured.import_seconds()
    job = measured.job()
    market = job.market()

    def once() -> measured.Outcome:
        tester = bt.Cerebro(stdstats=False)
        tester.adddata(ArrayFeed(market=market, timeframe=bt.TimeFrame.Minutes))
        params = {"short": job.params["short_period"], "long": job.params["long_period"], "quantity": job.quantity}
        tester.addstrategy(Crossing, **params)
        tester.broker.setcash(job.balance)
        tester.broker.setcommission(commission=job.fee)
        ran = tester.run()
        return measured.Outcome(ran[0].fills, tester.broker.getvalue())

    measured.write_figures(job, imported, once)


if __name__ == "__main__":
    main()

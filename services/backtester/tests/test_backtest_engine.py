"""The event engine against a reference of its own arithmetic, and what each option does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from backtester.command import backtest
from backtester.engine import PROGRESS_CANDLES, BacktestEngine
from backtester.options import BacktestOptions
from backtester.run import BacktestRequest, run_backtest
from shared.domain.risk import Limits
from shared.domain.sizing import parse_sizing
from shared.errors import ConfigError
from shared.models import Candle, Signal
from shared.strategy import BaseStrategy
from shared.testing.builders import START, candle
from shared.testing.reference import reference_path

pytestmark = pytest.mark.thorough

CRASH = "data/candles/binance-BTCUSDT-1m-2024crash.parquet"
PLAIN = BacktestOptions(fee=Decimal(0), slippage_bps=Decimal(0), gap="fill", max_entries=0)


class Scripted(BaseStrategy):
    """Says at candle number n what a script says: "B", "S" or nothing."""

    name = "scripted"
    script = ""

    def __init__(self, script: str = "") -> None:
        self.script = script
        super().__init__()

    @property
    def warmup_period(self) -> int:
        return 0

    def reset(self) -> None:
        self._number = -1

    def on_candle(self, candle: Candle) -> Signal | None:
        self._number += 1
        word = self.script[self._number : self._number + 1]
        if word == "!":
            raise RuntimeError("broken on purpose")
        return self.buy(candle, "told") if word == "B" else self.sell(candle, "told") if word == "S" else None


def run(script: str, prices: list[float], options: BacktestOptions = PLAIN, balance: int = 1_000) -> Any:
    candles = [candle(number, price) for number, price in enumerate(prices)]
    return BacktestEngine(Scripted(script), balance, options).run(candles)


def trades_of(result: Any) -> list[tuple[str, float, float]]:
    return [(trade.side, float(trade.price), float(trade.quantity)) for trade in result.trades]


# --- the reference ------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What the reference makes of the candles."""

    trades: list[tuple[Any, str, float, float]]
    balance: float
    rejected: int = 0
    unheld: int = 0


def reference(rows: list[dict[str, Any]], balance: float, fee: float, slippage_bps: float) -> Outcome:
    """EMA 9/21 seeded by the first close, 0.01 a signal, filled at the next open: plain floats, nothing of ours."""
    short = long = rows[0]["close"]
    cash, held, sign, waiting = balance, 0.0, 0, 0
    out = Outcome([], 0.0)
    for number, row in enumerate(rows, start=1):
        if waiting > 0:
            price = row["open"] * (1 + slippage_bps / 10_000)
            cost = 0.01 * price * (1 + fee)
            if cost > cash:
                out.rejected += 1
            else:
                cash, held = cash - cost, held + 0.01
                out.trades.append((row["open_time"], "BUY", price, cash))
        elif waiting < 0:
            price, sold = row["open"] * (1 - slippage_bps / 10_000), min(0.01, held)
            cash, held = cash + sold * price * (1 - fee), held - sold
            out.trades.append((row["open_time"], "SELL", price, cash))
        waiting = 0
        if number > 1:
            short += (row["close"] - short) * 2 / 10
            long += (row["close"] - long) * 2 / 22
        side = (short > long) - (short < long)
        if number >= 21 and side and side != sign:
            if sign:
                if side < 0 and held < 0.005:
                    out.unheld += 1
                else:
                    waiting = side
            sign = side
    out.balance = cash + held * rows[-1]["close"]
    return out


@pytest.mark.parametrize(
    ("balance", "fee", "slippage", "is_poor"),
    [(10_000, 0.001, 0, False), (600, 0.001, 0, True), (10_000, 0.002, 7, False)],
)
def test_the_command_gives_exactly_what_thirty_plain_lines_give(
    tmp_path: Path, balance: int, fee: float, slippage: int, is_poor: bool
) -> None:
    path = reference_path(CRASH)
    rows = pl.read_parquet(path).filter(pl.col("open_time") < pl.datetime(2024, 8, 8, time_zone="UTC")).to_dicts()
    expected = reference(rows, balance, fee, slippage)
    words = [
        *("--strategy", "ema_crossover", "--data", path, "--symbol", "BTC/USDT", "--timeframe", "1m"),
        *("--initial-balance", balance, "--fee", fee, "--slippage-bps", slippage, "--fee-asset", "quote"),
        *("--gap", "fill", "--max-entries", 0, "--risk", "off", "--end", "2024-08-08", "--json", "-", "--no-trials"),
    ]
    result = CliRunner().invoke(backtest, [str(word) for word in words], catch_exceptions=False)
    document = json.loads(result.stdout)
    found = document["trades"]
    assert len(expected.trades) > 100
    assert [(trade["time"], trade["side"], trade["quantity"]) for trade in found] == [
        (f"{time:%Y-%m-%dT%H:%M:%SZ}", side, 0.01) for time, side, _, _ in expected.trades
    ]
    assert [trade["price"] for trade in found] == pytest.approx(
        [price for _, _, price, _ in expected.trades], rel=1e-12
    )
    assert [trade["balance_after"] for trade in found] == pytest.approx(
        [cash for *_, cash in expected.trades], rel=1e-9
    )
    assert document["final_balance"] == pytest.approx(expected.balance, rel=1e-9)
    assert document["refused"] == ({"insufficient_cash": expected.rejected} if expected.rejected else {})
    assert document["ignored"] == ({"nothing_held": expected.unheld} if expected.unheld else {})
    assert bool(expected.rejected and expected.unheld) == is_poor


# --- rules of the contract ----------------------------------------------------------------------------------------


def test_a_signal_fills_at_the_next_open_and_the_last_one_not_at_all() -> None:
    result = run("B..S", [100, 110, 120, 130])
    assert trades_of(result) == [("BUY", 110.0, 0.01)]
    assert result.trades[0].time == START + timedelta(minutes=1)
    assert result.trades[0].signal_time == START + timedelta(minutes=1)
    assert result.final_balance == Decimal("1000.2")  # 0.01 x (130 - 110)
    assert any("wait for an open" in note for note in result.notes)


def test_fill_close_is_named_and_bears_the_close_time() -> None:
    result = run("B.S", [100, 110, 120], BacktestOptions(fee=Decimal(0), slippage_bps=Decimal(0), fill="close"))
    assert trades_of(result) == [("BUY", 100.0, 0.01), ("SELL", 120.0, 0.01)]
    assert [trade.time for trade in result.trades] == [START + timedelta(minutes=1), START + timedelta(minutes=3)]
    assert any("same candle's close" in note for note in result.notes)


@pytest.mark.parametrize(
    ("max_entries", "sides"), [(None, ["BUY", "SELL"]), (1, ["BUY", "SELL"]), (2, ["BUY", "BUY", "SELL"])]
)
def test_entries_are_bounded_by_the_option_or_by_the_strategy(max_entries: int | None, sides: list[str]) -> None:
    options = BacktestOptions(fee=Decimal(0), slippage_bps=Decimal(0), max_entries=max_entries)
    result = run("BBBS.", [100] * 5, options)
    assert [trade.side for trade in result.trades] == sides
    assert result.ignored == {"already_in": 4 - len(sides)}


def test_an_order_over_a_gap_is_refused_unless_it_may_fill() -> None:
    candles = [candle(0, 100), candle(60, 110)]
    refusing = BacktestOptions(fee=Decimal(0), slippage_bps=Decimal(0))
    assert BacktestEngine(Scripted("B"), 1_000, refusing).run(candles).refused == {"gap": 1}
    assert trades_of(BacktestEngine(Scripted("B"), 1_000, PLAIN).run(candles)) == [("BUY", 110.0, 0.01)]


def test_a_stop_sells_at_its_price_or_the_worse_open() -> None:
    options = BacktestOptions(fee=Decimal(0), slippage_bps=Decimal(0), stop_loss_pct=Decimal(5))
    touched = [candle(0, 100), candle(1, 100), candle(2, 99, low=90), candle(3, 99)]
    gapped = [candle(0, 100), candle(1, 100), candle(2, 80), candle(3, 80)]
    assert trades_of(BacktestEngine(Scripted("B"), 1_000, options).run(touched))[1] == ("SELL", 95.0, 0.01)
    assert trades_of(BacktestEngine(Scripted("B"), 1_000, options).run(gapped))[1] == ("SELL", 80.0, 0.01)


def test_close_at_end_sells_what_is_held_and_pays_for_it() -> None:
    options = BacktestOptions(fee=Decimal("0.01"), slippage_bps=Decimal(0), close_at_end=True)
    result = run("B", [100, 100, 120], options)
    assert trades_of(result) == [("BUY", 100.0, 0.01), ("SELL", 120.0, 0.01)]
    assert result.final_balance == Decimal(1000) + Decimal("0.2") - Decimal("0.01") - Decimal("0.012")
    assert result.open_positions == ()


def test_sizing_by_equity_and_account_limits_are_those_of_live_trading() -> None:
    fraction = BacktestOptions(fee=Decimal(0), slippage_bps=Decimal(0), sizing=parse_sizing("equity_fraction:0.5"))
    assert trades_of(run("B.", [100, 100], fraction)) == [("BUY", 100.0, 5.0)]
    limited = BacktestOptions(
        fee=Decimal(0), slippage_bps=Decimal(0), sizing=parse_sizing("equity_fraction:0.5"), limits=Limits()
    )
    result = run("B.", [100, 100], limited)
    assert (result.refused, result.risk) == ({"position_size": 1}, "live")


def test_the_received_fee_shrinks_what_is_held() -> None:
    result = BacktestEngine(
        Scripted("B."),
        1_000,
        BacktestOptions(fee=Decimal("0.1"), fee_asset="received", slippage_bps=Decimal(0)),  # type: ignore[arg-type]
    ).run([candle(0, 100), candle(1, 100)])
    assert trades_of(result) == [("BUY", 100.0, 0.009)]


def test_a_strategy_that_raises_is_put_aside_and_its_money_is_still_counted() -> None:
    result = run("B.!B", [100, 110, 120, 130, 140])
    assert [trade.side for trade in result.trades] == ["BUY"]
    assert result.final_balance == Decimal("1000.3")
    assert "RuntimeError: broken on purpose" in result.faults[0]


def test_several_symbols_trade_equal_parts_with_a_copy_each() -> None:
    candles = [candle(n, 100, symbol=symbol) for n in range(3) for symbol in ("BTC/USDT", "ETH/USDT")]
    result = BacktestEngine(Scripted("B.."), 1_000, PLAIN).run(candles)
    assert sorted(trade.symbol for trade in result.trades) == ["BTC/USDT", "ETH/USDT"]
    assert {trade.balance_after for trade in result.trades} == {Decimal(499)}


def test_no_candles_make_an_empty_result() -> None:
    result = BacktestEngine(Scripted("B"), 1_000).run([])
    assert (result.total_trades, result.final_balance, result.profit_pct) == (0, 1_000, 0.0)


@pytest.mark.parametrize("balance", [0, -1, "NaN", "Infinity"])
def test_a_balance_that_cannot_trade_is_refused(balance: object) -> None:
    with pytest.raises(ConfigError, match="initial balance"):
        BacktestEngine(Scripted(), balance)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("slippage_bps", Decimal(-1)),
        ("slippage_bps", Decimal("NaN")),
        ("stop_loss_pct", Decimal(100)),
        ("trailing_pct", Decimal("NaN")),
        ("take_profit_pct", Decimal("Infinity")),
        ("max_entries", -1),
        ("sizing", parse_sizing("risk:1")),
    ],
)
def test_an_option_that_means_nothing_is_refused_by_its_name(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option.partition("_")[0]):
        BacktestOptions(**{option: value})


def test_progress_is_told_up_to_the_end() -> None:
    told: list[int] = []
    count = PROGRESS_CANDLES + 10
    candles = [candle(number) for number in range(count)]
    silent = BacktestEngine(Scripted("B.S"), 1_000, PLAIN).run(candles)
    heard = BacktestEngine(Scripted("B.S"), 1_000, PLAIN).run(candles, (), told.append)
    assert told == [0, PROGRESS_CANDLES, count]
    assert heard.final_balance == silent.final_balance


# --- history before the start -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["ema_crossover", "macd", "rsi"])
def test_a_run_from_the_middle_speaks_as_the_whole_run_does(strategy: str) -> None:
    path = reference_path(CRASH)

    def trades(start: Any) -> list[tuple[Any, str]]:
        request = BacktestRequest(
            strategy=strategy, data=str(path), symbol="BTC/USDT", timeframe="1m", start=start,
            end=middle + timedelta(hours=6), initial_balance=Decimal(10**6), options=BacktestOptions(max_entries=0),
        )  # fmt: skip
        return [(trade.time, trade.side) for trade in run_backtest(request).trades if trade.time > middle]

    first = pl.read_parquet(path)["open_time"][0]
    middle = first + timedelta(days=1)
    whole, late = trades(None), trades(middle)
    assert len(whole) >= 4
    assert [each for each in late if each[1] == "BUY"] == [each for each in whole if each[1] == "BUY"]


def test_nothing_lies_before_the_first_candle(tmp_path: Path, write_csv: Callable[..., Path]) -> None:
    path = write_csv([100.0] * 30 + [110.0] * 30)
    request = BacktestRequest(strategy="ema_crossover", data=str(path), symbol="BTC/USDT", timeframe="1m")
    assert run_backtest(request).notes == ()

"""The quick way through the candles against the one that looks at each, and what is counted on the way."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backtester.data import load_candles
from backtester.engine import BacktestEngine
from backtester.live_limits import live_refusals
from backtester.options import BacktestOptions
from backtester.result import BacktestResult, to_record
from shared.clock import seeded_random
from shared.domain.performance import EquityCurve
from shared.domain.risk import Limits
from shared.domain.rounding import Instrument
from shared.domain.sizing import parse_sizing
from shared.errors import ConfigError
from shared.models import Candle, Signal, from_milliseconds
from shared.strategy import BaseStrategy
from shared.testing.builders import BTC, START, candle

pytestmark = pytest.mark.thorough

D = Decimal
FREE_OF_COST: dict[str, Any] = {"fee": D(0), "slippage_bps": D(0), "gap": "fill"}
NEVER_BINDING = Limits(
    position_size_max=D(1), gross_exposure_max=D(0), daily_loss_pct_max=D(0), drawdown_pct_max=D(0), order_rate_max=0
)


class Told(BaseStrategy):
    """Says at candle number n what a script says: "B", "S" or nothing."""

    name = "told"
    script = ""

    @property
    def warmup_period(self) -> int:
        return 2

    def reset(self) -> None:
        self.number = -1

    def on_candle(self, candle: Candle) -> Signal | None:
        self.number += 1
        word = self.script[self.number : self.number + 1]
        return self.buy(candle, "told") if word == "B" else self.sell(candle, "told") if word == "S" else None


def told(script: str, quantity: Any = "0.01") -> Told:
    strategy = Told({"quantity": quantity})
    strategy.script = script
    return strategy


def market(chance: random.Random, rows: int, spread: float) -> list[Candle]:  # noqa: TID251 - its type
    candles, moment, price = [], START, 100.0
    for _ in range(rows):
        first = max(round(price * (1 + chance.gauss(0, spread / 4)), 2), 1.0)
        last = max(round(first * (1 + chance.gauss(0, spread)), 2), 1.0)
        reach = 1 + abs(chance.gauss(0, spread))
        made = candle(0, first, last, high=round(max(first, last) * reach, 2), low=round(min(first, last) / reach, 2))
        candles.append(msgspec.structs.replace(made, open_time=moment, volume=D(chance.randrange(20))))
        moment += timedelta(minutes=chance.choice([1] * 20 + [2, 9]))
        price = last
    return candles


def random_options(chance: random.Random) -> dict[str, Any]:  # noqa: TID251 - its type
    pick = chance.choice
    by_size = chance.random() < 0.3
    return {
        "fee": D(pick(["0", "0.001", "0.05"])),
        "fee_maker": pick([None, D("0.0005")]),
        "fee_asset": pick(["quote", "received", "bnb"]),
        "slippage_bps": D(0) if by_size else D(pick(["0", "2", "25"])),
        "half_spread_bps": D(3) if by_size else None,
        "impact_bps": D(20) if by_size else None,
        "partial_cash": chance.random() < 0.3,
        "fill": pick(["next-open", "next-open", "close"]),
        "gap": pick(["refuse", "fill"]),
        "sizing": parse_sizing(pick(["fixed", "quote:300", "equity_fraction:0.5", "equity_fraction:1"])),
        "max_entries": pick([0, 1, 2, 5]),
        "stop_loss_pct": D(pick([0, 1, 5])),
        "take_profit_pct": D(pick([0, 1, 3])),
        "trailing_pct": D(pick([0, 1, 4])),
        "stop_cooldown_candles": pick([0, 1, 5]),
        "close_at_end": chance.random() < 0.3,
        "instrument": pick([None, Instrument(symbol=BTC, tick_size=D("0.05"), step_size=D("0.01"), notional_min=D(5))]),
    }


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**9))
@example(131073)  # sold at the end, priced by size
def test_passing_over_quiet_candles_changes_nothing(seed: int) -> None:
    chance = seeded_random(seed)
    candles = market(chance, chance.choice([5, 80, 300]), chance.choice([0.001, 0.01, 0.03]))
    script = "".join(chance.choice("BS") if chance.random() < 0.2 else "." for _ in candles)
    options, balance = random_options(chance), chance.choice([50, 1_000, 100_000])
    passing = BacktestEngine(told(script), balance, BacktestOptions(**options)).run(candles)
    each = BacktestEngine(told(script), balance, BacktestOptions(**options, limits=NEVER_BINDING)).run(candles)
    same = ("trades", "final_balance", "refused", "ignored", "signals", "fees_paid", "slippage_paid", "notes")
    more = ("open_positions", "participation_max", "exits_contested", "entries_cut")
    for name in (*same, *more):
        assert getattr(passing, name) == getattr(each, name), name
    assert passing.equity.time_ms.tolist() == each.equity.time_ms.tolist()  # type: ignore[union-attr]
    assert passing.equity.value == pytest.approx(each.equity.value, rel=1e-12)  # type: ignore[union-attr]
    assert passing.equity.value[-1] == pytest.approx(float(passing.final_balance), rel=1e-12)  # type: ignore[union-attr]


@pytest.mark.parametrize(("low", "high", "sold"), [("95", 101, "95"), ("95.001", 101, None), (99, "110", "110")])
def test_a_level_that_is_just_touched_is_not_passed_over(low: Any, high: Any, sold: str | None) -> None:
    candles = [candle(number) for number in range(300)]
    candles[250] = candle(250, 100, low=low, high=high)
    options = BacktestOptions(**FREE_OF_COST, stop_loss_pct=D(5), take_profit_pct=D(10))
    result = BacktestEngine(told(".B"), 1_000, options).run(candles)
    assert [trade.price for trade in result.trades[1:]] == ([] if sold is None else [D(sold)])


def test_a_candle_that_holds_no_number_is_passed_over_and_what_waits_waits_on() -> None:
    candles = [candle(number, 100 + number) for number in range(5)]
    candles[2] = msgspec.structs.replace(candles[2], open=D("NaN"), close=D("sNaN"))
    result = BacktestEngine(told(".B"), 1_000, BacktestOptions(**FREE_OF_COST)).run(candles)
    assert [(to_record(trade).time, trade.price) for trade in result.trades] == [(candles[3].open_time, D(103))]
    assert np.isfinite(result.equity.value).all()  # type: ignore[union-attr]


def test_what_is_held_is_worth_its_last_close_at_a_candle_that_holds_no_number() -> None:
    candles = [candle(number, 100 + number) for number in range(1_200)]
    for number in (4, 1_000, 1_001):  # 1,000 begins another piece of what is copied at once
        candles[number] = msgspec.structs.replace(candles[number], close=D("NaN"))
    result = BacktestEngine(told(".B"), 1_000, BacktestOptions(**FREE_OF_COST)).run(candles)
    value = result.equity.value  # type: ignore[union-attr]
    assert [value[4], value[1_000], value[1_001]] == [value[3], value[999], value[999]]
    assert value[1_002] > value[999] > value[3] > value[2] == 1_000


@pytest.mark.parametrize("first", ["1969-12-31T23:58", "2024-01-01T00:00", "2106-02-07T06:27"])
@pytest.mark.parametrize("late_ms", [0, 7])
def test_every_mark_stands_at_its_candles_close(first: str, late_ms: int) -> None:
    start = datetime.fromisoformat(first).replace(tzinfo=UTC)
    opened = [start + timedelta(minutes=number) for number in range(40)]
    opened[20] += timedelta(milliseconds=late_ms)
    candles = [msgspec.structs.replace(candle(0), open_time=moment) for moment in opened]
    result = BacktestEngine(told("-B"), D(1000)).run(candles)
    assert isinstance(result.equity, EquityCurve)
    assert [from_milliseconds(int(ms)) for ms in result.equity.time_ms] == [each.close_time for each in candles]


@pytest.mark.parametrize(("order", "fault"), [((0, 2, 1), "comes after"), ((0, 1, 1), "stands there twice")])
@pytest.mark.parametrize("limits", [None, NEVER_BINDING])
def test_candles_out_of_order_are_refused(order: tuple[int, ...], fault: str, limits: Limits | None) -> None:
    with pytest.raises(ConfigError, match=fault):
        BacktestEngine(told(""), 1_000, BacktestOptions(limits=limits)).run([candle(number) for number in order])


def test_size_is_priced_and_the_largest_share_of_the_market_is_told() -> None:
    candles = [msgspec.structs.replace(candle(number), volume=D(4)) for number in range(4)]
    by_size = BacktestOptions(fee=D(0), slippage_bps=D(0), half_spread_bps=D(1), impact_bps=D(10))
    result = BacktestEngine(told(".BS", quantity=1), 1_000, by_size).run(candles)
    assert [trade.price for trade in result.trades] == [D("100.06"), D("99.94")]  # 1 + 10 x sqrt(1 / 4)
    assert result.participation_max == 0.25
    assert result.slippage_bps == D(6)
    flat = BacktestEngine(told(".BS"), 1_000, BacktestOptions(**FREE_OF_COST)).run(candles)
    assert flat.participation_max is None


def test_history_tells_how_much_is_usually_traded() -> None:
    past = [msgspec.structs.replace(candle(number), volume=D(100)) for number in range(20)]
    candles = [msgspec.structs.replace(candle(number), volume=D(1)) for number in range(20, 24)]
    by_size = BacktestOptions(fee=D(0), slippage_bps=D(0), impact_bps=D(10))
    result = BacktestEngine(told("B", quantity=1), 1_000, by_size).run(candles, past)
    assert result.participation_max is None or result.participation_max == 0
    spoken = told("." * 20 + "B", quantity=1)
    assert BacktestEngine(spoken, 1_000, by_size).run(candles, past).participation_max == 0.01


@pytest.mark.parametrize(
    "costs",
    [
        {"slippage_bps": D(2), "impact_bps": D(1)},
        {"slippage_bps": D(0), "impact_bps": D(1000)},
        {"slippage_bps": D(0), "half_spread_bps": D(-1)},
        {"slippage_bps": D(0), "half_spread_bps": D("NaN")},
        {"fee_maker": D(1)},
        {"fee_maker": "cheap"},
    ],
)
def test_costs_that_contradict_or_cannot_be_are_refused(costs: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        BacktestOptions(**costs)


# --- what live limits would have said -----------------------------------------------------------------------------


def refused_by(tmp_path: Path, script: str, closes: list[float], limits: Limits, quantity: str = "1") -> dict[str, int]:
    """Return what limits would have said to a run over candles a quarter of an hour apart."""
    lines = ["open_time,open,high,low,close,volume"]
    lines += [
        f"{START + timedelta(minutes=15 * number):%Y-%m-%dT%H:%M:%SZ},{close},{close},{close},{close},1"
        for number, close in enumerate(closes)
    ]
    (tmp_path / "candles.csv").write_text("\n".join(lines))
    data = load_candles(tmp_path / "candles.csv", BTC, "15m")
    options = BacktestOptions(**FREE_OF_COST, max_entries=0)
    result: BacktestResult = BacktestEngine(told(script, quantity), 1_000, options).run(list(data.candles()))
    return live_refusals(result, data, limits)


ONLY: dict[str, Any] = {
    "position_size_max": D(1),
    "gross_exposure_max": D(0),
    "daily_loss_pct_max": D(0),
    "drawdown_pct_max": D(0),
}


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ({}, {}),
        ({"position_size_max": D("0.15")}, {"position_size": 2}),  # the first entry is a tenth of the account
        ({"gross_exposure_max": D("0.25")}, {"gross_exposure": 1}),
        ({"order_rate_max": 1}, {}),
        ({"notional_per_hour_max": D(250)}, {"notional_rate": 1}),
    ],
)
def test_each_entry_is_asked_at_the_account_as_it_was(
    tmp_path: Path, limit: dict[str, Any], expected: dict[str, int]
) -> None:
    limits = Limits(**(ONLY | limit))
    assert refused_by(tmp_path, ".BBB", [100.0] * 5, limits) == expected


def test_a_days_loss_ends_with_the_day_and_a_drawdown_stays(tmp_path: Path) -> None:
    closes = [100.0] * 3 + [60.0] * 2 + [90.0] * 200
    script = ".B" + "." * 4 + "B" + "." * 100 + "B"  # bought at 100; 4 % lost by 01:00, most of it won back at once
    quantity = "1"
    by_day = Limits(**(ONLY | {"daily_loss_pct_max": D(4)}))
    by_peak = Limits(**(ONLY | {"drawdown_pct_max": D(4)}))
    assert refused_by(tmp_path, script, closes, by_day, quantity) == {"daily_loss": 1}
    assert refused_by(tmp_path, script, closes, by_peak, quantity) == {"drawdown": 2}


def test_limits_in_force_refuse_first_what_they_would_have_refused(tmp_path: Path) -> None:
    closes = [100.0] * 3
    limits = Limits(position_size_max=D("0.05"))
    assert refused_by(tmp_path, ".B", closes, limits) == {"position_size": 1}
    options = BacktestOptions(**FREE_OF_COST, limits=limits)
    result = BacktestEngine(told(".B", "1"), 1_000, options).run([candle(number) for number in range(3)])
    assert (result.refused, result.live_limits) == ({"position_size": 1}, None)

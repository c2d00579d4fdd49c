"""`RiskManager.check`: the account's limits as one question."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_executor.risk_manager import RiskDecision, RiskManager
from shared.domain.risk import Limits
from shared.errors import ConfigError
from shared.models import Position
from shared.testing.builders import BTC, ETH, signal

D = Decimal
ALLOWED = RiskDecision(True)


def held(symbol: str, quantity: str, price: str = "100") -> Position:
    return Position(symbol=symbol, quantity=D(quantity), avg_entry_price=D(price), current_price=D(price))


def buy(quantity: str, price: str = "100") -> Any:
    return signal("BUY", 0, price, quantity)


def test_an_order_within_every_limit_is_allowed() -> None:
    assert RiskManager(0.1, 5, 10).check(buy("10"), 10_000, {}, 0) == ALLOWED


def test_a_symbols_position_is_limited_with_what_is_held_already() -> None:
    manager = RiskManager(0.1, 5, 10)

    assert manager.check(buy("5"), D(9_500), {BTC: held(BTC, "5")}, D(0)) == ALLOWED
    refused = manager.check(buy("5.1"), D(9_500), {BTC: held(BTC, "5")}, D(0))

    assert (refused.allowed, refused.reason) == (False, "position_size")
    assert "1010" in refused.detail


def test_another_symbol_counts_for_the_gross_limit_only() -> None:
    manager = RiskManager(0.5, 5, 10, limits=Limits(gross_exposure_max=D("0.6")))

    assert manager.check(buy("10"), 5_000, [held(ETH, "50")], 0) == ALLOWED
    assert manager.check(buy("11"), 5_000, [held(ETH, "50")], 0).reason == "gross_exposure"


def test_a_lost_day_refuses_what_increases_and_never_what_reduces() -> None:
    manager = RiskManager(0.1, 5, 10)

    assert manager.check(buy("1"), 9_000, {}, -1_000).reason == "daily_loss"
    assert manager.check(buy("1"), D("9000.01"), {}, D("-999.99")) == ALLOWED
    assert manager.check(signal("SELL", 0), 9_000, {BTC: held(BTC, "1")}, -5_000) == ALLOWED


def test_a_drawdown_refuses() -> None:
    assert RiskManager().check(buy("1"), 8_000, {}, 0, equity_peak=D(10_000)).reason == "drawdown"


def test_the_three_limits_can_be_switched_off() -> None:
    manager = RiskManager(1, 0, 0)

    assert manager.check(buy("99"), 10_000, {}, -9_000) == ALLOWED
    assert manager.stop_price(D(100)) is None


def test_the_quantity_that_sizing_chose_is_the_one_that_is_checked() -> None:
    assert RiskManager().check(buy("100"), 10_000, {}, 0, quantity=D(1)) == ALLOWED


@pytest.mark.parametrize(
    ("balance", "daily_pnl", "positions"),
    [
        (None, 0, {}),
        (D("NaN"), 0, {}),
        (10_000, None, {}),
        (10_000, float("nan"), {}),
        (0, 0, {}),
        (-5, 0, {}),
        (10_000, 0, [held(ETH, "1", "NaN")]),
    ],
)
def test_an_unknown_figure_refuses(balance: Any, daily_pnl: Any, positions: Any) -> None:
    refused = RiskManager().check(buy("1"), balance, positions, daily_pnl)

    assert (refused.allowed, refused.reason) == (False, "unknown_figure")


@pytest.mark.parametrize("price", ["NaN", "Infinity", "0", "-1"])
def test_a_price_that_is_none_refuses(price: str) -> None:
    assert RiskManager().check(buy("1", price), 10_000, {}, 0).reason == "unknown_figure"


def test_the_stop_is_a_percent_below_the_entry() -> None:
    assert RiskManager(0.1, 5, 10).stop_price(D(200)) == D(190)


@pytest.mark.parametrize(
    "arguments", [(-0.1, 5, 10), (1.1, 5, 10), (0.1, -1, 10), (0.1, 101, 10), (0.1, 5, float("nan"))]
)
def test_an_impossible_limit_is_refused_by_its_name(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="must be between"):
        RiskManager(*arguments)


@given(
    quantity=st.decimals(min_value="0.001", max_value="1000", places=3),
    balance=st.decimals(min_value="1", max_value="1000000", places=2),
    loss=st.decimals(min_value="-1000000", max_value="0", places=2),
)
def test_a_sell_passes_whatever_the_figures_are(quantity: Decimal, balance: Decimal, loss: Decimal) -> None:
    assert RiskManager().check(signal("SELL", 0, 100, quantity), balance, [held(BTC, "2000")], loss).allowed


@given(
    quantity=st.decimals(min_value="0.001", max_value="1000", places=3),
    balance=st.decimals(min_value="1", max_value="1000000", places=2),
    already=st.decimals(min_value="0", max_value="500", places=3),
)
def test_what_is_allowed_never_ends_above_the_symbol_limit(
    quantity: Decimal, balance: Decimal, already: Decimal
) -> None:
    positions = [held(BTC, str(already))]
    if RiskManager(0.1, 5, 10).check(signal("BUY", 0, 100, quantity), balance, positions, 0).allowed:
        assert (already + quantity) * 100 <= D("0.1") * (balance + already * 100)

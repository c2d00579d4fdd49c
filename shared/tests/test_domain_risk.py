from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.risk import (
    IncreaseFigures,
    Limits,
    check_increase,
    is_daily_loss_breached,
    is_drawdown_breached,
)

D = Decimal
OFF = Limits(
    position_size_max=D(1), gross_exposure_max=D(0), daily_loss_pct_max=D(0), drawdown_pct_max=D(0), order_rate_max=0
)
CALM = IncreaseFigures(
    symbol="BTC/USDT",
    price=D(100),
    quantity=D(1),
    equity=D(1000),
    symbol_quantity=D(0),
    gross_exposure=D(0),
    day_base=D(1000),
    equity_peak=D(1000),
    orders_last_minute=0,
    notional_last_hour=D(0),
)

# limit alone, figures that just pass, figures that just do not, reason
ALONE = [
    ({"position_size_max": D("0.1")}, {}, {"quantity": D("1.00000001")}, "position_size"),
    ({"position_size_max": D("0.3")}, {"symbol_quantity": D(2)}, {"symbol_quantity": D("2.00001")}, "position_size"),
    ({"gross_exposure_max": D(1)}, {"gross_exposure": D(900)}, {"gross_exposure": D("900.01")}, "gross_exposure"),
    ({"daily_loss_pct_max": D(10)}, {"equity": D("900.01")}, {"equity": D(900)}, "daily_loss"),
    (
        {"daily_loss_pct_max": D(10)},
        {"equity": D("1400.01"), "day_flows": D(500)},
        {"equity": D(1400), "day_flows": D(500)},
        "daily_loss",
    ),
    (
        {"daily_loss_pct_max": D(10)},
        {"equity": D("400.01"), "day_flows": D(-500)},
        {"equity": D(400), "day_flows": D(-500)},
        "daily_loss",
    ),
    (
        {"drawdown_pct_max": D(20)},
        {"equity": D("1200.01"), "equity_peak": D(1500)},
        {"equity": D(1200), "equity_peak": D(1500)},
        "drawdown",
    ),
    ({"order_rate_max": 30}, {"orders_last_minute": 29}, {"orders_last_minute": 30}, "order_rate"),
    (
        {"notional_per_hour_max": D(500)},
        {"notional_last_hour": D(400)},
        {"notional_last_hour": D("400.01")},
        "notional_rate",
    ),
]


@pytest.mark.parametrize(("limit", "passing", "failing", "reason"), ALONE)
def test_each_limit_alone_binds_at_its_figure(
    limit: dict[str, object], passing: dict[str, object], failing: dict[str, object], reason: str
) -> None:
    limits = msgspec.structs.replace(OFF, **limit)
    assert check_increase(limits, msgspec.structs.replace(CALM, **passing)) is None
    refusal = check_increase(limits, msgspec.structs.replace(CALM, **failing))
    assert refusal is not None
    assert refusal.reason == reason
    assert check_increase(OFF, msgspec.structs.replace(CALM, **failing)) is None


@pytest.mark.parametrize("unknown", ["equity", "gross_exposure"])
def test_an_unknown_figure_refuses(unknown: str) -> None:
    refusal = check_increase(OFF, msgspec.structs.replace(CALM, **{unknown: None}))
    assert refusal is not None
    assert refusal.reason == "unknown_figure"


def test_the_limits_shipped_are_those_of_the_settings() -> None:
    limits = Limits()
    assert (limits.position_size_max, limits.gross_exposure_max) == (D("0.1"), 1)
    assert (limits.daily_loss_pct_max, limits.drawdown_pct_max, limits.order_rate_max) == (10, 20, 30)
    assert limits.notional_per_hour_max == 0


def test_a_refusal_carries_the_numbers() -> None:
    refusal = check_increase(Limits(), msgspec.structs.replace(CALM, quantity=D("1.5")))
    assert refusal is not None
    assert "150.00" in refusal.detail
    assert "1000.00" in refusal.detail
    assert "0.1" in refusal.detail


@settings(deadline=None)
@given(st.decimals("0", "2000", places=2), st.decimals("1", "2000", places=2), st.decimals("0.1", "99", places=1))
def test_loss_and_drawdown_bind_exactly_from_their_percent_on(equity: Decimal, base: Decimal, percent: Decimal) -> None:
    limits = msgspec.structs.replace(OFF, daily_loss_pct_max=percent, drawdown_pct_max=percent)
    expected = (base - equity) * 100 >= percent * base
    assert is_daily_loss_breached(limits, equity=equity, day_base=base) is expected
    assert is_drawdown_breached(limits, equity=equity, equity_peak=base) is expected


def test_an_account_without_equity_may_buy_nothing() -> None:
    refusal = check_increase(
        msgspec.structs.replace(OFF, position_size_max=D("0.5")), msgspec.structs.replace(CALM, equity=D(0))
    )
    assert refusal is not None

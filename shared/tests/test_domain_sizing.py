from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shared.domain.effects import Declined, Placed
from shared.domain.matching import stop_price
from shared.domain.rounding import Instrument, times
from shared.domain.sizing import Sizing, SizingRule, entry_quantity, parse_sizing, smallest_passing_quantity
from shared.testing.builders import ALPHA, BTC, START, book, instance_rules, signal

D = Decimal


def size(text: str, **changes: str) -> Decimal:
    figures = {"signal_quantity": "0.5", "price": "50", "equity": "1000", "stop_loss_pct": "5", "step_size": "0.01"}
    return entry_quantity(parse_sizing(text), **{name: D(value) for name, value in (figures | changes).items()})


@pytest.mark.parametrize(
    ("text", "changes", "expected"),
    [
        ("fixed", {}, "0.5"),
        ("fixed", {"signal_quantity": "0.509"}, "0.50"),
        ("fixed", {"equity": "-5"}, "0.5"),
        ("quote:120", {}, "2.4"),
        ("quote:120", {"price": "70"}, "1.71"),
        ("equity_fraction:0.12", {}, "2.4"),
        ("equity_fraction:1", {}, "20"),
        ("equity_fraction:0.12", {"equity": "0"}, "0"),
        ("equity_fraction:0.12", {"equity": "-10"}, "0"),
        ("risk:1", {}, "4"),  # loses 2.5 a coin at the stop, may lose 10
        ("risk:0.5", {"stop_loss_pct": "2"}, "5"),
        ("risk:1", {"equity": "-1"}, "0"),
        ("quote:120", {"step_size": "1"}, "2"),
        ("quote:0.1", {}, "0"),
    ],
)
def test_each_rule_gives_the_size_worked_out_by_hand(text: str, changes: dict[str, str], expected: str) -> None:
    assert size(text, **changes) == D(expected)


@settings(deadline=None)
@given(
    percent=st.decimals("0.1", "10", places=2),
    stop_pct=st.decimals("0.5", "50", places=2),
    price=st.decimals("0.01", "100000", places=2),
    equity=st.decimals("100", "1e7", places=2),
)
def test_risk_sizing_loses_its_percent_at_the_stop_and_never_a_step_more(
    percent: Decimal, stop_pct: Decimal, price: Decimal, equity: Decimal
) -> None:
    step = D("1e-8")
    quantity = entry_quantity(
        Sizing(SizingRule.RISK, percent),
        signal_quantity=D(0),
        price=price,
        equity=equity,
        stop_loss_pct=stop_pct,
        step_size=step,
    )
    stop = stop_price(price, stop_pct)
    assert stop is not None
    loss, allowed = quantity * (price - stop), equity * percent / 100
    one_step = step * (price - stop)
    assert allowed - one_step * 2 <= loss <= allowed + one_step * D("1e-8")


def test_risk_sizing_of_a_grid_uses_the_stop_below_its_lower_price() -> None:
    rules = instance_rules(
        sizing=parse_sizing("risk:1"), stop_loss_pct=D(10), stop_anchor_price=D(90), instrument=Instrument(symbol=BTC)
    )
    placed = book({ALPHA: rules}).decide(signal("BUY", 0, price=100), START)
    assert isinstance(placed, Placed)
    assert abs(placed.order.quantity * (100 - 81) - 100) < D("1e-6")
    refused = book({ALPHA: rules}).decide(signal("BUY", 0, price=81), START)
    assert isinstance(refused, Declined)
    assert refused.reason == "below_stop"


def test_risk_sizing_without_a_stop_says_what_to_set() -> None:
    with pytest.raises(ValueError, match="risk_stop_loss_pct"):
        size("risk:1", stop_loss_pct="0")


@pytest.mark.parametrize("text", ["fixed", "quote:120", "equity_fraction:0.12", "risk:1.5"])
def test_a_sizing_prints_as_it_is_read(text: str) -> None:
    assert str(parse_sizing(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "half", "fixed:1", "quote", "quote:", "quote:x", "quote:0", "quote:-5", "quote:NaN", "quote:Infinity",
     "equity_fraction:0", "equity_fraction:1.01", "equity_fraction:12", "risk:0", "risk:100", "risk:-1", "QUOTE:5"],
)  # fmt: skip
def test_a_sizing_that_cannot_be_read_names_itself_and_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="write fixed, quote:N, equity_fraction:F"):
        parse_sizing(text)


@pytest.mark.parametrize(
    ("notional_min", "price", "step", "expected"),
    [
        ("5", "60000", "0.00001", "0.00009"),
        ("5", "50", "0.1", "0.1"),
        ("5", "49", "0.1", "0.2"),
        ("0", "50", "0.01", "0.01"),
        ("10", "3", "1", "4"),
    ],
)
def test_the_smallest_passing_size_is_worked_out_by_hand(
    notional_min: str, price: str, step: str, expected: str
) -> None:
    instrument = Instrument(symbol=BTC, step_size=D(step), notional_min=D(notional_min))
    assert smallest_passing_quantity(instrument, D(price)) == D(expected)


@settings(deadline=None)
@given(
    notional_min=st.decimals("0", "100", places=2),
    price=st.decimals("0.0001", "100000", places=4),
    step=st.sampled_from([D("1e-8"), D("0.001"), D(1)]),
)
def test_the_smallest_passing_size_passes_and_one_step_less_does_not(
    notional_min: Decimal, price: Decimal, step: Decimal
) -> None:
    assume(price * step < 10**6)
    instrument = Instrument(symbol=BTC, step_size=step, notional_min=notional_min)
    least = smallest_passing_quantity(instrument, price)
    assert times(least, price) >= notional_min
    assert least == step or times(least - step, price) < notional_min


@pytest.mark.parametrize("quantity", ["0.00008", "0.000001", "0"])
def test_a_size_below_the_minimum_is_refused_naming_the_least_that_passes(quantity: str) -> None:
    instrument = Instrument(symbol=BTC, step_size=D("0.00001"), notional_min=D(5))
    effect = book({ALPHA: instance_rules(instrument=instrument)}).decide(signal("BUY", 0, 60000, quantity), START)
    assert isinstance(effect, Declined)
    assert (effect.outcome, effect.reason) == ("refused", "below_min_notional")
    assert "0.00009" in effect.detail


def test_the_size_named_by_a_refusal_is_then_accepted() -> None:
    instrument = Instrument(symbol=BTC, step_size=D("0.00001"), notional_min=D(5))
    effect = book({ALPHA: instance_rules(instrument=instrument)}).decide(signal("BUY", 0, 60000, "0.00009"), START)
    assert isinstance(effect, Placed)
    assert effect.order.quantity == D("0.00009")


@pytest.mark.parametrize(
    ("sizing", "price", "quantity"),
    [("fixed", "100", "-1"), ("fixed", "100", "NaN"), ("fixed", "0", "1"), ("fixed", "-3", "1"), ("quote:5", "NaN", "1"),
     ("equity_fraction:0.1", "Infinity", "1"), ("risk:1", "0", "1")],
)  # fmt: skip
def test_a_signal_with_numbers_that_mean_nothing_is_refused_not_raised(sizing: str, price: str, quantity: str) -> None:
    one = book({ALPHA: instance_rules(sizing=parse_sizing(sizing), stop_loss_pct=D(5))})
    odd = msgspec.structs.replace(signal("BUY", 0), price=D(price), quantity=D(quantity))
    effect = one.decide(odd, START)
    assert isinstance(effect, Declined)
    assert (effect.outcome, effect.reason) == ("refused", "invalid_signal")


def test_the_equity_that_is_sized_from_is_the_sub_accounts_own() -> None:
    other = ALPHA._replace(strategy="rich")
    rules = instance_rules(sizing=parse_sizing("equity_fraction:0.12"))
    one = book({ALPHA: rules, other: rules}, cash=1000)
    one.accounts[other].cash = D(10**6)
    effect = one.decide(signal("BUY", 0, price=60), START)
    assert isinstance(effect, Placed)
    assert effect.order.quantity == 2

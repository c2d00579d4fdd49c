"""Bollinger's running sums against windows worked out to 120 digits: jumps, flat stretches, prices of any size."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Context, Decimal, localcontext
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.testing.builders import candle
from strategies.bollinger_strategy import BollingerStrategy

DIGITS = Context(prec=120)
TOLERANCE = Decimal("1e-12")
CLEAR = Decimal(4)  # a distance within a quarter and four of the tolerance is left to either side
CLOSE_TO_MUTED = Decimal("1e-9")
INSIDE, BELOW, ABOVE = 0, 1, 2


def is_beyond(distance: Decimal, band: Decimal) -> bool | None:
    """Say whether a close is outside by so much; None where that hangs on the tolerance's last places."""
    allowed = TOLERANCE * abs(band)
    if allowed / CLEAR < distance < allowed * CLEAR:
        return None
    return distance > allowed


def exact_actions(closes: list[float], params: dict[str, Any]) -> Iterator[int]:
    """Give the action of each close by the rule, up to the first that no rounding error may decide."""
    period, num_std, least = params["period"], Decimal(params["num_std"]), Decimal(params["min_bandwidth"])
    mark = INSIDE
    for number, close in enumerate(map(Decimal, closes)):
        window = [Decimal(value) for value in closes[: number + (params["window"] == "current")][-period:]]
        if len(window) < period:
            yield 0
            continue
        mean = sum(window) / period
        width = num_std * (sum((value - mean) ** 2 for value in window) / (period - 1)).sqrt()
        below, above = is_beyond(mean - width - close, mean - width), is_beyond(close - mean - width, mean + width)
        bandwidth = 2 * width / mean
        if below is None or above is None or (width and abs(bandwidth - least) <= CLOSE_TO_MUTED * least):
            return
        last, mark = mark, BELOW if below else ABOVE if above else INSIDE
        yield 0 if below or above or bandwidth < least else last


def actions(strategy: BollingerStrategy, closes: list[float]) -> list[int]:
    advance, (states, values) = strategy.prepare(), strategy.records
    return [advance(states, 0, values, 60_000 * n, c, c, c, c, 1.0) for n, c in enumerate(closes)]


@st.composite
def wild_closes(draw: st.DrawFn) -> list[float]:
    """Stretches of a few prices around one level; from stretch to stretch the price may jump by a million."""
    closes: list[float] = []
    for _ in range(draw(st.integers(1, 9))):
        level = draw(st.sampled_from([1e-8, 1e-2, 50.0, 5e4, 1e8]))
        spread = draw(st.sampled_from([0.0, 3e-14, 1e-9, 1e-6, 1e-3, 0.3]))
        steps = draw(st.lists(st.integers(-3, 3), min_size=1, max_size=24))
        closes += [level * (1.0 + step * spread) for step in steps]
    return closes


AFTER_A_JUMP = [5e4] * 9 + [5e10] + [5e4 * (1.0 + step * 1e-6) for step in (1, -1, 2, 0, -3, 1, 2, -2, 0, 3, -1)] * 3
ROUND_AND_ROUND = [50.0 * (1.0 + step * 1e-3) for step in (1, -1, 2, 0, -3, 1, 2, -2, 0, 3, -1)] * 6
BANDWIDTH = 0.0025672  # of any eleven of them at 0.7 deviations
WITHIN_THE_TOLERANCE = [50.0 * (1.0 + step * 3e-14) for step in (1, -1, 2, 0, -3, 1, 2, -2, 0, 3, -1)] * 3


@given(
    closes=wild_closes(),
    period=st.sampled_from([2, 4, 5, 20]),
    num_std=st.sampled_from([0.3, 0.7, 2.0]),
    min_bandwidth=st.sampled_from([0.0, 1e-6, 0.02]),
    window=st.sampled_from(["previous", "current"]),
)
@example(closes=AFTER_A_JUMP, period=5, num_std=1.0, min_bandwidth=0.0, window="previous")
@example(closes=AFTER_A_JUMP, period=5, num_std=1.0, min_bandwidth=0.0, window="current")
@example(closes=WITHIN_THE_TOLERANCE, period=5, num_std=0.7, min_bandwidth=0.0, window="previous")
@example(closes=ROUND_AND_ROUND, period=11, num_std=0.7, min_bandwidth=0.97 * BANDWIDTH, window="previous")
@example(closes=ROUND_AND_ROUND, period=11, num_std=0.7, min_bandwidth=1.03 * BANDWIDTH, window="previous")
@settings(max_examples=250, deadline=None)
def test_a_close_is_judged_as_by_the_exact_window_however_wild(closes: list[float], **params: Any) -> None:
    if params["window"] == "current":
        params["num_std"] = min(params["num_std"], 0.7 if params["period"] > 2 else 0.3)
    with localcontext(DIGITS):
        expected = list(exact_actions(closes, params))
    assert actions(BollingerStrategy(params), closes)[: len(expected)] == expected


@pytest.mark.parametrize(
    ("window", "told"),
    [
        ("previous", "lower band 91.432236 (mean 97, bandwidth 0.1148)"),  # of 102, 98, 91
        ("current", "lower band 89.880728 (mean 93.666667, bandwidth 0.0808)"),  # of 98, 91, 92
    ],
)
def test_the_reason_says_the_numbers_of_the_window_the_close_was_judged_by(window: str, told: str) -> None:
    strategy = BollingerStrategy({"period": 3, "num_std": 1.0, "window": window})
    signals = [strategy.on_candle(candle(number, close)) for number, close in enumerate([100, 102, 98, 91, 92])]
    assert [signal.reason for signal in signals if signal] == [f"close 92 back inside the {told}"]

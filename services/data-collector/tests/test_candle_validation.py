"""Only what can be true enters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_collector.feeds.port import StreamKey
from data_collector.testing import SCRIPT_START, build_candle
from data_collector.validation import CandleFault, CandleValidator, ValidationRules
from shared.models import Candle

BTC = StreamKey("BTC/USDT", "1m")
RULES = ValidationRules(frozenset({BTC}))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"open": "NaN"}, CandleFault.NOT_A_NUMBER),
        ({"high": "NaN"}, CandleFault.NOT_A_NUMBER),
        ({"low": "sNaN"}, CandleFault.NOT_A_NUMBER),
        ({"close": float("nan")}, CandleFault.NOT_A_NUMBER),
        ({"volume": "NaN"}, CandleFault.NOT_A_NUMBER),
        ({"high": "Infinity"}, CandleFault.NOT_A_NUMBER),
        ({"low": "-Infinity"}, CandleFault.NOT_A_NUMBER),
        ({"low": 0}, CandleFault.PRICE_NOT_POSITIVE),
        ({"close": -1}, CandleFault.PRICE_NOT_POSITIVE),
        ({"low": "1e-19"}, CandleFault.PRICE_NOT_POSITIVE),
        ({"high": 90, "low": 95}, CandleFault.HIGH_BELOW_LOW),
        ({"open": 200}, CandleFault.OUTSIDE_RANGE),
        ({"close": 50}, CandleFault.OUTSIDE_RANGE),
        ({"volume": -1}, CandleFault.VOLUME_NEGATIVE),
        ({"volume": "1e25"}, CandleFault.VALUE_TOO_LARGE),
        ({"high": "1e21"}, CandleFault.VALUE_TOO_LARGE),
        ({"open_time": SCRIPT_START + timedelta(seconds=30)}, CandleFault.OFF_GRID),
        ({"open_time": SCRIPT_START + timedelta(microseconds=1)}, CandleFault.OFF_GRID),
        ({"open_time": datetime(1970, 1, 20, tzinfo=UTC)}, CandleFault.TIME_OUT_OF_RANGE),
        ({"open_time": datetime(2150, 1, 1, tzinfo=UTC)}, CandleFault.TIME_OUT_OF_RANGE),
        ({"symbol": "DOGE/USDT"}, CandleFault.UNKNOWN_STREAM),
        ({"timeframe": "5m"}, CandleFault.UNKNOWN_STREAM),
        ({"timeframe": "7m"}, CandleFault.UNKNOWN_STREAM),
    ],
)
def test_a_malformed_candle_is_named_by_its_fault(changes: dict[str, object], fault: CandleFault) -> None:
    reason = CandleValidator(RULES).fault(build_candle(1, **changes))
    assert reason is not None
    assert reason.startswith(f"{fault}: ")


def test_a_good_candle_and_one_of_a_single_price_without_volume_enter() -> None:
    validator = CandleValidator(RULES)
    assert validator.fault(build_candle(1)) is None
    assert validator.fault(build_candle(2, open=100, high=100, low=100, close=100, volume=0)) is None


def test_a_candle_that_closes_after_the_sources_time_is_not_closed_yet() -> None:
    validator = CandleValidator(RULES)
    candle = build_candle(1)
    assert validator.fault(candle, candle.close_time) is None
    reason = validator.fault(candle, candle.close_time - timedelta(milliseconds=1))
    assert reason is not None
    assert reason.startswith(CandleFault.NOT_YET_CLOSED)


def test_a_price_in_other_units_is_held_back_and_the_next_good_one_enters() -> None:
    validator = CandleValidator(RULES)
    assert validator.fault(build_candle(1)) is None
    cents = build_candle(2, open=10_100, high=10_200, low=10_000, close=10_150)
    assert (validator.fault(cents) or "").startswith(CandleFault.PRICE_JUMP)
    assert validator.fault(build_candle(3)) is None


def test_a_second_candle_at_the_new_price_shows_that_the_market_moved() -> None:
    validator = CandleValidator(ValidationRules(frozenset({BTC}), Decimal("1.5")), {BTC: Decimal(100)})
    low = {"open": 40, "high": 42, "low": 38, "close": 41}
    assert (validator.fault(build_candle(1, **low)) or "").startswith(CandleFault.PRICE_JUMP)
    assert validator.fault(build_candle(2, **low)) is None
    assert validator.fault(build_candle(3, **low)) is None


def test_the_last_stored_close_bounds_the_first_candle_of_a_run() -> None:
    validator = CandleValidator(RULES, {BTC: Decimal("0.5")})
    assert (validator.fault(build_candle(1)) or "").startswith(CandleFault.PRICE_JUMP)


def test_split_keeps_order_and_says_why_not() -> None:
    good, bad = CandleValidator(RULES).split([build_candle(1), build_candle(2, close="NaN"), build_candle(3)])
    assert [each.open_time.minute for each in good] == [1, 3]
    assert [(each.stream, each.reason.split(":")[0]) for each in bad] == [("BTC/USDT 1m", "not_a_number")]
    assert "close=NaN" in bad[0].payload


numbers = st.one_of(
    st.decimals(allow_nan=True, allow_infinity=True),
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-10, 10**30),
)


@given(numbers, numbers, numbers, numbers, numbers, st.datetimes(timezones=st.just(UTC)))
def test_whatever_enters_is_finite_positive_and_ordered(o, h, low, c, v, moment) -> None:
    candle = Candle(symbol="BTC/USDT", timeframe="1m", open_time=moment, open=o, high=h, low=low, close=c, volume=v)
    reason = CandleValidator(RULES).fault(candle)
    if reason is None:
        assert 0 < candle.low <= min(candle.open, candle.close)
        assert max(candle.open, candle.close) <= candle.high < Decimal(10) ** 20
        assert 0 <= candle.volume < Decimal(10) ** 20
        assert moment.second == moment.microsecond == 0
    else:
        assert reason.partition(":")[0] in set(CandleFault)

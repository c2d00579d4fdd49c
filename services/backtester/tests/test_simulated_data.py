"""`simulated:DAYS` is a market for those who have no file: the feed's own, the same for everybody."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from backtester.data import load_candles
from backtester.report_rows import run_rows
from backtester.run import BacktestRequest, run_backtest
from shared.errors import ConfigError
from shared.synthetic_market import SyntheticMarket

pytestmark = pytest.mark.thorough


def test_days_of_the_simulated_market_are_the_feeds() -> None:
    data = load_candles("simulated:3:7", "ETH/USDT", "1m")
    day = SyntheticMarket("ETH/USDT", 7).minutes(20_089)
    assert data.first == datetime(2025, 1, 1, tzinfo=UTC)
    assert data.close[: len(day.close)].tolist() == day.close.tolist()
    assert 3 * 1_440 - 30 <= data.rows <= 3 * 1_440


def test_the_same_name_is_the_same_data() -> None:
    one, same, other = (
        load_candles(name, "BTC/USDT", "1h") for name in ("simulated:2", "simulated:2:1", "simulated:2:2")
    )
    assert one.sha256 == same.sha256 != other.sha256
    window = load_candles("simulated:2", "BTC/USDT", "1h", datetime(2025, 1, 2, tzinfo=UTC))
    assert (window.rows, window.sha256) == (24, one.sha256)
    assert window.history is not None


@pytest.mark.parametrize("name", ["simulated:", "simulated:0", "simulated:9999", "simulated:x", "simulated:1:-1"])
def test_a_name_that_says_no_days_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="for example simulated:365"):
        load_candles(name, "BTC/USDT", "1m")


def test_the_report_says_that_it_is_no_real_market() -> None:
    request = BacktestRequest(
        strategy="ema_crossover", data="simulated:2", symbol="BTC/USDT", timeframe="5m", engine="event"
    )
    assert "SIMULATED" in dict(run_rows(run_backtest(request)))["Data"]

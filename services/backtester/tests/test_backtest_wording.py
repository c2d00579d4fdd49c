from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from backtester.command import backtest
from backtester.sweep.command import sweep
from backtester.wording import counted

pytestmark = pytest.mark.thorough


def test_one_of_a_kind_is_named_without_an_s() -> None:
    said = [counted(0, "gap"), counted(1, "gap"), counted(2000, "gap"), counted(1, "run was", "runs were")]
    assert said == ["0 gaps", "1 gap", "2,000 gaps", "1 run was"]


@pytest.mark.parametrize("command", [backtest, sweep])
def test_one_candle_one_set_and_one_look_are_told_in_the_singular(
    command: object, write_csv: Callable[..., Path], tmp_path: Path
) -> None:
    words = ["--strategy", "ema_crossover", "--symbol", "BTC/USDT", "--data", str(write_csv([100.0]))]
    own = (
        ["--grid", "short_period=3", "--null", "1", "--out", str(tmp_path / "out.parquet")] if command is sweep else []
    )
    result = CliRunner().invoke(command, [*words, *own, "--state", str(tmp_path)])  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    assert "1 candle" in result.output
    for plural in ("1 candles", "1 sets", "1 trials", "1 days", "1 shuffles", "1 SETS"):
        assert f" {plural}" not in result.output

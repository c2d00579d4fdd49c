"""Fifty symbols with seven strategies each, for a minute: nothing grows beyond its bound, nobody falls behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.testing.scale_run import ScaleOptions, run_scale


@pytest.mark.e2e
def test_fifty_symbols_stay_within_every_bound_for_a_minute(tmp_path: Path) -> None:
    report = run_scale(tmp_path, ScaleOptions(seconds=60.0))
    assert not report.over_bounds, report
    assert report.largest["streams"] == report.bounds["streams"], "no stream reached its bound: nothing was seen"
    assert report.fills > 300
    assert report.candles > 50 * 40
    for name, lag in report.lag_seconds.items():
        assert lag["count"] > 40, name

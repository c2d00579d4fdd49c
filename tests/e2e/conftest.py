"""How long the whole-platform tests run: a slice in CI, the full proof with `--proof`."""

from __future__ import annotations

import pytest

from shared.testing.crash_market import Undisturbed, run_undisturbed


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--proof", action="store_true", help="the crash test on 20,000 candles with 20 kills")


@pytest.fixture(scope="session")
def is_proof(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--proof", default=False))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, is_proof: bool) -> Undisturbed:
    """Give what every run that is killed must end with."""
    return run_undisturbed(tmp_path_factory.mktemp("undisturbed"), 20_000 if is_proof else 4_000)

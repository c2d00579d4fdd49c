"""How long the whole-platform tests run: a slice in CI, the full proof with `--proof`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--proof", action="store_true", help="the crash test on 20,000 candles with 20 kills")


@pytest.fixture(scope="session")
def is_proof(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--proof", default=False))

"""How long the whole-platform tests run: a slice in CI, the full proof with `--proof`."""

from __future__ import annotations

import pytest

from shared.testing.crash_market import Undisturbed, run_undisturbed

PROVED = "proved"  # the property under which a test leaves its line


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--proof", action="store_true", help="the crash test on 20,000 candles with 20 kills")


@pytest.fixture(scope="session")
def is_proof(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--proof", default=False))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, is_proof: bool) -> Undisturbed:
    """Give what every run that is killed must end with."""
    return run_undisturbed(tmp_path_factory.mktemp("undisturbed"), 20_000 if is_proof else 4_000)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what each crash test went through, in a line of its own."""
    reports = terminalreporter.getreports("passed")
    lines = [str(value) for report in reports for key, value in report.user_properties if key == PROVED]
    if lines:
        terminalreporter.section("crash equality")
        terminalreporter.write("".join(f"{line}\n" for line in lines))

"""However a console script's command ends, the process says so in its exit code and in one line."""

from __future__ import annotations

import errno
from collections.abc import Callable

import click
import pytest

from shared.console_script import run_command
from shared.errors import ConfigError, StateLocked


def ended(command: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    with pytest.raises(SystemExit) as end:
        run_command("script", click.command()(command))
    return end.value.code, capsys.readouterr().err


@pytest.fixture(autouse=True)
def no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["script"])


@pytest.mark.parametrize("code", [0, 1])
def test_a_code_that_a_command_chose_is_that_of_the_process(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(lambda: click.get_current_context().exit(code), capsys) == (code, "")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("speed: was -1;\n  give another"), 2, "script: speed: was -1; give another\n"),
        (StateLocked("in use"), 3, "script: in use\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.json"),
            2,
            "script: out.json: No space left on device\n",
        ),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_an_error_of_a_console_script_is_one_line_and_its_exit_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert ended(fail, capsys) == (code, said)


def test_a_mistake_of_ours_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise AssertionError("an invariant")

    with pytest.raises(AssertionError):
        ended(fail, capsys)

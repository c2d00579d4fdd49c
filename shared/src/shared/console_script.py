"""How a console script ends: every deliberate error is one line and its exit code, everything else a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

import click

from shared.errors import TradingError

EXIT_BAD_INPUT: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141


def run_command(name: str, command: click.Command) -> NoReturn:
    """Run a command under the name of its script and end the process with its exit code."""
    end_with_code(name, lambda: command.main(prog_name=name, standalone_mode=False))


def end_with_code(name: str, work: Callable[[], Any]) -> NoReturn:
    """End the process with what `work` returns (0 unless it is a number) or with the code of the error it raises."""
    try:
        code = work()
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        code = quiet_end()
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _told(name, f"{where}{error.strerror or error}", EXIT_BAD_INPUT)
    except TradingError as error:
        code = _told(name, str(error), error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def quiet_end() -> int:
    """Give standard output somewhere to go, so that the interpreter's last flush does not complain."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # a stream without a descriptor, as in a test
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
    return EXIT_BROKEN_PIPE


def _told(name: str, text: str, code: int) -> int:
    click.echo(f"{name}: {' '.join(text.split())}", err=True)
    return code

"""The cache of generated modules stays small, and nobody who uses it notices that others tidy it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.step_cache import MODULES_MAX, VARIANTS_MAX, VERSIONS_MAX, load_generated, module_name, remove_unused


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder of an empty cache."""
    monkeypatch.setenv("TRADING_CACHE", str(tmp_path))
    return tmp_path / "steps"


def text(number: int, purpose: str = "") -> str:
    return f'"""Version {number} for {purpose}."""\nNUMBER = {number}\n'


def kept(steps: Path, purpose: str, numbers: range) -> list[int]:
    return [number for number in numbers if (steps / f"{module_name(text(number, purpose))}.py").is_file()]


def set_used(steps: Path, name: str, seconds: int) -> None:
    """Say when a module was taken last."""
    os.utime(steps / f"{name}.use", (seconds, seconds))


def test_the_newest_versions_of_each_strategy_stay_and_older_ones_go_with_their_machine_code(steps: Path) -> None:
    load_generated(text(0, "quiet"), "quiet")
    numbers = range(VERSIONS_MAX + 3)
    for number in numbers:
        load_generated(text(number, "edited"), "edited")
        name = module_name(text(number, "edited"))
        (steps / "__pycache__" / f"{name}.advance_at-31.py312.1.nbc").write_bytes(b"code")
        set_used(steps, name, 1_000 + number)
    assert kept(steps, "edited", numbers) == list(numbers)[-VERSIONS_MAX:]
    assert kept(steps, "quiet", range(1)) == [0]
    names = {path.stem for path in steps.glob("*.py")}
    beside = [*(steps / "__pycache__").iterdir(), *steps.glob("*.use")]
    assert {path.name.partition(".")[0] for path in beside} == names


def test_a_version_that_is_taken_again_is_new_again(steps: Path) -> None:
    first = load_generated(text(0, "turns"), "turns")
    set_used(steps, first.__name__, 5_000_000_000)  # by another process, later than all that follow
    for number in range(1, VERSIONS_MAX + 2):
        load_generated(text(number, "turns"), "turns")
    assert kept(steps, "turns", range(2)) == [0]


def test_the_whole_cache_is_bounded_too_that_of_an_older_build_included(steps: Path) -> None:
    (steps / "__pycache__").mkdir(parents=True)
    for number in range(MODULES_MAX + 20):
        old = steps / f"{module_name(text(number, 'old'))}.py"
        old.write_text(text(number, "old"))
        os.utime(old, (1_000 + number, 1_000 + number))
    remove_unused(steps)
    assert kept(steps, "old", range(MODULES_MAX + 20)) == list(range(20, MODULES_MAX + 20))


def test_machine_code_of_one_module_is_bounded(steps: Path) -> None:
    code = steps / "__pycache__"
    code.mkdir(parents=True)
    name = module_name(text(0, "many windows"))
    for number in range(VARIANTS_MAX + 5):
        path = code / f"{name}.advance_at-31.py312.{number}.nbc"
        path.write_bytes(b"code")
        os.utime(path, (1_000 + number, 1_000 + number))
    load_generated(text(0, "many windows"), "many windows")
    left = sorted(int(path.suffixes[-2][1:]) for path in code.glob("*.nbc"))
    assert left == list(range(5, VARIANTS_MAX + 5))


MANY = """
import sys
from pathlib import Path
from shared import step_cache
for number in range(60):
    text = f'NUMBER = {number}\\\\n#' + 'x' * int(sys.argv[1])
    assert step_cache.load_generated(text, "at once").NUMBER == number
"""


def test_processes_that_make_and_remove_versions_at_once_all_get_what_they_asked_for(steps: Path) -> None:
    # the first two make the same modules, the third others for the same purpose
    commands = [[sys.executable, "-c", MANY.replace("\\\\", "\\"), length] for length in ("1", "1", "2")]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    ended = [(process.communicate()[1], process.returncode) for process in running]
    assert ended == [("", 0)] * 3
    assert len(list(steps.glob("trading_step_*.py"))) <= 2 * VERSIONS_MAX  # one may miss what another adds


ALONE = """
from pathlib import Path
from shared.step_cache import cache_directory
from shared.step_compiler import load_step
from shared.plugins import discover
from strategies.rsi_strategy import step
module = load_step(step)
for path in cache_directory().glob("trading_step_*.py"):
    path.unlink()
strategy = discover().get("rsi").create("BTC/USDT", {})
strategy.prepare()
"""


@pytest.mark.thorough
def test_a_module_that_is_removed_before_its_first_call_is_compiled_all_the_same(steps: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


WINDOWS = """
import math
from shared.plugins import discover
from shared.testing.builders import candle
for period in (5, 80):
    strategy = discover().get("bollinger").create("BTC/USDT", {"period": period})
    signals = [strategy.on_candle(candle(number, 100 + 10 * math.sin(number / 3) + number % 37)) for number in range(160)]
    print(period, [number for number, signal in enumerate(signals) if signal])
"""


@pytest.mark.thorough
def test_machine_code_that_was_saved_under_the_number_of_another_is_made_anew(steps: Path) -> None:
    def said() -> str:
        done = subprocess.run([sys.executable, "-c", WINDOWS], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    before = said()
    assert before.count("[]") == 0
    first, second = sorted((steps / "__pycache__").glob("*.nbc"))
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    assert said() == before

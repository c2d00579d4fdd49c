"""The strategies that ship keep the rules, and the rules catch what reaches outside."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

from shared.plugin_rules import find_breaches
from shared.plugins import bundled_strategies_dir
from strategy_engine.plugin_loader import load_strategies

FILES = sorted(bundled_strategies_dir().glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_bundled_strategy_keeps_the_rules(path: Path) -> None:
    assert find_breaches(ast.parse(path.read_text())) == []


def test_every_bundled_strategy_has_its_yaml() -> None:
    stems = {path.stem for path in FILES if path.stem not in {"base", "__init__"}}
    assert stems == {path.stem for path in bundled_strategies_dir().glob("config/*.yaml")}
    assert len(stems) == 7


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import os", "imports os"),
        ("import os.path as p", "imports os.path"),
        ("from asyncio import sleep", "imports asyncio"),
        ("import socket, math", "imports socket"),
        ("from shared.db import Database", "imports shared.db"),
        ("from shared import broker", "imports shared.broker"),
        ("import shared.strategy_runner", "imports shared.strategy_runner"),
        ("from strategies import rsi_strategy", "imports strategies.rsi_strategy"),
        ("from . import base", "relative"),
        ("from .base import BaseStrategy", "relative"),
        ("from base import BaseStrategy", "no package"),
        ("def f():\n    import subprocess", "imports subprocess"),
        ("import importlib", "imports importlib"),
        ("import random", "imports random"),
        ("import time", "imports time"),
        ("open('x')", "calls open"),
        ("exec('x')", "uses exec"),
        ("e = eval", "uses eval"),
        ("__import__('os')", "uses __import__"),
        ("__builtins__['open']('x')", "uses __builtins__"),
        ("().__class__.__bases__[0].__subclasses__()", "uses __subclasses__"),
        ("import numpy as np\nnp.load('x')", "numpy's load"),
        ("from numpy import fromfile", "imports numpy.fromfile"),
        ("from datetime import datetime\ndatetime.now()", "reads the machine's clock"),
        ("import datetime\ndatetime.datetime.utcnow()", "reads the machine's clock"),
        ("import numpy as np\nnp.random.rand()", "chance"),
        ("from numpy.random import default_rng", "chance"),
        ("input()", "uses input"),
    ],
)
def test_what_reaches_outside_is_named_with_its_line_and_a_way_out(source: str, words: str) -> None:
    breaches = find_breaches(ast.parse(source))
    assert any(words in breach.what for breach in breaches)
    assert all(breach.fix for breach in breaches)
    assert {breach.line for breach in breaches} <= {1, 2}


@pytest.mark.parametrize(
    "source",
    [
        "import math, numpy as np\nfrom decimal import Decimal\nfrom collections import deque",
        "from shared.models import Candle, OrderSide\nfrom shared import indicators",
        "def step(state, params, open_time, open, high, low, close, volume):\n    return open > close",
        "from datetime import datetime, timedelta\ndef f(now):\n    return now - timedelta(days=1)",
        "import numba\nfrom pydantic import Field\nfrom typing import Any",
    ],
)
def test_what_a_strategy_needs_is_allowed(source: str) -> None:
    assert find_breaches(ast.parse(source)) == []


def test_a_file_left_out_is_logged_and_the_rest_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "bad_strategy.py").write_text("import socket\n")
    (tmp_path / "rsi_strategy.py").write_text((bundled_strategies_dir() / "rsi_strategy.py").read_text())
    with caplog.at_level(logging.ERROR):
        assert [strategy.name for strategy in load_strategies(tmp_path)] == ["rsi"]
    assert "imports socket" in caplog.text
    (tmp_path / "rsi_strategy.py").unlink()
    assert load_strategies(tmp_path) == []

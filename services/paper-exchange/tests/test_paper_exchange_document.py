"""The page about the exchange says what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from paper_exchange.command import paper_exchange
from paper_exchange.faults.plan import KINDS, parse_fault_plan
from paper_exchange.rest.endpoints import ENDPOINTS
from paper_exchange.rest.socket_api import METHODS

pytestmark = pytest.mark.thorough

PAGE = (Path(__file__).parents[3] / "docs" / "paper-exchange.md").read_text()


def test_the_faults_of_the_page_are_understood() -> None:
    (example,) = re.findall(r"```yaml\n(.+?)```", PAGE, flags=re.S)
    assert len(parse_fault_plan(yaml.safe_load(example), "the page").faults) == 8


def test_every_kind_of_fault_is_explained_with_its_settings() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.+\| (.+) \|$", PAGE, flags=re.M))
    assert list(rows) == list(KINDS)
    for kind, settings in KINDS.items():
        assert set(re.findall(r"`(\w+)`", rows[kind])) == set(settings), kind


def test_every_path_is_named() -> None:
    served = re.search(r"`/api/v3/` (.+?) \|", PAGE)
    assert served is not None
    assert sorted(served.group(1).split(", ")) == sorted(ENDPOINTS)
    asked = re.search(r"`/ws-api/v3` (.+?) \|", PAGE)
    assert asked is not None
    assert asked.group(1).split(", ") == list(METHODS)


def test_the_commands_of_the_page_have_options_that_exist() -> None:
    lines = re.findall(r"^trading paper-exchange (.+)$", PAGE, flags=re.M)
    assert len(lines) == 2
    for line in lines:
        context = click.Context(paper_exchange)
        paper_exchange.parse_args(context, shlex.split(line))
